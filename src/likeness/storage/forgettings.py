"""Deletions in progress. The record is written before anything is deleted, and removed in the transaction that writes
the receipt, so an interrupted deletion is found and continued.

While the record exists, the catalog accepts nothing new of that name: see `catalog.refuse_if_forgetting`.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from ..errors import StorageDamaged
from ..types import checked_name
from .catalog import Catalog, hold_name, now, read_items, write_items
from .catalog_tables import forgettings, receipts
from .records import ForgottenItem, Receipt

log = logging.getLogger("likeness.catalog")


@dataclass(frozen=True)
class Forgetting:
    """One deletion in progress."""

    tenant: str
    name: str
    begun: str  # ISO 8601, UTC


def begin(catalog: Catalog, tenant: str, name: str) -> None:
    """Record a deletion; idempotent. Raises UsageError, StorageUnavailable."""
    values = {"tenant": tenant, "name": checked_name(name), "begun": now(), "deleted": "[]"}
    try:
        with catalog.engine.begin() as connection:
            hold_name(connection, tenant, name)  # waits for transactions that write rows of this name
            connection.execute(insert(forgettings).values(**values))
    except IntegrityError:
        pass


def under_way(catalog: Catalog, tenant: str | None = None) -> tuple[Forgetting, ...]:
    """Deletions in progress, the oldest first; of all tenants, or of one."""
    asked = select(forgettings.c.tenant, forgettings.c.name, forgettings.c.begun).order_by(forgettings.c.begun)
    if tenant is not None:
        asked = asked.where(forgettings.c.tenant == tenant)
    with catalog.engine.connect() as connection:
        return tuple(Forgetting(*row) for row in connection.execute(asked))


def is_under_way(catalog: Catalog, tenant: str, name: str) -> bool:
    """Whether a name is being deleted. Raises UsageError."""
    asked = select(forgettings.c.name).where(_is(tenant, checked_name(name)))
    with catalog.engine.connect() as connection:
        return connection.execute(asked).first() is not None


def note(catalog: Catalog, tenant: str, name: str, items: Sequence[ForgottenItem]) -> None:
    """Add deleted items to the record, for the receipt."""
    if not items:
        return
    with catalog.engine.begin() as connection:
        hold_name(connection, tenant, name)
        before = connection.execute(select(forgettings.c.deleted).where(_is(tenant, name))).scalar()
        if before is not None:
            items = _sum([*_read(before), *items])
            written = update(forgettings).where(_is(tenant, name)).values(deleted=write_items(items))
            connection.execute(written)


def finish(catalog: Catalog, tenant: str, name: str) -> Receipt | None:
    """Replace the record by the receipt; None if another process has done so."""
    with catalog.engine.begin() as connection:
        row = connection.execute(delete(forgettings).where(_is(tenant, name)).returning(forgettings.c.deleted)).first()
        if row is None:
            return None
        receipt = Receipt(name, tuple(_read(row.deleted)), now())
        items = write_items(receipt.items)
        connection.execute(insert(receipts).values(tenant=tenant, name=name, at=receipt.at, items=items))
    return receipt


def _is(tenant: str, name: str) -> ColumnElement[bool]:
    return and_(forgettings.c.tenant == tenant, forgettings.c.name == name)


def _sum(items: Sequence[ForgottenItem]) -> list[ForgottenItem]:
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for item in items:
        counts[item.kind] += item.count
        sizes[item.kind] += item.bytes
    return [ForgottenItem(kind, count, sizes[kind]) for kind, count in counts.items()]


def _read(items: str) -> list[ForgottenItem]:
    """The items deleted so far. A damaged list counts as empty, so that it cannot block the deletion."""
    try:
        return list(read_items(items))
    except StorageDamaged as error:
        log.error("ignored the damaged list of items of a deletion: %s", error)
        return []
