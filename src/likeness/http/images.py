"""POST /v1/images: pictures as JSON, as a file, or as they are made (server-sent events), by the Accept header."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request, Response
from PIL import Image

from ..engine.prompts import unread_of
from ..errors import LikenessError, UsageError
from ..portraits import JPEG, PNG
from ..service import Likeness
from ..types import GeneratedImage, ImageRequest
from .auth import Asking
from .events import EVENTS, EventStream, event
from .failures import failure
from .pictures import Done, Order, Step, adapter_asked, encoded, likeness_of, made, orders
from .rest import REFUSALS
from .schemas import Id, ImageOut, ImagesOut, NewImages

router = APIRouter(prefix="/v1", responses=REFUSALS, tags=["images"])

_FORMS: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_DESCRIBED: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ImagesOut,
        "description": "By `Accept`: JSON; one picture's file; or events `step`, `image`, `error`, `done`.",
        "content": {PNG: _FORMS, JPEG: _FORMS, EVENTS: {"schema": {"type": "string"}}},
    }
}


@router.post("/images", response_model=None, responses=_DESCRIBED)
async def make_images(request: Request, asking: Asking, new: NewImages) -> Response | ImagesOut:
    """Make pictures. Whoever hangs up takes them back."""
    likeness, accepts = likeness_of(request), request.headers.get("accept", "")
    asked = await orders(
        likeness,
        ImageRequest(
            new.prompt, adapter_asked(new.adapter), new.negative_prompt, new.seed, new.steps,
            adapter_scale=new.adapter_scale, negative_scale=new.negative_scale, sampler=new.sampler,
        ),
        new.n, new.guidance_scale,
    )  # fmt: skip
    if EVENTS in accepts:
        order = Order(request, asked, tenant=asking.tenant, with_steps=True)
        await order.submit()  # before the answer begins: a refusal has a status of its own
        return EventStream(_events(request, order, new, tenant=asking.tenant), ended=order.cancel)
    wanted = next((kind for kind in (PNG, JPEG) if kind in accepts), None)
    if wanted and len(asked) > 1:
        raise UsageError("expected n = 1 for a bare picture", hint="accept application/json for more than one")
    images = await made(request, asked, tenant=asking.tenant)
    media_type = wanted or f"image/{new.format}"
    files = await encoded(likeness, images, media_type)
    kept = await _kept(likeness, images, files, media_type, tenant=asking.tenant) if new.keep else [None] * len(files)
    if wanted:
        return Response(files[0], media_type=wanted, headers={"X-Image-Id": kept[0]} if kept[0] else None)
    return ImagesOut(images=[_image(likeness, *one, media_type) for one in zip(images, files, kept, strict=True)])


@router.get("/images/{id}", response_class=Response, responses={200: {"content": {PNG: _FORMS, JPEG: _FORMS}}})
async def kept_image(request: Request, asking: Asking, id: Id) -> Response:
    """A picture that was kept."""
    content, media_type = await asyncio.to_thread(likeness_of(request).kept, id, tenant=asking.tenant)
    return Response(content, media_type=media_type)


async def _events(request: Request, order: Order, new: NewImages, *, tenant: str) -> AsyncGenerator[bytes]:
    likeness, media_type = likeness_of(request), f"image/{new.format}"
    try:
        async for said in order.events():
            if isinstance(said, Done):
                (file,) = await encoded(likeness, [said.image], media_type)
                kept = await _kept(likeness, [said.image], [file], media_type, tenant=tenant) if new.keep else [None]
                facts = _image(likeness, said.image, file, kept[0], media_type).model_dump()
                yield event("image", json.dumps({"place": said.place, **facts}))
            else:
                yield event("step", json.dumps(_step(said)))
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
        id=kept, data=base64.b64encode(file).decode(), media_type=media_type, seed=image.request.seed,
        prompt=image.request.prompt, unread=unread.prompt, unread_negative=unread.negative_prompt,
        unread_instructions=list(unread.instructions),
        base_sha256=image.base_sha256, adapter_sha256=image.adapter_sha256,
        seconds=round(image.seconds, 3),
    )  # fmt: skip


def _step(step: Step) -> dict[str, object]:
    said: dict[str, object] = {"place": step.place, "step": step.event.step, "steps": step.event.steps}
    if step.event.preview is not None:
        buffer = io.BytesIO()
        Image.fromarray(step.event.preview).save(buffer, "JPEG", quality=70)
        said["preview"] = base64.b64encode(buffer.getvalue()).decode()  # JPEG
    return said
