"""Stored images, kept on request until their adapter is deleted.

<tenant>/outputs/<adapter, or base>/<id>
"""

import uuid
from contextlib import suppress

from ..errors import AdapterBusy, NotFound, StorageUnavailable
from ..storage.catalog import now
from ..storage.library import AdapterLibrary
from ..storage.records import OutputRecord
from ..types import BARE_BASE


def keep(
    library: AdapterLibrary, tenant: str, adapter: str | None, content: bytes, media_type: str, *, facts: str = "{}"
) -> str:
    """Store an image's file; returns its id for `find`.

    Args:
        adapter: the image's adapter; None: the base without an adapter.
        facts: how the image was made, JSON.

    Raises:
        NotFound: the adapter was deleted while the image was made.
        AdapterBusy: the adapter is being deleted.
    """
    id, subject = uuid.uuid4().hex, adapter or BARE_BASE
    key = f"{tenant}/outputs/{subject}/{id}"
    objects, catalog = library.objects, library.catalog
    with objects.writing():
        objects.put(key, content)
        try:
            catalog.add_output(OutputRecord(tenant, id, subject, media_type, len(content), key, now(), facts))
        except AdapterBusy:
            objects.delete(key)
            raise
    if adapter is not None and not catalog.has_adapter(tenant, adapter):
        objects.delete(key)
        catalog.delete_output(tenant, id)
        raise NotFound("the adapter was deleted while the image was made", code="AdapterNotFound")
    return id


def find(library: AdapterLibrary, tenant: str, id: str) -> tuple[bytes, str]:
    """A stored image's file and media type. Raises NotFound."""
    record = found(library, tenant, id)
    return library.objects.get(record.key), record.media_type


def found(library: AdapterLibrary, tenant: str, id: str) -> OutputRecord:
    """A stored image's record. Raises NotFound."""
    record = library.catalog.find_output(tenant, id)
    if record is None:
        raise NotFound(
            "there is no such image", hint="it may have been deleted with its adapter", code="ObjectNotFound"
        )
    return record


def delete(library: AdapterLibrary, tenant: str, id: str) -> None:
    """Delete a stored image: its file first, so that this can be repeated. Raises NotFound."""
    library.objects.delete(found(library, tenant, id).key)
    library.catalog.delete_output(tenant, id)
    with suppress(StorageUnavailable):  # the row is deleted; the next deletion empties the log
        library.catalog.scrub()
