"""/v1/images: the kept images in pages, their thumbnails, favourites, archives and side-by-side sheets."""

import asyncio
import io
import json
import zipfile
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from PIL import Image
from pydantic import BaseModel, Field

from ..errors import InputRefused, RequestCancelled
from ..service import Likeness, kept
from ..service.contact_sheet import Tile, contact_sheet
from ..service.image_files import marked_png
from ..storage.gallery import list_outputs, mark_favourite
from ..storage.records import OutputRecord
from ..types import JPEG, PNG
from .asked import Asked
from .auth import Asking
from .generation import likeness_of
from .schemas import REFUSALS, Id
from .thumbnails import thumbnail

router = APIRouter(prefix="/v1", responses=REFUSALS, tags=["images"])

MOST_AT_ONCE = 200  # of one archive
MOST_COMPARED = 16
Ids = Annotated[list[Id], Query(alias="id", min_length=1)]


class KeptOut(BaseModel):
    """A kept image and how it was made; fields that an earlier version did not record are null."""

    id: str
    adapter: str | None = Field(description="the subject; null: the bare base")
    blend: str | None = Field(default=None, description="all adapters with their weights, such as anna+oil@0.6")
    media_type: str
    bytes: int
    created: str
    is_favourite: bool
    prompt: str | None = None
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    adapter_scale: float | None = None


class GalleryOut(BaseModel):
    images: list[KeptOut]
    next: str | None = Field(description="`before` of the next page; null at the end")


class PictureLikenessOut(BaseModel):
    """Distances of face descriptors, 0 to about 1.5; null where none can be computed."""

    distance: float | None = Field(default=None, description="of the image to the photographs, median")
    photo_distance: float | None = Field(default=None, description="of the photographs to each other, median")
    is_same: bool | None = Field(default=None, description="whether the distance is at most 0.6, dlib's limit")
    reason: str = Field(default="", description="why no distance can be computed")


class Favourite(Asked):
    is_favourite: bool


@router.get("/images")
async def list_images(
    request: Request, asking: Asking,
    adapter: Annotated[str | None, Query(max_length=63, description="only of this one, or of `base`")] = None,
    favourites: bool = False,
    before: Annotated[Id, Query(description="the id of the last image of the page before")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> GalleryOut:  # fmt: skip
    """Kept images, the newest first."""
    found = await asyncio.to_thread(
        list_outputs, likeness_of(request).catalog, asking.tenant,
        subject=adapter, favourites=favourites, before=before, limit=limit,
    )  # fmt: skip
    return GalleryOut(images=[_kept(one) for one in found], next=found[-1].id if len(found) == limit else None)


@router.get("/images/archive", response_class=Response)
async def archive_images(request: Request, asking: Asking, ids: Ids) -> Response:
    """Kept images as one zip; the files are as they were made, with their provenance. At most 200 `id` in the query."""
    likeness = likeness_of(request)
    content = await asyncio.to_thread(_archive, likeness, asking.tenant, ids[:MOST_AT_ONCE])
    return _download(content, "application/zip", "portraits.zip")


@router.get("/images/sheet", response_class=Response)
async def compare_images(request: Request, asking: Asking, ids: Ids, columns: int = 2) -> Response:
    """Kept images side by side as one PNG, each with its prompt, strength and seed. At most 16 `id` in the query."""
    likeness = likeness_of(request)
    content = await asyncio.to_thread(_sheet, likeness, asking.tenant, ids[:MOST_COMPARED], columns=columns)
    return _download(content, PNG, "comparison.png")


@router.get("/images/{id}/thumbnail", response_class=Response)
async def image_thumbnail(request: Request, asking: Asking, id: Id) -> Response:
    """A kept image as a JPEG of at most 320 px."""
    likeness = likeness_of(request)
    return Response(
        await asyncio.to_thread(lambda: thumbnail(likeness.kept(id, tenant=asking.tenant)[0])), media_type=JPEG
    )


@router.get("/images/{id}/likeness")
async def image_likeness(request: Request, asking: Asking, id: Id) -> PictureLikenessOut:
    """How similar the face of a kept image is to the stored photographs of its subject."""
    likeness = likeness_of(request)
    try:
        async with request.app.state.comparisons:
            if await request.is_disconnected():
                raise RequestCancelled("the client has gone")
            found = await asyncio.to_thread(likeness.picture_likeness, id, tenant=asking.tenant)
    except InputRefused as error:
        return PictureLikenessOut(reason=error.message)
    return PictureLikenessOut(
        distance=round(found.distance, 4), photo_distance=round(found.photo_distance, 4), is_same=found.is_same
    )


@router.put("/images/{id}/favourite")
async def set_favourite(request: Request, asking: Asking, id: Id, favourite: Favourite) -> KeptOut:
    """Mark a kept image as a favourite, or remove the mark."""
    library = likeness_of(request).library

    def work() -> OutputRecord:
        mark_favourite(library.catalog, asking.tenant, id, favourite.is_favourite)
        return kept.record_of(library, asking.tenant, id)

    return _kept(await asyncio.to_thread(work))


@router.delete("/images/{id}", status_code=204)
async def delete_image(request: Request, asking: Asking, id: Id) -> None:
    """Delete a kept image."""
    await asyncio.to_thread(kept.delete, likeness_of(request).library, asking.tenant, id)


@router.get("/adapters/{name}/archive", response_class=Response, tags=["adapters"])
async def archive_adapter(request: Request, asking: Asking, name: str, format: str = "diffusers") -> Response:
    """A zip of the adapter, as for /download, and the newest 1000 of its kept images."""
    likeness = likeness_of(request)

    def work() -> bytes:
        content = likeness.exported(name, format, tenant=asking.tenant)
        ending = "tar.gz" if content.startswith(b"\x1f\x8b") else "safetensors"
        images = list_outputs(likeness.catalog, asking.tenant, subject=name, limit=1000)
        return _archive(likeness, asking.tenant, [one.id for one in images], {f"{name}-{format}.{ending}": content})

    return _download(await asyncio.to_thread(work), "application/zip", f"{name}.zip")


def _archive(likeness: Likeness, tenant: str, ids: Sequence[str], files: dict[str, bytes] | None = None) -> bytes:
    """Raises NotFound: one of the images."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # images are compressed already
        for name, content in (files or {}).items():
            archive.writestr(name, content)
        for place, id in enumerate(dict.fromkeys(ids), 1):
            content, media_type = likeness.kept(id, tenant=tenant)
            archive.writestr(f"portraits/{place:04d}-{id[:8]}.{media_type.rpartition('/')[2]}", content)
    return buffer.getvalue()


def _sheet(likeness: Likeness, tenant: str, ids: Sequence[str], *, columns: int) -> bytes:
    tiles = []
    for id in ids:
        record = kept.record_of(likeness.library, tenant, id)
        with Image.open(io.BytesIO(likeness.library.objects.get(record.key))) as picture:
            tiles.append(Tile(np.asarray(picture.convert("RGB")), _caption(record)))
    return marked_png(contact_sheet(tiles, title="Compared with the same seeds", columns=columns))


def _caption(record: OutputRecord) -> str:
    said = _facts(record)
    strength = f", strength {said['adapter_scale']}" if said.get("adapter_scale") not in (None, 1.0) else ""
    return f"{said.get('adapter') or record.subject}{strength}, seed {said.get('seed', '?')}: {said.get('prompt', '')}"


def _kept(record: OutputRecord) -> KeptOut:
    said = _facts(record)
    names = ("prompt", "negative_prompt", "width", "height", "seed", "steps", "guidance_scale", "adapter_scale")
    return KeptOut(
        id=record.id, adapter=None if record.subject == "base" else record.subject, media_type=record.media_type,
        bytes=record.bytes, created=record.created, is_favourite=record.is_favourite, blend=said.get("adapter"),
        **{name: said.get(name) for name in names},
    )  # fmt: skip


def _facts(record: OutputRecord) -> dict[str, Any]:
    """Empty for a damaged row: the image can be seen and deleted all the same."""
    try:
        said = json.loads(record.facts)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _download(content: bytes, media_type: str, name: str) -> Response:
    return Response(
        content, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )  # fmt: skip
