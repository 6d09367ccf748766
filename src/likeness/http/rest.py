"""/v1: subjects and their photographs, adapters, the base. Images are in `images`, training is in `jobs`."""

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile

from ..diffusion.family import Family
from ..errors import DeletionUnfinished
from ..service import AUTO, Likeness
from ..storage.forgettings import under_way
from ..storage.records import AdapterRecord, PhotoRecord, SubjectRecord
from ..types import HOUSE_ADAPTERS, JPEG, MAX_PHOTOS, Kind, Photo, Subject, class_noun_of, kind_of, printable_name
from .auth import Asking
from .generation import likeness_of
from .schemas import (
    REFUSALS,
    AdapterOut,
    AdaptersOut,
    BaseOut,
    CheckedOut,
    Id,
    NewSubject,
    PhotoOut,
    PhotosOut,
    ReceiptOut,
    ReceiptsOut,
    ShapeOut,
    SizesOut,
    SubjectOut,
    SubjectsOut,
    UnfinishedOut,
)
from .thumbnails import crops_sheet, thumbnail

if TYPE_CHECKING:
    from ..photos import CheckResult

log = logging.getLogger("likeness.http")

router = APIRouter(prefix="/v1", responses=REFUSALS)

After = Annotated[str, Query(max_length=63, pattern=r"^[a-z0-9_-]*$", description="the last name of the page before")]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/base", tags=["base"])
async def base(request: Request) -> BaseOut:
    """The base model that is served."""
    likeness = likeness_of(request)
    found, sides = await asyncio.to_thread(lambda: (likeness.base, likeness.offered_sides))
    family, side = found.family, found.family.resolution_px
    return BaseOut(
        id=found.id, sha256=found.sha256, family=family.name, width_px=side, height_px=side, sizes=_sizes(family),
        shapes=[
            ShapeOut(aspect=name, width=size[0], height=size[1])
            for one in sides for name, size in family.shapes(one).items()
        ],
        guidance_scale=family.guidance_scale,
    )  # fmt: skip


@router.post("/subjects", status_code=201, tags=["subjects"])
async def create_subject(request: Request, asking: Asking, new: NewSubject) -> SubjectOut:
    """Create a subject, with the consent of the person."""
    subject = Subject(new.name, class_noun_of(new.kind, new.class_noun))
    made = await asyncio.to_thread(likeness_of(request).subjects.create, asking.tenant, subject, consent=new.consent)
    return _subject(made)


@router.get("/subjects", tags=["subjects"])
async def list_subjects(request: Request, asking: Asking, after: After = "", limit: Limit = 100) -> SubjectsOut:
    """Subjects by name."""
    found = await asyncio.to_thread(likeness_of(request).subjects.all, asking.tenant, after=after, limit=limit)
    return SubjectsOut(subjects=[_subject(one) for one in found], next=_next(found, limit))


@router.get("/subjects/{name}", tags=["subjects"])
async def show_subject(request: Request, asking: Asking, name: str) -> SubjectOut:
    """One subject."""
    likeness = likeness_of(request)

    def look() -> SubjectOut:
        found, photos = likeness.subjects.find(asking.tenant, name), likeness.subjects.list_photos(asking.tenant, name)
        return _subject(found, photos=len(photos), has_adapter=likeness.catalog.has_adapter(asking.tenant, name))

    return await asyncio.to_thread(look)


@router.delete("/subjects/{name}", tags=["subjects"])
async def forget_subject(request: Request, asking: Asking, response: Response, name: str) -> ReceiptOut | UnfinishedOut:
    """Delete everything of a name: subject, photographs, adapter, checkpoints, images. The response is the receipt.

    202: the deletion is recorded and not complete yet; it continues in the background, see /v1/receipts.
    """
    return await _forgotten(likeness_of(request), response, asking.tenant, name)


@router.post("/subjects/{name}/photos", status_code=201, tags=["subjects"])
async def add_photos(
    request: Request, asking: Asking, name: str, photos: Annotated[list[UploadFile], File(max_length=MAX_PHOTOS)],
    keep_strangers: bool = False,
) -> CheckedOut:  # fmt: skip
    """Upload photographs. The response has a verdict on each and advice for the set. Pixels are kept, without metadata.

    Zip and tar archives are unpacked. Refused photographs are not kept. Photographs that probably show another person
    are refused unless the query has keep_strangers=true.
    """
    likeness = likeness_of(request)
    await asyncio.to_thread(likeness.subjects.find, asking.tenant, name)
    async with request.app.state.uploads:
        sent = [(printable_name(photo.filename or ""), await photo.read()) for photo in photos]
        read = await asyncio.to_thread(unpacked, sent)
        checked = await asyncio.to_thread(
            likeness.subjects.add_photos, asking.tenant, name, read, keep_strangers=keep_strangers
        )
    return checked_out(read, checked)


@router.get("/subjects/{name}/check", tags=["subjects"])
async def check_photos(request: Request, asking: Asking, name: str) -> CheckedOut:
    """The verdicts on all kept photographs, as of an upload: advice for the set, the plan of shots, what fills it."""
    return checked_out(*await asyncio.to_thread(likeness_of(request).subjects.check, asking.tenant, name))


@router.get("/subjects/{name}/photos/{sha256}", tags=["subjects"], response_class=Response)
async def show_photo(
    request: Request, asking: Asking, name: str, sha256: Id, view: Literal["whole", "thumbnail", "training"] = "whole"
) -> Response:
    """A kept photograph, a JPEG of at most 320 px of it, or the crops and mattes that training uses."""
    subjects = likeness_of(request).subjects

    def work() -> bytes:
        if view == "training":
            return crops_sheet(subjects.prepared(asking.tenant, name, sha256))
        content = subjects.photo(asking.tenant, name, sha256)
        return thumbnail(content) if view == "thumbnail" else content

    return Response(await asyncio.to_thread(work), media_type=JPEG)


@router.get("/subjects/{name}/photos", tags=["subjects"])
async def list_photos(request: Request, asking: Asking, name: str) -> PhotosOut:
    """Photographs that are kept, with the verdicts of their upload."""
    found = await asyncio.to_thread(likeness_of(request).subjects.list_photos, asking.tenant, name)
    readable = (_photo(one) for one in found)
    return PhotosOut(photos=[one for one in readable if one is not None])


@router.delete("/subjects/{name}/photos/{sha256}", status_code=204, tags=["subjects"])
async def delete_photo(request: Request, asking: Asking, name: str, sha256: Id) -> None:
    """Delete one photograph."""
    await asyncio.to_thread(likeness_of(request).subjects.delete_photo, asking.tenant, name, sha256)


@router.get("/adapters", tags=["adapters"])
async def list_adapters(
    request: Request, asking: Asking, after: After = "", limit: Limit = 100,
    house: Annotated[bool, Query(description="include house adapters, which all tenants can use")] = False,
) -> AdaptersOut:  # fmt: skip
    """Adapters by name."""
    catalog = likeness_of(request).catalog
    look = catalog.list_usable if house else catalog.list_adapters
    found = await asyncio.to_thread(look, asking.tenant, after=after, limit=limit)
    return AdaptersOut(adapters=[_adapter(one) for one in found], next=_next(found, limit))


@router.get("/adapters/{name}", tags=["adapters"])
async def show_adapter(request: Request, asking: Asking, name: str) -> AdapterOut:
    """One adapter of the caller, or of the operator."""
    return _adapter(await asyncio.to_thread(likeness_of(request).catalog.find_usable, asking.tenant, name))


@router.delete("/adapters/{name}", tags=["adapters"])
async def forget_adapter(request: Request, asking: Asking, response: Response, name: str) -> ReceiptOut | UnfinishedOut:
    """Delete the adapter, the consent record and all photographs of the subject; the same as deleting the subject."""
    return await _forgotten(likeness_of(request), response, asking.tenant, name)


@router.get("/adapters/{name}/download", tags=["adapters"], response_class=Response)
async def download_adapter(request: Request, asking: Asking, name: str, format: str = "diffusers") -> Response:
    """The adapter as a file for another program: diffusers, kohya (safetensors) or peft (tar.gz)."""
    content = await asyncio.to_thread(likeness_of(request).exported, name, format, tenant=asking.tenant)
    is_packed = content.startswith(b"\x1f\x8b")
    ending = "tar.gz" if is_packed else "safetensors"
    return Response(
        content, media_type="application/gzip" if is_packed else "application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="{name}-{format}.{ending}"'},  # both were checked
    )  # fmt: skip


@router.post("/adapters/import", status_code=201, tags=["adapters"])
async def import_adapter(
    request: Request,
    asking: Asking,
    name: Annotated[str, Form(max_length=63)],
    file: UploadFile,
    format: Annotated[str, Form(max_length=40, description="detected from the content unless given")] = AUTO,
    class_noun: Annotated[str | None, Form(max_length=100, description="person by default")] = None,
    identifier: Annotated[str, Form(max_length=100, description="by default `<<TOK>>`, of a style `<<STY>>`")] = "",
    kind: Annotated[Kind | None, Form(description="`style`; person or thing follow from the class noun")] = None,
    extract: Annotated[
        int | None,
        Form(
            ge=1,
            description="import the nearest LoRA of at most this rank, for a file that is not a plain LoRA (DoRA) or "
            "has a larger rank",
        ),
    ] = None,
) -> AdapterOut:
    """Import an adapter that was made elsewhere for the same base: a .safetensors file, or a tar.gz of PEFT's folder.

    Plain LoRA of any layer, with the key names of diffusers, PEFT, kohya or ComfyUI, and LyCORIS' LoHa and LoKr. A file
    that is not exactly such an adapter is refused unless `extract` is given; the response's `extraction` then has the
    error relative to the norm of the file's weights. Pickles are refused.
    """
    likeness, noun = likeness_of(request), class_noun_of(kind, class_noun)

    def take(content: bytes) -> AdapterRecord:
        likeness.import_adapter(
            content, name, format, class_noun=noun, identifier=identifier, extract=extract, tenant=asking.tenant
        )
        return likeness.catalog.find_adapter(asking.tenant, name)

    async with request.app.state.uploads if extract is None else request.app.state.extractions:
        return _adapter(await asyncio.to_thread(take, await file.read()))


@router.get("/receipts", tags=["subjects"])
async def list_receipts(request: Request, asking: Asking) -> ReceiptsOut:
    """Receipts of complete deletions, by time, and deletions that are not complete yet."""
    catalog = likeness_of(request).catalog

    def look() -> ReceiptsOut:
        unfinished = [UnfinishedOut(name=one.name, begun=one.begun) for one in under_way(catalog, asking.tenant)]
        receipts = [ReceiptOut.model_validate(asdict(one)) for one in catalog.list_receipts(asking.tenant)]
        return ReceiptsOut(receipts=receipts, unfinished=unfinished)

    return await asyncio.to_thread(look)


async def _forgotten(likeness: Likeness, response: Response, tenant: str, name: str) -> ReceiptOut | UnfinishedOut:
    def work() -> ReceiptOut | UnfinishedOut:
        try:
            return ReceiptOut.model_validate(asdict(likeness.forget(name, tenant=tenant)))
        except DeletionUnfinished as error:
            begun = next((one.begun for one in under_way(likeness.catalog, tenant) if one.name == name), None)
            if begun is None:  # completed by another process at this moment
                raise
            return UnfinishedOut(name=name, begun=begun, reason=error.message)

    found = await asyncio.to_thread(work)
    if isinstance(found, UnfinishedOut):
        response.status_code = 202
    return found


def unpacked(sent: Sequence[tuple[str, bytes]]) -> list[Photo]:
    """Name and content of the files -> photographs, those of archives included. Raises ArchiveRefused."""
    from ..photos import read_archive
    from ..photos.archive import is_archive

    found: list[Photo] = []
    for name, content in sent:
        found += read_archive(content) if is_archive(content[:512]) else [Photo(name, content)]
    return found


def checked_out(photos: Sequence[Photo], checked: "CheckResult") -> CheckedOut:
    """The document of an upload or of a check."""
    from ..photos.plan import next_shot, plan, shows

    faces = {one.photo.sha256: one.face for one in checked.usable}
    verdicts = []
    for photo, report in zip(photos, checked.reports, strict=True):
        repeats = any(reason.code == "near_duplicate" for reason in report.reasons)
        face = None if repeats else faces.get(photo.sha256)
        verdicts.append({"sha256": photo.sha256, **report.to_json(), "shows": shows(face) if face else []})
    shots = plan(checked.set_report.coverage)
    found = {**checked.set_report.to_json(), "plan": [asdict(one) for one in shots], "next_shot": next_shot(shots)}
    return CheckedOut.model_validate({"photos": verdicts, "set": found})


def _sizes(family: Family) -> SizesOut | None:
    if family.sizes is None:
        return None
    least, most = (round(area * family.resolution_px**2) for area in (family.sizes.least_area, family.sizes.most_area))
    return SizesOut(
        step_px=family.sizes.step_px, least_area_px=least, most_area_px=most, most_aspect=family.sizes.most_aspect
    )


def _subject(record: SubjectRecord, *, photos: int | None = None, has_adapter: bool | None = None) -> SubjectOut:
    facts = {key: value for key, value in asdict(record).items() if key != "tenant"}
    return SubjectOut(**facts, kind=kind_of(record.class_noun), photos=photos, has_adapter=has_adapter)


def _adapter(record: AdapterRecord) -> AdapterOut:
    card = asdict(record.card)
    known = {key: card[key] for key in AdapterOut.model_fields if key in card}
    return AdapterOut(
        **known, kind=record.card.subject.kind, bytes=record.bytes, is_house=record.tenant == HOUSE_ADAPTERS
    )


def _photo(record: PhotoRecord) -> PhotoOut | None:
    """None if the row is damaged, so that the others are listed all the same."""
    try:
        return PhotoOut.model_validate({"sha256": record.sha256, **json.loads(record.report)})
    except (ValueError, TypeError) as error:
        log.error("a damaged row of a photograph is skipped: %s", type(error).__name__)
        return None


def _next(found: Sequence[SubjectRecord | AdapterRecord], limit: int) -> str | None:
    return found[-1].name if len(found) == limit else None
