"""Subjects and their photographs on a server: consent, uploads and verdicts.

    <tenant>/photos/<subject>/<sha256 of the uploaded file>

Only the pixels of a photograph are stored, upright and in sRGB, without metadata. They are deleted with the subject.
"""

import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..errors import AdapterBusy, NotFound, StorageUnavailable, UsageError
from ..storage.catalog import Catalog, now
from ..storage.consent import record_subject
from ..storage.objects import Objects
from ..storage.records import PhotoRecord, SubjectRecord
from ..types import MAX_PHOTOS, Photo, PreparedPhoto, Subject, kind_of
from .examined import ExaminedPhotos

if TYPE_CHECKING:
    from ..photos import CheckResult


@dataclass(frozen=True)
class Subjects:
    """Operations on subjects; each takes a tenant and sees only that tenant's data."""

    objects: Objects
    catalog: Catalog
    # One set at a time: face detection uses much memory and all cores.
    _checking: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    examined: ExaminedPhotos = field(default_factory=ExaminedPhotos, repr=False, compare=False)

    def create(self, tenant: str, subject: Subject, *, consent: str) -> SubjectRecord:
        """Create a subject.

        Args:
            consent: who agreed, and when, as stated by the caller; deleted with the subject.

        Raises:
            ConsentMissing: a person without a consent.
            AlreadyExists, UsageError: the name is taken; a value is out of range.
        """
        return record_subject(self.catalog, tenant, subject, consent=consent)

    def find(self, tenant: str, name: str) -> SubjectRecord:
        """Raises NotFound, UsageError."""
        return self.catalog.find_subject(tenant, name)

    def all(self, tenant: str, *, after: str = "", limit: int | None = None) -> tuple[SubjectRecord, ...]:
        """Sorted by name, starting after `after`. Raises UsageError."""
        return self.catalog.list_subjects(tenant, after=after, limit=limit)

    def add_photos(
        self, tenant: str, name: str, photos: Sequence[Photo], *, keep_strangers: bool = False
    ) -> "CheckResult":
        """Check photographs together with the stored ones, and store the pixels of those that can be used.

        Args:
            keep_strangers: also keep photographs that probably show another person.

        Returns:
            verdicts on `photos`, in their order, and advice for the whole set.

        Raises:
            NotFound, UsageError: no such subject; no photographs or too many.
            AdapterBusy: the subject is being deleted.
        """
        from ..photos import clean_copy

        subject, earlier = self.find(tenant, name), self.photos(tenant, name)
        if not photos or len(earlier) + len(photos) > MAX_PHOTOS:
            raise UsageError(
                f"expected 1 to {MAX_PHOTOS - len(earlier)} photographs, got {len(photos)}",
                hint="ten to twelve good photographs are enough; delete some before you add more",
            )
        checked = self._checked(subject, [*earlier, *photos], keep_strangers=keep_strangers)
        reports = checked.reports[len(earlier) :]
        images = {usable.photo.sha256: usable.image for usable in checked.usable}
        for photo, report in zip(photos, reports, strict=True):
            if report.verdict != "refused":
                key = f"{tenant}/photos/{name}/{photo.sha256}"
                kept = clean_copy(images[photo.sha256])
                record = PhotoRecord(
                    tenant, name, photo.sha256, photo.name[:200], len(kept),
                    json.dumps(report.to_json()), key, now(),
                )  # fmt: skip
                with self.objects.writing():
                    self.objects.put(key, kept)
                    try:
                        self.catalog.add_photo(record)
                    except (NotFound, AdapterBusy):  # deleted while the photographs were checked
                        self.objects.delete(key)
                        raise
        return replace(checked, reports=reports)

    def check(self, tenant: str, name: str) -> "tuple[list[Photo], CheckResult]":
        """The stored photographs, judged again as a set. Raises NotFound, UsageError."""
        subject, photos = self.find(tenant, name), self.photos(tenant, name)
        return photos, self._checked(subject, photos, keep_strangers=True)

    def prepared(self, tenant: str, name: str, sha256: str) -> list[PreparedPhoto]:
        """The training images of one stored photograph, each with its matte. Raises NotFound, UsageError."""
        from ..photos import prepare

        _, checked = self.check(tenant, name)
        found = next((one for one in checked.usable if one.photo.sha256 == sha256), None)
        if found is None:
            raise _no_photo()
        return prepare(found.image, found.face, sha256)

    def _checked(self, subject: SubjectRecord, photos: Sequence[Photo], *, keep_strangers: bool) -> "CheckResult":
        from ..photos import check

        memory = self.examined.of(subject.tenant, subject.name)
        with self._checking:
            return check(
                photos, kind_of(subject.class_noun), keep_strangers=keep_strangers,
                has_consent=bool(subject.consent.strip()), examined_before=memory,
            )  # fmt: skip

    def list_photos(self, tenant: str, name: str) -> tuple[PhotoRecord, ...]:
        """The records, in the order of upload. Raises NotFound, UsageError."""
        return self.catalog.list_photos(tenant, name)

    def photos(self, tenant: str, name: str) -> list[Photo]:
        """The photographs themselves, for checking and training. Raises NotFound, UsageError."""
        found = []
        for record in self.list_photos(tenant, name):
            try:
                found.append(Photo(record.file, self.objects.get(record.key), record.sha256))
            except NotFound:  # deleted meanwhile
                continue
        return found

    def photo(self, tenant: str, name: str, sha256: str) -> bytes:
        """The clean copy of one photograph, a JPEG. Raises NotFound, UsageError."""
        self.find(tenant, name)
        record = self.catalog.find_photo(tenant, name, sha256)
        if record is None:
            raise _no_photo()
        return self.objects.get(record.key)

    def delete_photo(self, tenant: str, name: str, sha256: str) -> None:
        """Raises NotFound (no such photo), UsageError."""
        self.find(tenant, name)
        record = self.catalog.find_photo(tenant, name, sha256)
        if record is None:
            raise _no_photo()
        self.examined.drop(tenant, name)
        self.objects.delete(record.key)  # first: as long as the row exists, this can be repeated
        self.catalog.delete_photo(tenant, name, sha256)
        with suppress(StorageUnavailable):  # the row is deleted; the next deletion empties the log
            self.catalog.scrub()


def _no_photo() -> NotFound:
    return NotFound(
        "there is no such photograph", hint="list the subject's photographs to find its id", code="ObjectNotFound"
    )
