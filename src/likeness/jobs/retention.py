"""The retention clock: photographs do not stay for ever once a job is over."""

import logging
from datetime import datetime
from functools import partial
from typing import Any

import sqlalchemy as sa

from ..errors import NotFound, StorageDamaged
from ..storage.catalog import Catalog
from ..storage.database import Database
from ..storage.objects import Objects
from . import object_keys
from .store import JobStore, add_event
from .tables import deliveries, jobs
from .types import SUBJECT_PHOTOS, read_order
from .uploads import drop_upload

log = logging.getLogger("likeness.retention")

TESTS_KEPT_S = 3600.0  # messages that tested an address: no job and no name leads to them
KEPT_SUFFIXES = ("previews/", "score.json")  # made by us, and the owner's to keep until the name is forgotten


class Retention:
    """Deletes what a finished job kept of its photographs when its time is over, and says so.

    Photographs that are kept with the subject go too, once they were trained on: those of before the job's end.
    """

    def __init__(self, database: Database, objects: Objects, catalog: Catalog) -> None:
        self._database, self._objects, self._catalog = database, objects, catalog
        self._store = JobStore(database)

    def purge_due(self, most: int = 20) -> list[str]:
        """Delete the photographs of jobs whose time is over; returns the jobs. Raises StorageUnavailable."""
        self._drop_tests()
        due = sa.select(jobs).where(jobs.c.purge_s <= self._database.now).limit(most)
        found = self._database.run(lambda connection: connection.execute(due).all(), reads_only=True)
        for row in found:
            self._database.run(partial(self._note, row.id, self._purge(row)))
        return [row.id for row in found]

    def _drop_tests(self) -> None:
        is_old = deliveries.c.created_s < self._database.now - TESTS_KEPT_S
        old = sa.select(deliveries.c.id).where(deliveries.c.job == deliveries.c.id, is_old)
        if found := self._database.run(lambda connection: connection.execute(old).scalars().all(), reads_only=True):
            drop = deliveries.delete().where(deliveries.c.id.in_(found))
            self._database.run(lambda connection: connection.execute(drop))

    def _purge(self, row: Any) -> int:
        """Delete what one job kept; returns how many objects that were."""
        prefix = object_keys.job_prefix(row.tenant, row.id)
        count = 0
        for facts in list(self._objects.list(prefix)):
            if not facts.key.removeprefix(prefix).startswith(KEPT_SUFFIXES):
                self._objects.delete(facts.key)
                count += 1
        try:
            order = read_order(row.order)
        except StorageDamaged as error:
            log.error("only the own objects of job %s were deleted: %s", row.id, error)
            return count
        count += drop_upload(self._store, self._objects, order)  # the end of the job may not have
        if row.state == "succeeded" and order.photos == SUBJECT_PHOTOS:
            count += self._purge_subject(row.tenant, row.name, row.finished_s)
        return count

    def _purge_subject(self, tenant: str, name: str, before_s: float) -> int:
        try:
            photos = self._catalog.list_photos(tenant, name)
        except NotFound:
            return 0
        old = [photo for photo in photos if datetime.fromisoformat(photo.created).timestamp() < before_s]
        for photo in old:
            self._objects.delete(photo.key)  # first: as long as there is a row, this can be done again
            self._catalog.delete_photo(tenant, name, photo.sha256)
        if old:
            self._catalog.scrub()
        return len(old)

    def _note(self, job: str, count: int, connection: sa.Connection) -> None:
        connection.execute(jobs.update().where(jobs.c.id == job).values(purge_s=None))
        add_event(self._database, connection, job, "purged", {"objects": count})
