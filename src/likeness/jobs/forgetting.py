"""Deleting everything that the training service has of a name: rows, messages and objects."""

from collections import Counter

import sqlalchemy as sa

from ..storage.objects import Objects
from ..storage.records import ForgottenItem
from . import object_keys
from .leases import being_written
from .locations import Locations
from .notifier import is_being_sent
from .queue import Queue
from .tables import deliveries
from .uploads import drop_upload

# the beginning of a key behind a job's prefix -> what it is, in a receipt
_KINDS = {
    "photos": "job photographs", "prepared": "prepared photographs", "checkpoints": "checkpoints",
    "previews": "previews", "adapter": "unpublished adapter",
    "score": "score cards",
}  # fmt: skip


def forget_jobs(queue: Queue, objects: Objects, locations: Locations, *, tenant: str, name: str) -> list[ForgottenItem]:
    """Delete all jobs of a name, over or not; those that run are cancelled.

    The rows of a job that has a lease stay until it is released or over: to be called again while `queue.ids_of` finds
    any. Objects go before the rows that lead to them, so this can be interrupted anywhere.

    Raises:
        StorageUnavailable: try again; what went is gone, and the rest is still found.
    """
    found = queue.ids_of(tenant, name)
    for job in found:
        queue.store.cancel(job, tenant)
    busy = queue.database.run(lambda connection: being_written(queue.database, connection, found), reads_only=True)
    free = [job for job in found if job not in busy]  # asked before their objects are looked for
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
        counts["uploads"] += drop_upload(queue.store, objects, order)
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
    return queue.database.run(lambda connection: connection.execute(asked).rowcount, patience_s=5.0)
