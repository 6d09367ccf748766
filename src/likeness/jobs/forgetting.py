"""Everything that the training service knows of a name, and its end: rows, queue payloads, messages and objects."""

import sqlalchemy as sa

from ..errors import StorageDamaged
from ..storage.catalog import ForgottenItem
from ..storage.objects import Objects
from . import places
from .locations import Locations
from .queue import Queue
from .tables import deliveries, events, jobs
from .uploads import drop_upload

# the beginning of a key behind a job's prefix -> what it is, in a receipt
_KINDS = {
    "photos": "job photographs", "prepared": "prepared photographs", "checkpoints": "checkpoints",
    "previews": "previews", "adapter": "unpublished adapter",
    "score": "score cards",
}  # fmt: skip


def forget_jobs(queue: Queue, objects: Objects, locations: Locations, *, tenant: str, name: str) -> list[ForgottenItem]:
    """Delete all jobs of a name, over or not. A worker in the middle of one notices and sweeps what it wrote since.

    Raises:
        StorageUnavailable: try again; what went is gone, and the rest is still found.
    """
    found = queue.ids_of(tenant, name)
    counts: dict[str, tuple[int, int]] = {}
    for job in found:
        queue.stop(job, tenant)
        prefix = places.job_prefix(tenant, job)
        for facts in list(objects.list(prefix)):
            kind = next((kind for start, kind in _KINDS.items() if facts.key.startswith(prefix + start)), "job files")
            count, size = counts.get(kind, (0, 0))
            counts[kind] = count + 1, size + facts.bytes
            objects.delete(facts.key)
        try:
            order = queue.status(job, tenant).order
        except StorageDamaged:  # what its row named outside its own prefix is not known any more
            continue
        if drop_upload(queue.ledger, objects, order):
            counts["uploads"] = counts.get("uploads", (0, 0))[0] + 1, 0
        written = locations.written(order)
        left = [(place, key) for place, key in written if place.has(key)]
        for place, key in left:
            place.delete(key)
        if left:
            counts["results"] = counts.get("results", (0, 0))[0] + len(left), 0
    for facts in list(objects.list(places.uploads_prefix(tenant, name))):
        count, size = counts.get("uploads", (0, 0))
        counts["uploads"] = count + 1, size + facts.bytes
        objects.delete(facts.key)
    rows = {"jobs": jobs.c.id, "job events": events.c.job, "job messages": deliveries.c.job}
    for kind, column in rows.items():

        def delete(connection: sa.Connection, column: sa.Column[str] = column) -> int:
            return connection.execute(sa.delete(column.table).where(column.in_(found))).rowcount

        if found and (gone := queue.database.run(delete, patience_s=5.0)):
            counts[kind] = gone, 0
    queue.erase(found)
    return [ForgottenItem(kind, count, size) for kind, (count, size) in counts.items()]
