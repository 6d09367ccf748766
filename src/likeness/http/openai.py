"""OpenAI's images protocol under /openai/v1: `model` is an adapter's name, several (`anna+oil@0.6`), or `base`.

A parameter that would change the image is used, or refused by name. Those that cannot change it (`user`,
`safety_identifier`, `moderation`, `complexity`) are accepted and mean nothing here. `quality` is a number of steps, see
`pace_of`. The `size` is `auto`, the base's own square, or another of its sizes.
`revised_prompt` is what the base read: with the subject put in, and cut where it was too long. `warnings` is ours.
Source: OpenAI's API reference, 'Images' and 'Models', and its Python client 3.57.
"""

import asyncio
import base64
import time
from collections.abc import Mapping
from datetime import datetime
from math import ceil
from types import MappingProxyType
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field

from ..diffusion.family import Family
from ..engine.prompts import unread_of
from ..errors import UsageError
from ..service import BARE_BASE
from ..service.image_files import JPEG_QUALITY
from ..storage.records import AdapterRecord
from ..types import JPEG, MAX_BLEND_TEXT, MAX_PROMPT_CHARACTERS, PNG, ImageRequest, blend_of, size_of
from .asked import WHOLE, Asked, Integer
from .auth import Asking
from .generation import encoded, likeness_of, made

router = APIRouter(prefix="/openai/v1", tags=["openai"])

MAX_N = 10
Quality = Literal["low", "medium", "high", "xhigh", "max", "auto", "standard", "hd"]
# quality -> steps, as a multiple of the base's own
_MULTIPLES: Mapping[Quality, float] = MappingProxyType(
    {"low": 0.5, "medium": 1, "high": 2, "xhigh": 3, "max": 4, "auto": 1, "standard": 1, "hd": 2}
)
# parameters that change the image and are not supported -> what to do instead
_UNSUPPORTED = {
    "stream": "POST /v1/images streams",
    "partial_images": "POST /v1/images streams previews",
    "style": "describe the style in the prompt",
    "svg": "images are png or jpeg",
    "frame_count": "images have one frame",
    "frame_duration_ms": "images have one frame",
}
_Unsupported = Annotated[Any, Field(description="not supported")]


class NewGeneration(Asked):
    """The parameters of `images.generate`; those from `seed` on are ours, for `extra_body`."""

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)]
    model: Annotated[str, Field(max_length=MAX_BLEND_TEXT)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_N), WHOLE] | None = 1
    size: Annotated[str, Field(max_length=20, examples=["1024x1536"])] | None = Field(
        None, description="`auto`, the base's own, or WIDTHxHEIGHT, see GET /v1/base"
    )
    response_format: Literal["url", "b64_json"] | None = None
    output_format: Literal["png", "jpeg"] | None = None
    output_compression: Annotated[int, Field(ge=0, le=100), WHOLE] | None = Field(None, description="quality of a jpeg")
    background: Literal["opaque", "auto"] | None = None
    quality: Quality | None = Field(
        None,
        description="steps: `medium` the base's own, `low` its fast settings or else half, `high` twice, `xhigh` three "
        "times, `max` four times; `auto`, `standard`: `medium`; `hd`: `high`; a distilled base always takes its own",
    )
    complexity: Literal["low", "medium", "high"] | None = None
    moderation: Literal["low", "auto"] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    stream: _Unsupported = None
    partial_images: _Unsupported = None
    style: _Unsupported = None
    svg: _Unsupported = None
    frame_count: _Unsupported = None
    frame_duration_ms: _Unsupported = None
    seed: Integer | None = None
    negative_prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)] = ""
    steps: Integer | None = Field(None, description="in place of those of `quality`")
    guidance_scale: float | None = None

    def request(self, family: Family) -> ImageRequest:
        """The first of the images, with a seed from the clock unless one is given. Raises UsageError.

        Args:
            family: of the base that makes it.
        """
        seed = time.time_ns() % 2**32 if self.seed is None else self.seed
        steps, is_fast = pace_of(self.quality or "auto", family) if self.steps is None else (self.steps, False)
        width, height = size_of(self.size)
        return ImageRequest(
            self.prompt, blend_of(self.model), self.negative_prompt, seed, steps, self.guidance_scale, fast=is_fast,
            width=width, height=height,
        )  # fmt: skip


def pace_of(quality: Quality, family: Family) -> tuple[int | None, bool]:
    """The steps of a quality, and whether they are the base's fast settings, which have no number here.

    A distilled base was made for one number of steps, so it has one quality.
    """
    if family.undistilled is not None:
        return family.steps, False
    if quality == "low" and family.fast_steps is not None:
        return None, True
    return ceil(_MULTIPLES[quality] * family.steps), False


@router.get("/models")
async def list_models(request: Request, asking: Asking) -> dict[str, object]:
    """Every adapter that the caller can use is a model, and so is the bare base."""
    found = await asyncio.to_thread(likeness_of(request).catalog.list_usable, asking.tenant)
    return {"object": "list", "data": [_model(BARE_BASE, 0), *[_record(one) for one in found]]}


@router.get("/models/{model}")
async def show_model(request: Request, asking: Asking, model: str) -> dict[str, object]:
    """One adapter."""
    if model == BARE_BASE:
        return _model(BARE_BASE, 0)
    return _record(await asyncio.to_thread(likeness_of(request).catalog.find_usable, asking.tenant, model))


@router.post("/images/generations")
async def generate_images(request: Request, asking: Asking, new: NewGeneration) -> dict[str, object]:
    """images.generate. Without a seed every call gives different images."""
    likeness = likeness_of(request)
    family = (await asyncio.to_thread(lambda: likeness.base)).family
    _refuse_foreign(new)
    images = await made(request, new.request(family).numbered(new.n or 1), tenant=asking.tenant)
    media_type = JPEG if new.output_format == "jpeg" else PNG
    quality = JPEG_QUALITY if new.output_compression is None else max(new.output_compression, 1)
    files = await encoded(likeness, images, media_type, quality=quality)
    texts = [base64.b64encode(file).decode() for file in files]
    if new.response_format == "url":  # the server keeps no files, so the URL contains the image
        data = [{"url": f"data:{media_type};base64,{text}"} for text in texts]
    else:
        data = [{"b64_json": text} for text in texts]
    read = unread_of(likeness.base, images[0].request)  # they differ in their seeds only
    revised = images[0].request.prompt.removesuffix(read.prompt)
    return {
        "created": int(time.time()), "data": [{**one, "revised_prompt": revised} for one in data],
        "output_format": media_type.removeprefix("image/"), "warnings": read.remarks,
    }  # fmt: skip


def _refuse_foreign(new: NewGeneration) -> None:
    """Raises UsageError: a parameter that would change the image and is not supported."""
    for name, instead in _UNSUPPORTED.items():
        if getattr(new, name) not in (None, False, 0):
            raise UsageError(f"{name} is not supported here", hint=instead, param=name)
    if new.output_compression not in (None, 100) and new.output_format != "jpeg":
        raise UsageError(
            "expected output_compression together with output_format jpeg", hint="a png loses nothing",
            param="output_compression",
        )  # fmt: skip


def _record(record: AdapterRecord) -> dict[str, object]:
    return _model(record.name, int(datetime.fromisoformat(record.card.created).timestamp()))


def _model(id: str, created: int) -> dict[str, object]:
    return {"id": id, "object": "model", "created": created, "owned_by": "likeness"}
