"""Stored images, kept on request until one of their adapters is deleted.

<tenant>/outputs/<adapter, or base>/<id>
"""

import uuid
from contextlib import suppress

from ..errors import AdapterBusy, NotFound, StorageUnavailable
from ..storage.catalog import now
from ..storage.library import AdapterLibrary
from ..storage.records import OutputRecord
from ..types import BARE_BASE, Blend


def keep(
    library: AdapterLibrary, tenant: str, adapters: Blend, content: bytes, media_type: str, *, facts: str = "{}"
) -> str:
    """Store an image's file under its first adapter; returns its id for `find`.

    Args:
        adapters: of the image; none: the base without an adapter.
        facts: how the image was made, JSON.

    Raises:
        NotFound: an adapter was deleted while the image was made.
        AdapterBusy: an adapter is being deleted.
    """
    names = tuple(one.name for one in adapters)
    id, subject = uuid.uuid4().hex, names[0] if names else BARE_BASE
    key = f"{tenant}/outputs/{subject}/{id}"
    objects, catalog = library.objects, library.catalog
    with objects.writing():
        objects.put(key, content)
        try:
            record = OutputRecord(tenant, id, subject, media_type, len(content), key, now(), facts)
            catalog.add_output(record, also=names[1:])
        except AdapterBusy:
            objects.delete(key)
            raise
    if not all(catalog.can_use(tenant, name) for name in names):
        objects.delete(key)
        catalog.delete_output(tenant, id)
        raise NotFound("the adapter was deleted while the image was made", code="AdapterNotFound")
    return id


def find(library: AdapterLibrary, tenant: str, id: str) -> tuple[bytes, str]:
    """A stored image's file and media type. Raises NotFound."""
    record = record_of(library, tenant, id)
    return library.objects.get(record.key), record.media_type


def record_of(library: AdapterLibrary, tenant: str, id: str) -> OutputRecord:
    """A stored image's record. Raises NotFound."""
    record = library.catalog.find_output(tenant, id)
    if record is None:
        raise NotFound(
            "there is no such image", hint="it may have been deleted with its adapter", code="ObjectNotFound"
        )
    return record


def delete(library: AdapterLibrary, tenant: str, id: str) -> None:
    """Delete a stored image: its file first, so that this can be repeated. Raises NotFound."""
    library.objects.delete(record_of(library, tenant, id).key)
    library.catalog.delete_output(tenant, id)
    with suppress(StorageUnavailable):  # the row is deleted; the next deletion empties the log
        library.catalog.scrub()
