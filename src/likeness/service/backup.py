"""A backup of everything that a tenant keeps, as one zip; `restore` reads it.

    photos/<subject>/<sha256>.jpg     clean copies of the photographs
    adapters/<name>.safetensors       as in the store, see `artifacts.bundle`
    images/<id>.png, images/<id>.jpeg kept images, as they were made
    previews/<job>/<step>.png         portraits that a training made at its checkpoints
    backup.json                       the rows, see `backup_rows`; last, because it names only what is in the zip

Of a job that is over, the backup keeps its order, its end, its losses and its score card. Not in a backup: jobs that
wait or run, recipients of messages, receipts, API keys, and the files that the command line leaves in the home folder
(prepared photographs, checkpoints, portraits).
"""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from .. import __version__
from ..errors import NotFound
from ..storage.catalog import now
from ..storage.gallery import list_outputs
from ..storage.library import AdapterLibrary
from ..storage.records import OutputRecord, PhotoRecord, SubjectRecord
from .backup_rows import FORMAT, MANIFEST, VERSION, adapter_member, image_member, photo_member, preview_member
from .training import Training

_PAGE = 500
_JOB_FIELDS = (
    "id", "state", "submitted_s", "started_s", "finished_s", "attempt", "code", "reason", "hint", "adapter_sha256",
)  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """The number of items of each kind."""

    subjects: int
    photos: int
    adapters: int
    images: int
    jobs: int


KINDS = tuple(field.name for field in fields(Counts))


def backup(
    library: AdapterLibrary, training: Training, tenant: str, done: Callable[[Counts], None] = lambda counts: None
) -> Iterator[bytes]:
    """The bytes of the zip, in parts; memory holds one object at a time.

    Objects that are deleted meanwhile are left out. If an error is raised, the zip has no directory and cannot be read.

    Args:
        done: called once, after the last part.

    Raises:
        StorageUnavailable: the store, the catalog or the queue is unavailable.
    """
    out = _Parts()
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:  # all contents are compressed, or do not compress
        for kind, row, member, key in _items(library, tenant):
            if key:
                try:
                    content = library.objects.get(key)
                except NotFound:
                    continue
                archive.writestr(zipfile.ZipInfo(member), content)
            rows[kind].append(row)
            yield out.taken()
        for row, previews in _past_jobs(training, tenant):
            steps = []
            for step, key in previews:
                try:
                    archive.writestr(zipfile.ZipInfo(preview_member(row["id"], step)), library.objects.get(key))
                except NotFound:
                    continue
                steps.append(step)
                yield out.taken()
            rows["jobs"].append(row | {"previews": steps})
        said = {"format": FORMAT, "version": VERSION, "likeness": __version__, "created": now(), **rows}
        archive.writestr(zipfile.ZipInfo(MANIFEST), json.dumps(said, ensure_ascii=False, indent=1))
    yield out.taken()
    done(Counts(**{kind: len(found) for kind, found in rows.items()}))


class _Parts(io.RawIOBase):
    """A file that is only written; `taken` returns what was written since the last call."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def write(self, content: Any, /) -> int:
        self._parts.append(bytes(content))
        return len(content)

    def taken(self) -> bytes:
        content = b"".join(self._parts)
        self._parts.clear()
        return content


def _items(library: AdapterLibrary, tenant: str) -> Iterator[tuple[str, dict[str, Any], str, str]]:
    """(kind, row, member, key of the object or '') of every item."""
    catalog = library.catalog
    for subject in catalog.list_subjects(tenant):
        yield "subjects", _row(subject), "", ""
        try:
            photos = catalog.list_photos(tenant, subject.name)
        except NotFound:  # deleted meanwhile
            continue
        for photo in photos:
            yield "photos", _row(photo), photo_member(subject.name, photo.sha256), photo.key
    for adapter in catalog.list_adapters(tenant):
        yield "adapters", {"name": adapter.name}, adapter_member(adapter.name), adapter.key
    before = ""
    while page := list_outputs(catalog, tenant, before=before, limit=_PAGE):
        for image in page:
            yield "images", _row(image), image_member(image.id, image.media_type), image.key
        before = page[-1].id


def _past_jobs(training: Training, tenant: str) -> Iterator[tuple[dict[str, Any], list[tuple[int, str]]]]:
    """The row of every job that is over, with the steps and keys of its previews."""
    if not training.is_used:
        return
    from ..jobs.history import past_jobs
    from ..jobs.object_keys import preview_key

    for past in past_jobs(training.queue.store, tenant):
        row = {name: getattr(past, name) for name in _JOB_FIELDS}
        row |= {"name": past.order.name, "order": past.order.document(), "losses": list(past.losses)}
        row["score"] = None if past.score is None else json.dumps(past.score)
        yield row, [(step, preview_key(tenant, past.id, step)) for step in past.previews]


def _row(record: SubjectRecord | PhotoRecord | OutputRecord) -> dict[str, Any]:
    """Without the tenant, and without what follows from the object."""
    return {name: value for name, value in asdict(record).items() if name not in ("tenant", "key", "bytes")}
