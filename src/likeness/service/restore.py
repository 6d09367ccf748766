"""Restoring a backup, which is an untrusted file.

Nothing is extracted to a path: the names of members and the keys of objects are made from validated ids. Adapters are
decoded as those of an import, and of photographs only the pixels are stored. Items that cannot be restored are left out
and reported. What exists already is not changed, so an interrupted restoration can be repeated.

Sources: CWE-22 (path traversal), CWE-409 (compression bombs).
"""

import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import IO, TYPE_CHECKING, Any

from PIL import Image
from pydantic import TypeAdapter, ValidationError

from ..artifacts import bundle
from ..errors import AlreadyExists, CorruptAdapter, InputRefused, LikenessError, NotFound, StorageDamaged, StorageError
from ..scoring.score_card import ScoreCard
from ..storage import forgettings
from ..storage.catalog import Catalog, being_deleted
from ..storage.consent import require_word
from ..storage.home import Home
from ..storage.library import AdapterLibrary
from ..storage.records import OutputRecord, PhotoRecord, SubjectRecord
from ..types import BARE_BASE, PNG, Adapter, Subject, blend_of, checked_new_name, checked_rank, checked_subject
from .backup import KINDS, Counts
from .backup_rows import (
    MANIFEST,
    AdapterRow,
    ImageRow,
    JobRow,
    Manifest,
    PhotoRow,
    SubjectRow,
    adapter_member,
    image_member,
    photo_member,
    preview_member,
)
from .training import DAY_S, Training

if TYPE_CHECKING:
    from ..jobs.job import JobOrder

_MOST_MANIFEST_BYTES = 64 << 20
_MOST_MEMBER_BYTES = 1 << 30
_MOST_PIXELS = 1 << 25  # of a kept image; the largest bases make 1 megapixel


@dataclass(frozen=True)
class LeftOut:
    """Items of one name that were not restored."""

    name: str
    reason: str
    count: int


@dataclass(frozen=True)
class Restored:
    """The result of a restoration. Items that existed already are not counted."""

    counts: Counts
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Restoration:
    """Restores backups for one tenant.

    Args:
        home: of the tenant.
        keep_photos_days: a photograph is left out if its adapter was trained before that; a restored job that trained
            on the subject's photographs ends their retention time here, too.
        most_rank: of adapters.
        restores_deleted: also restore names that were deleted here after the backup was made.
    """

    library: AdapterLibrary
    training: Training
    home: Home
    keep_photos_days: int
    most_rank: int
    restores_deleted: bool = False

    def restore(self, file: IO[bytes]) -> Restored:
        """Restore a backup from a seekable file.

        Raises:
            InputRefused: not a backup, or damaged as a whole.
            StorageError: the store, the catalog or the disk failed; the call can be repeated.
        """
        tally = _Tally()
        with _opened(file) as archive:
            manifest = _manifest(archive)
            for items in _by_name(manifest):
                try:
                    with self.home.lock(items.name):
                        _OneName(self, archive, items, manifest.created, tally).restore()
                except StorageError:
                    raise
                except LikenessError as error:
                    tally.leave_out(items.name, error.message, items.count)
        return tally.result()


@dataclass(frozen=True)
class _Items:
    """Everything of one name in a backup."""

    name: str
    subject: SubjectRow | None
    adapter: AdapterRow | None
    photos: tuple[PhotoRow, ...]
    images: tuple[ImageRow, ...]
    jobs: tuple[JobRow, ...]

    @property
    def count(self) -> int:
        several = len(self.photos) + len(self.images) + len(self.jobs)
        return (self.subject is not None) + (self.adapter is not None) + several


@dataclass(frozen=True)
class _Tally:
    done: Counter[str] = field(default_factory=Counter)
    left: Counter[tuple[str, str]] = field(default_factory=Counter)

    def leave_out(self, name: str, reason: str, count: int = 1) -> None:
        if count:
            self.left[name, reason] += count

    def attempt(self, name: str, kind: str, work: Callable[[], bool]) -> None:
        """Count one item: `work` returns whether it was written, False if it existed."""
        try:
            self.done[kind] += work()
        except StorageError:
            raise
        except LikenessError as error:
            self.leave_out(name, error.message)

    def result(self) -> Restored:
        done = {kind: self.done[kind] for kind in KINDS}
        return Restored(Counts(**done), tuple(LeftOut(*key, count) for key, count in sorted(self.left.items())))


@dataclass(frozen=True)
class _OneName:
    """Restores the items of one name; the caller holds its lock."""

    asked: Restoration
    archive: zipfile.ZipFile
    items: _Items
    made: str  # the time of the backup
    tally: _Tally

    @property
    def _tenant(self) -> str:
        return self.asked.home.tenant

    @property
    def _catalog(self) -> Catalog:
        return self.asked.library.catalog

    def restore(self) -> None:
        items, tally, name = self.items, self.tally, self.items.name
        self._refuse_deleted(name)
        here = self._subject_here()
        if here is not None and (items.subject is None or here.created != items.subject.created):
            raise AlreadyExists("another subject of this name exists")
        if here is None and items.adapter is not None:
            self._refuse_other_adapter()  # of whom, cannot be known
        if items.subject is not None:
            subject = items.subject
            tally.attempt(name, "subjects", lambda: here is None and self._subject(subject))
        if self._subject_here() is not None:
            for photo in items.photos:
                tally.attempt(name, "photos", lambda photo=photo: self._photo(photo))  # type: ignore[misc]
        else:
            tally.leave_out(name, "there is no subject of this name", len(items.photos))
        if items.adapter is not None:
            tally.attempt(name, "adapters", self._adapter)
        if name == BARE_BASE or self._catalog.has_adapter(self._tenant, name):
            for image in items.images:
                tally.attempt(name, "images", lambda image=image: self._image(image))  # type: ignore[misc]
        else:
            tally.leave_out(name, "there is no adapter of this name", len(items.images))
        for job in items.jobs:
            tally.attempt(name, "jobs", lambda job=job: self._job(job))  # type: ignore[misc]

    def _refuse_deleted(self, name: str) -> None:
        receipts = [one.at for one in self._catalog.list_receipts(self._tenant) if one.name == name]
        if receipts and max(receipts) > self.made and not self.asked.restores_deleted:
            raise AlreadyExists("everything of this name was deleted after the backup was made")

    def _subject_here(self) -> SubjectRecord | None:
        try:
            return self._catalog.find_subject(self._tenant, self.items.name)
        except NotFound:
            return None

    def _refuse_other_adapter(self) -> None:
        here = self._catalog.content_sha256(self._tenant, self.items.name)
        if here is not None and here != self._decoded().card.content_sha256:
            raise AlreadyExists("another adapter of this name exists")

    def _subject(self, row: SubjectRow) -> bool:
        subject = Subject(checked_new_name(row.name), row.class_noun, row.identifier)
        require_word(checked_subject(subject), row.consent)
        self._catalog.add_subject(SubjectRecord(self._tenant, **row.model_dump()))
        return True

    def _photo(self, row: PhotoRow) -> bool:
        from ..photos import clean_copy, decode, is_clean

        if self._catalog.find_photo(self._tenant, row.subject, row.sha256) is not None:
            return False
        if self._is_over(row):
            raise InputRefused("the time for which photographs are kept is over")
        _object(row.report)
        content = self._read(photo_member(row.subject, row.sha256))
        image = decode(content)
        if not is_clean(content):
            content = clean_copy(image)
        key = f"{self._tenant}/photos/{row.subject}/{row.sha256}"
        record = PhotoRecord(self._tenant, **row.model_dump(), bytes=len(content), key=key)
        with self._written(key, content):
            self._catalog.add_photo(record)
        return True

    def _is_over(self, row: PhotoRow) -> bool:
        """Whether a training of the photograph ended more than `keep_photos_days` ago."""
        if self.items.adapter is None:
            return False
        try:
            trained = datetime.fromisoformat(self._decoded().card.created)
        except (CorruptAdapter, ValueError):
            return False
        if trained.tzinfo is None:
            trained = trained.replace(tzinfo=UTC)
        ended = datetime.now(UTC) - timedelta(days=self.asked.keep_photos_days)
        return datetime.fromisoformat(row.created) <= trained < ended

    def _adapter(self) -> bool:
        adapter = self._decoded()
        here = self._catalog.content_sha256(self._tenant, self.items.name)
        if here == adapter.card.content_sha256:
            return False
        checked_rank(adapter.card.rank, self.asked.most_rank)
        self.asked.library.publish(adapter, self._tenant)
        return True

    def _decoded(self) -> Adapter:
        """Raises CorruptAdapter, InputRefused."""
        adapter = bundle.decode(self._read(adapter_member(self.items.name)))
        if adapter.card.name != self.items.name:
            raise CorruptAdapter("expected an adapter of this name, got another")
        return adapter

    def _image(self, row: ImageRow) -> bool:
        if self._catalog.find_output(self._tenant, row.id) is not None:
            return False
        text = _object(row.facts).get("adapter")
        also = tuple(one.name for one in blend_of(text if isinstance(text, str) else None)[1:])
        for name in also:
            self._refuse_deleted(name)
        content = self._read(image_member(row.id, row.media_type))
        _refuse_other_image(content, row.media_type)
        key = f"{self._tenant}/outputs/{row.subject}/{row.id}"
        record = OutputRecord(self._tenant, **row.model_dump(), bytes=len(content), key=key)
        with self._written(key, content):
            self._catalog.add_output(record, also=also)
        return True

    def _job(self, row: JobRow) -> bool:
        """A job that is over, with its previews; those that are damaged are left out."""
        from ..jobs.history import PastJob, add_past

        queue = self.asked.training.queue
        if queue.store.state_of(row.id, self._tenant) is not None:
            return False
        past = PastJob(
            **row.model_dump(exclude={"name", "order", "losses", "previews", "score"}),
            order=_order(row, self._tenant), losses=tuple(row.losses),
            score=None if row.score is None else _score(row.score),
        )  # fmt: skip
        with self.asked.library.objects.writing():
            if forgettings.is_under_way(self._catalog, self._tenant, row.name):
                raise being_deleted()
            steps = tuple(step for step in sorted(set(row.previews)) if self._preview(row.id, step))
            keep_photos_s = self.asked.keep_photos_days * DAY_S
            return add_past(queue.database, replace(past, previews=steps), keep_photos_s=keep_photos_s)

    def _preview(self, job: str, step: int) -> bool:
        """Store the portraits of one checkpoint; False: there are none, or they are damaged."""
        from ..jobs.object_keys import preview_key

        try:
            content = self._read(preview_member(job, step))
            _refuse_other_image(content, PNG)
        except InputRefused:
            return False
        self.asked.library.objects.put(preview_key(self._tenant, job, step), content)
        return True

    @contextmanager
    def _written(self, key: str, content: bytes) -> Iterator[None]:
        """The block writes the object's row; if it fails, the object is deleted."""
        objects = self.asked.library.objects
        with objects.writing():
            objects.put(key, content)
            try:
                yield
            except LikenessError:
                objects.delete(key)
                raise

    def _read(self, member: str) -> bytes:
        return _member(self.archive, member, _MOST_MEMBER_BYTES)


@contextmanager
def _opened(file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise _no_backup("another file") from error
    with archive:
        yield archive


def _manifest(archive: zipfile.ZipFile) -> Manifest:
    try:
        return Manifest.model_validate_json(_member(archive, MANIFEST, _MOST_MANIFEST_BYTES))
    except ValidationError as error:
        raise _no_backup("other rows") from error


def _no_backup(got: str) -> InputRefused:
    return InputRefused(
        f"expected a zip of `likeness backup`, got {got}", hint="choose the file of a backup", code="ArchiveRefused"
    )


def _member(archive: zipfile.ZipFile, name: str, most_bytes: int) -> bytes:
    """The content of a stored member. Raises InputRefused: missing, compressed, encrypted, too large or damaged."""
    try:
        entry = archive.getinfo(name)
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise _no_backup("compressed or encrypted files")
        if max(entry.file_size, entry.compress_size) > most_bytes:
            raise _no_backup("a larger file than it makes")
        return archive.read(entry)
    except KeyError as error:
        raise InputRefused("expected its file in the backup, got none", code="ArchiveRefused") from error
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, OverflowError) as error:
        raise InputRefused(
            "expected its file in the backup intact, got a damaged one", code="ArchiveRefused"
        ) from error


def _by_name(manifest: Manifest) -> Iterator[_Items]:
    subjects = {row.name: row for row in manifest.subjects}
    adapters = {row.name: row for row in manifest.adapters}
    photos: dict[str, list[PhotoRow]] = {}
    images: dict[str, list[ImageRow]] = {}
    jobs: dict[str, list[JobRow]] = {}
    for photo in manifest.photos:
        photos.setdefault(photo.subject, []).append(photo)
    for image in manifest.images:
        images.setdefault(image.subject, []).append(image)
    for job in manifest.jobs:
        jobs.setdefault(job.name, []).append(job)
    for name in sorted({*subjects, *adapters, *photos, *images, *jobs}):
        yield _Items(
            name, subjects.get(name), adapters.get(name),
            tuple(photos.get(name, ())), tuple(images.get(name, ())), tuple(jobs.get(name, ())),
        )  # fmt: skip


def _object(text: str) -> dict[str, Any]:
    """The object of a row. Raises InputRefused: not a JSON object."""
    try:
        found = json.loads(text)
        if isinstance(found, dict):
            return found
    except (ValueError, RecursionError):
        pass
    raise InputRefused("expected a JSON object in its row, got something else", code="ArchiveRefused")


def _order(row: JobRow, tenant: str) -> "JobOrder":
    """The order of a job's row, for this tenant. Raises InputRefused, UsageError: not one that can be run."""
    from ..jobs.job import read_order

    try:
        order = replace(read_order(row.order), tenant=tenant)
    except StorageDamaged as error:
        raise InputRefused("expected a job's order in its row, got something else", code="ArchiveRefused") from error
    if order.name != row.name:
        raise InputRefused("expected the order of this name, got another", code="ArchiveRefused")
    order.fine_tune()
    return order


def _score(text: str) -> dict[str, Any]:
    """The score card of a job's row. Raises InputRefused."""
    try:
        card = TypeAdapter(ScoreCard).validate_json(text, strict=True).to_json()
        json.dumps(card, allow_nan=False)
    except ValueError as error:  # ValidationError is one
        raise InputRefused("expected a score card in its row, got something else", code="ArchiveRefused") from error
    return card


def _refuse_other_image(content: bytes, media_type: str) -> None:
    """Raises InputRefused: not a readable image of this type, or too large."""
    try:
        with Image.open(io.BytesIO(content), formats=[media_type.rpartition("/")[2].upper()]) as picture:
            if picture.width * picture.height <= _MOST_PIXELS:
                picture.load()
                return
    except (OSError, ValueError, SyntaxError, OverflowError, Image.DecompressionBombError):
        pass
    raise InputRefused("expected a readable PNG or JPEG, got another file", code="ArchiveRefused")
