"""Archives that were uploaded for a job: each lies there until its job is over, and no longer."""

from ..storage.objects import Objects
from .job import JobOrder
from .store import JobStore


def drop_upload(store: JobStore, objects: Objects, order: JobOrder) -> bool:
    """Delete the archive that was uploaded for an order, unless an open job waits for the same one.

    Returns whether there was one: photographs may lie elsewhere. Raises StorageUnavailable.
    """
    key = order.photos
    if not key.startswith(f"{order.tenant}/uploads/") or key in store.uploads(order.tenant):
        return False
    there = objects.has(key)
    objects.delete(key)
    return there
