"""The kept images of a tenant, in pages: the newest first, of one adapter or of all, favourites or all."""

from sqlalchemy import select, tuple_, update

from .catalog import Catalog
from .catalog_tables import outputs
from .records import OutputRecord


def list_outputs(
    catalog: Catalog, tenant: str, *, subject: str | None = None, favourites: bool = False, before: str = "",
    limit: int = 100,
) -> tuple[OutputRecord, ...]:  # fmt: skip
    """Images, the newest first.

    Args:
        subject: an adapter's name, or `base`; None: all.
        before: the id of the last image of the page before; an unknown id gives no images.
    """
    asked = select(outputs).where(outputs.c.tenant == tenant)
    if subject is not None:
        asked = asked.where(outputs.c.subject == subject)
    if favourites:
        asked = asked.where(outputs.c.is_favourite)
    if before:
        last = catalog.find_output(tenant, before)
        if last is None:
            return ()
        asked = asked.where(tuple_(outputs.c.created, outputs.c.id) < tuple_(last.created, last.id))
    asked = asked.order_by(outputs.c.created.desc(), outputs.c.id.desc()).limit(limit)
    with catalog.engine.connect() as connection:
        return tuple(OutputRecord(**row._mapping) for row in connection.execute(asked))


def mark_favourite(catalog: Catalog, tenant: str, id: str, is_favourite: bool) -> bool:
    """Mark an image, or take the mark off; False if there is no such image."""
    asked = update(outputs).where(outputs.c.tenant == tenant, outputs.c.id == id).values(is_favourite=is_favourite)
    with catalog.engine.begin() as connection:
        return connection.execute(asked).rowcount > 0
