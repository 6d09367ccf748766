"""Deletion: a finished job's photographs when their retention time is over, everything of a name when it is deleted."""

import logging
from collections import Counter
from datetime import datetime
from functools import partial
from typing import Any

import sqlalchemy as sa

from ..errors import NotFound, StorageDamaged
from ..storage.catalog import Catalog
from ..storage.database import Database
from ..storage.objects import Objects
from ..storage.records import ForgottenItem
from . import object_keys
from .deliveries import is_being_sent
from .job import SUBJECT_PHOTOS, read_order
from .leases import being_written
from .locations import Locations
from .queue import Queue
from .store import JobStore, add_event
from .tables import REQUEST_PATIENCE_S, deliveries, jobs

log = logging.getLogger("likeness.retention")

TESTS_KEPT_S = 3600.0  # messages that tested an address: no job and no name leads to them
# start of a key after the job's prefix -> kind in a receipt
_KINDS = {
    "photos": "job photographs", "prepared": "prepared photographs", "checkpoints": "checkpoints",
    "previews": "previews", "adapter": "unpublished adapter",
    "score": "score cards",
}  # fmt: skip
KEPT_STARTS = ("previews/", "score.json")  # kept until the name is forgotten


class Retention:
    """Deletes the photographs of finished jobs after their retention time, and records it as an event.

    The subject's own photographs that such a job was trained on are deleted too.
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
            if not facts.key.removeprefix(prefix).startswith(KEPT_STARTS):
                self._objects.delete(facts.key)
                count += 1
        try:
            order = read_order(row.order)
        except StorageDamaged as error:
            log.error("only the own objects of job %s were deleted: %s", row.id, error)
            return count
        count += self._store.drop_upload(self._objects, order)  # the end of the job may not have
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
        noted = connection.execute(
            jobs.update().where(jobs.c.id == job, jobs.c.purge_s.is_not(None)).values(purge_s=None)
        )
        if noted.rowcount:  # else another process has done the same
            add_event(self._database, connection, job, "purged", {"objects": count})


def forget_jobs(queue: Queue, objects: Objects, locations: Locations, *, tenant: str, name: str) -> list[ForgottenItem]:
    """Delete all jobs of a name, over or not; those that run are cancelled.

    The rows of a job that has a lease stay until it is released or over: to be called again while `queue.ids_of` finds
    any. Objects go before the rows that lead to them, so this can be interrupted anywhere.

    Raises:
        StorageUnavailable: try again; what was deleted stays deleted, and the rest is still found.
    """
    found = queue.ids_of(tenant, name)
    for job in found:
        queue.store.cancel(job, tenant)
    busy = queue.database.run(lambda connection: being_written(queue.database, connection, found), reads_only=True)
    free = [job for job in found if job not in busy]  # read before their objects are listed
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for job in found:
        prefix = object_keys.job_prefix(tenant, job)
        for facts in list(objects.list(prefix)):
            kind = next((kind for start, kind in _KINDS.items() if facts.key.startswith(prefix + start)), "job files")
            objects.delete(facts.key)
            counts[kind] += 1
            sizes[kind] += facts.bytes
        objects.prune(prefix)
    for order in queue.store.orders(found):
        counts["uploads"] += queue.store.drop_upload(objects, order)
        for store, key in locations.written(order):
            if store.has(key):
                store.delete(key)
                counts["results"] += 1
    uploads = object_keys.uploads_prefix(tenant, name)
    for facts in list(objects.list(uploads)):
        objects.delete(facts.key)
        counts["uploads"] += 1
        sizes["uploads"] += facts.bytes
    objects.prune(uploads)
    counts["job messages"] += _drop_messages(queue, tenant, found)
    counts.update(queue.erase(free))
    return [ForgottenItem(kind, count, sizes[kind]) for kind, count in counts.items() if count]


def _drop_messages(queue: Queue, tenant: str, found: list[str]) -> int:
    """Delete messages about the jobs that are not being sent, and test messages to the same addresses."""
    targets = {notice.target for order in queue.store.orders(found) for notice in order.notices}
    is_test = sa.and_(deliveries.c.job == deliveries.c.id, deliveries.c.target.in_(targets))
    asked = deliveries.delete().where(
        deliveries.c.tenant == tenant, sa.or_(deliveries.c.job.in_(found), is_test), ~is_being_sent(queue.database)
    )
    return queue.database.run(lambda connection: connection.execute(asked).rowcount, patience_s=REQUEST_PATIENCE_S)
