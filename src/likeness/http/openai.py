"""OpenAI's images protocol under /openai/v1: `model` is an adapter's name, or `base`.

What OpenAI's own models would refuse is refused in the same words where they are known; what only says how much an
image may cost or who is asking (`quality`, `user`, ...) is accepted and means nothing here.
Source: OpenAI's API reference, 'Images' and 'Models', and its Python client.
"""

import asyncio
import base64
import time
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from ..errors import LikenessError
from ..portraits import JPEG, MAX_PROMPT_CHARACTERS, PNG
from ..service import BARE_BASE
from ..storage.catalog import AdapterRecord
from ..types import ImageRequest
from .auth import Asking
from .pictures import adapter_asked, encoded, likeness_of, made, orders

router = APIRouter(prefix="/openai/v1", tags=["openai"])

MAX_N = 10
_STEPS = 30


class WrongParameter(LikenessError):
    """A parameter that OpenAI's protocol has and that cannot be had here."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class NewGeneration(BaseModel):
    """The parameters of `images.generate`; those behind `seed` are ours, for `extra_body`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)]
    model: Annotated[str, Field(max_length=63)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_N)] | None = 1
    size: Annotated[str, Field(max_length=20)] | None = None
    response_format: Literal["url", "b64_json"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    stream: bool | None = None
    background: Any = None
    moderation: Any = None
    output_compression: Any = None
    partial_images: Any = None
    quality: Any = None
    style: Any = None
    user: Any = None
    seed: int | None = None
    negative_prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)] = ""
    steps: int = _STEPS
    guidance_scale: float | None = None


@router.get("/models")
async def list_models(request: Request, asking: Asking) -> dict[str, object]:
    """Every adapter is a model, and so is the bare base."""
    found = await asyncio.to_thread(likeness_of(request).catalog.list_adapters, asking.tenant)
    return {"object": "list", "data": [_model(BARE_BASE, 0), *[_record(one) for one in found]]}


@router.get("/models/{model}")
async def show_model(request: Request, asking: Asking, model: str) -> dict[str, object]:
    """One adapter."""
    if model == BARE_BASE:
        return _model(BARE_BASE, 0)
    return _record(await asyncio.to_thread(likeness_of(request).catalog.find_adapter, asking.tenant, model))


@router.post("/images/generations")
async def generate_images(request: Request, asking: Asking, new: NewGeneration) -> dict[str, object]:
    """images.generate. Without a seed every call gives other pictures."""
    likeness = likeness_of(request)
    _refuse_foreign(new, (await asyncio.to_thread(lambda: likeness.base)).family.resolution_px)
    seed = time.time_ns() % 2**32 if new.seed is None else new.seed
    asked = await orders(
        likeness,
        ImageRequest(new.prompt, adapter_asked(new.model), new.negative_prompt, seed, new.steps),
        new.n or 1, new.guidance_scale,
    )  # fmt: skip
    images = await made(request, asked, tenant=asking.tenant)
    media_type = JPEG if new.output_format == "jpeg" else PNG
    texts = [base64.b64encode(file).decode() for file in await encoded(likeness, images, media_type)]
    if new.response_format == "url":  # nothing is kept, so the picture is in its address
        data = [{"url": f"data:{media_type};base64,{text}"} for text in texts]
    else:
        data = [{"b64_json": text} for text in texts]
    return {"created": int(time.time()), "data": data, "output_format": media_type.removeprefix("image/")}


def _refuse_foreign(new: NewGeneration, side_px: int) -> None:
    if new.size not in (None, "auto", f"{side_px}x{side_px}"):
        raise WrongParameter(f"Invalid size. This base makes pictures of {side_px}x{side_px}.", "size")
    if new.stream:
        raise WrongParameter("Streaming is not supported here; POST /v1/images streams.", "stream")
    if new.output_format == "webp":
        raise WrongParameter("Invalid output_format. Supported are png and jpeg.", "output_format")


def _record(record: AdapterRecord) -> dict[str, object]:
    return _model(record.name, int(datetime.fromisoformat(record.card.created).timestamp()))


def _model(id: str, created: int) -> dict[str, object]:
    return {"id": id, "object": "model", "created": created, "owned_by": "likeness"}
