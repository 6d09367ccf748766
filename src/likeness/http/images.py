"""POST /v1/images: images as JSON, as a file, or as server-sent events while they are made, by the Accept header."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request, Response
from PIL import Image

from ..engine.prompts import unread_of
from ..engine.ticket import StepEvent
from ..errors import LikenessError, UsageError
from ..service import Likeness
from ..types import JPEG, PNG, GeneratedImage
from .auth import Asking
from .events import EVENTS, EventStream, event
from .failures import failure
from .generation import Generation, encoded, likeness_of, made
from .schemas import REFUSALS, Id, ImageOut, ImagesOut, NewImages

router = APIRouter(prefix="/v1", responses=REFUSALS, tags=["images"])

_FORMS: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_DESCRIBED: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ImagesOut,
        "description": "By `Accept`: JSON; one image as a file; or events `step`, `image`, `error`, `done`.",
        "content": {PNG: _FORMS, JPEG: _FORMS, EVENTS: {"schema": {"type": "string"}}},
    }
}


@router.post("/images", response_model=None, responses=_DESCRIBED)
async def make_images(request: Request, asking: Asking, new: NewImages) -> Response | ImagesOut:
    """Make images. Images that are not finished are cancelled when the client disconnects."""
    likeness, accepts = likeness_of(request), request.headers.get("accept", "")
    asked = new.request().numbered(new.n)
    if EVENTS in accepts:
        generation = Generation(request, asked, tenant=asking.tenant, with_steps=True)
        await generation.submit()  # before the response starts, so that a refusal has its own status
        return EventStream(_events(request, generation, new, tenant=asking.tenant), ended=generation.cancel)
    wanted = next((kind for kind in (PNG, JPEG) if kind in accepts), None)
    if wanted and len(asked) > 1:
        raise UsageError("expected n = 1 for a bare image file", hint="accept application/json for more than one")
    images = await made(request, asked, tenant=asking.tenant)
    media_type = wanted or f"image/{new.format}"
    files = await encoded(likeness, images, media_type)
    kept = await _kept(likeness, images, files, media_type, tenant=asking.tenant) if new.keep else [None] * len(files)
    if wanted:
        return Response(files[0], media_type=wanted, headers={"X-Image-Id": kept[0]} if kept[0] else None)
    return ImagesOut(images=[_image(likeness, *one, media_type) for one in zip(images, files, kept, strict=True)])


@router.get("/images/{id}", response_class=Response, responses={200: {"content": {PNG: _FORMS, JPEG: _FORMS}}})
async def kept_image(request: Request, asking: Asking, id: Id) -> Response:
    """A kept image."""
    content, media_type = await asyncio.to_thread(likeness_of(request).kept, id, tenant=asking.tenant)
    return Response(content, media_type=media_type)


async def _events(request: Request, generation: Generation, new: NewImages, *, tenant: str) -> AsyncGenerator[bytes]:
    likeness, media_type = likeness_of(request), f"image/{new.format}"
    try:
        async for index, news in generation.events():
            if isinstance(news, StepEvent):
                yield event("step", json.dumps({"place": index, **_step(news)}))
                continue
            (file,) = await encoded(likeness, [news], media_type)
            kept = await _kept(likeness, [news], [file], media_type, tenant=tenant) if new.keep else [None]
            facts = _image(likeness, news, file, kept[0], media_type).model_dump()
            yield event("image", json.dumps({"place": index, **facts}))
        yield event("done", json.dumps({"images": new.n}))
    except LikenessError as error:
        yield event("error", json.dumps(failure(error, "/v1/images", request.state.request_id).document))


async def _kept(
    likeness: Likeness, images: list[GeneratedImage], files: list[bytes], media_type: str, *, tenant: str
) -> list[str | None]:
    def keep() -> list[str | None]:
        return [
            likeness.keep(image, file, media_type, tenant=tenant) for image, file in zip(images, files, strict=True)
        ]

    return await asyncio.to_thread(keep)


def _image(likeness: Likeness, image: GeneratedImage, file: bytes, kept: str | None, media_type: str) -> ImageOut:
    unread = unread_of(likeness.base, image.request)
    return ImageOut(
        id=kept, data=base64.b64encode(file).decode(), media_type=media_type,
        width=image.image.shape[1], height=image.image.shape[0], seed=image.request.seed,
        prompt=image.request.prompt, unread=unread.prompt, unread_negative=unread.negative_prompt,
        unread_instructions=list(unread.instructions),
        base_sha256=image.base_sha256, adapter_sha256=image.adapter_sha256,
        seconds=round(image.seconds, 3),
    )  # fmt: skip


def _step(step: StepEvent) -> dict[str, object]:
    document: dict[str, object] = {"step": step.step, "steps": step.steps}
    if step.preview is not None:
        buffer = io.BytesIO()
        Image.fromarray(step.preview).save(buffer, "JPEG", quality=70)
        document["preview"] = base64.b64encode(buffer.getvalue()).decode()  # JPEG
    return document
