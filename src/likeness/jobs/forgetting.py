"""Everything that the training service knows of a name, and its end: rows, queue payloads, messages and objects."""

from collections import Counter

import sqlalchemy as sa

from ..storage.objects import Objects
from ..storage.records import ForgottenItem
from . import places
from .holds import held, is_being_sent
from .locations import Locations
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

    The rows of a job of which a worker may still write stay until it has let go: to be called again while
    `queue.ids_of` finds any. Objects go before the rows that lead to them, so this can be interrupted anywhere.

    Raises:
        StorageUnavailable: try again; what went is gone, and the rest is still found.
    """
    found = queue.ids_of(tenant, name)
    for job in found:
        queue.stop(job, tenant)
    busy = queue.database.run(lambda connection: held(queue.database, connection, found), reads_only=True)
    free = [job for job in found if job not in busy]  # asked before their objects are looked for
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for job in found:
        prefix = places.job_prefix(tenant, job)
        for facts in list(objects.list(prefix)):
            kind = next((kind for start, kind in _KINDS.items() if facts.key.startswith(prefix + start)), "job files")
            objects.delete(facts.key)
            counts[kind] += 1
            sizes[kind] += facts.bytes
        objects.prune(prefix)
    for order in queue.ledger.orders(found):
        counts["uploads"] += drop_upload(queue.ledger, objects, order)
        for place, key in locations.written(order):
            if place.has(key):
                place.delete(key)
                counts["results"] += 1
    uploads = places.uploads_prefix(tenant, name)
    for facts in list(objects.list(uploads)):
        objects.delete(facts.key)
        counts["uploads"] += 1
        sizes["uploads"] += facts.bytes
    objects.prune(uploads)
    counts["job messages"] += _drop_messages(queue, tenant, found)
    counts.update(queue.erase(free))
    return [ForgottenItem(kind, count, sizes[kind]) for kind, count in counts.items() if count]


def _drop_messages(queue: Queue, tenant: str, found: list[str]) -> int:
    """Messages about the jobs that nobody is sending, and tests that went to the same addressees."""
    targets = {notice.target for order in queue.ledger.orders(found) for notice in order.notices}
    is_test = sa.and_(deliveries.c.job == deliveries.c.id, deliveries.c.target.in_(targets))
    asked = deliveries.delete().where(
        deliveries.c.tenant == tenant, sa.or_(deliveries.c.job.in_(found), is_test), ~is_being_sent(queue.database)
    )
    return queue.database.run(lambda connection: connection.execute(asked).rowcount, patience_s=5.0)
