"""Subjects and their photographs as a server keeps them: who agreed, what was uploaded, what was found about it.

    <tenant>/photos/<subject>/<sha256 of what was received>

Of a photograph only its pixels are kept, upright and in sRGB: place, time and device go before anything is stored. The
rest goes with the subject.
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
from ..types import MAX_PHOTOS, Photo, Subject, means_person

if TYPE_CHECKING:
    from ..photos import CheckResult


@dataclass(frozen=True)
class Subjects:
    """The verbs on subjects; each takes a tenant and sees nothing of another's."""

    objects: Objects
    catalog: Catalog
    # Faces are found one set at a time: the detectors take memory and all cores anyway.
    _checking: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def create(self, tenant: str, subject: Subject, *, consent: str) -> SubjectRecord:
        """A new subject.

        Args:
            consent: who agreed, in the words of whoever creates it; kept as evidence, deleted with the subject.

        Raises:
            ConsentMissing: a person without a word about it.
            AlreadyExists, UsageError: the name is taken; a value out of its range.
        """
        return record_subject(self.catalog, tenant, subject, consent=consent)

    def find(self, tenant: str, name: str) -> SubjectRecord:
        """Raises NotFound, UsageError."""
        return self.catalog.find_subject(tenant, name)

    def all(self, tenant: str, *, after: str = "", limit: int | None = None) -> tuple[SubjectRecord, ...]:
        """By name, from the one behind `after` on. Raises UsageError."""
        return self.catalog.list_subjects(tenant, after=after, limit=limit)

    def add_photos(
        self, tenant: str, name: str, photos: Sequence[Photo], *, keep_strangers: bool = False
    ) -> "CheckResult":
        """Judge photographs together with those that are there, and keep the pixels of those that can be used.

        Args:
            keep_strangers: keep photographs that probably show another person too.

        Returns:
            verdicts on `photos`, in their order, and the advice for the whole set.

        Raises:
            NotFound, UsageError: no such subject; nothing or too much at once.
            AdapterBusy: the subject is being deleted.
        """
        from ..photos import check, clean_copy

        subject, earlier = self.find(tenant, name), self.photos(tenant, name)
        if not photos or len(earlier) + len(photos) > MAX_PHOTOS:
            raise UsageError(
                f"expected 1 to {MAX_PHOTOS - len(earlier)} photos, got {len(photos)}",
                hint="ten to twelve good ones do; delete some before you add more",
            )
        with self._checking:
            checked = check([*earlier, *photos], means_person(subject.class_noun), keep_strangers=keep_strangers)
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
                    except (NotFound, AdapterBusy):  # forgotten while we looked at the photographs
                        self.objects.delete(key)
                        raise
        return replace(checked, reports=reports)

    def list_photos(self, tenant: str, name: str) -> tuple[PhotoRecord, ...]:
        """What is kept, in the order of upload. Raises NotFound, UsageError."""
        return self.catalog.list_photos(tenant, name)

    def photos(self, tenant: str, name: str) -> list[Photo]:
        """The photographs themselves, for checking and training. Raises NotFound, UsageError."""
        found = []
        for record in self.list_photos(tenant, name):
            try:
                found.append(Photo(record.file, self.objects.get(record.key), record.sha256))
            except NotFound:  # deleted while we looked
                continue
        return found

    def delete_photo(self, tenant: str, name: str, sha256: str) -> None:
        """Raises NotFound (no such photo), UsageError."""
        self.find(tenant, name)
        record = self.catalog.find_photo(tenant, name, sha256)
        if record is None:
            raise NotFound("there is no such photo", hint="list the subject's photos", code="ObjectNotFound")
        self.objects.delete(record.key)  # first: as long as there is a row, this can be done again
        self.catalog.delete_photo(tenant, name, sha256)
        with suppress(StorageUnavailable):  # the row is gone; the log is emptied with the next deletion
            self.catalog.scrub()
