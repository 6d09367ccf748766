"""The catalog: subjects, photographs, adapters, portraits and receipts of every tenant of an installation.

Publishing an adapter writes its object first and its row last; without the row the adapter does not exist. All methods
take a tenant and see only that tenant's rows. The caller handles the objects.
"""

import difflib
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Engine, Row, Table, delete, insert, select, text
from sqlalchemy.exc import IntegrityError

from ..artifacts.card import read_card, write_card
from ..errors import (
    AdapterBusy,
    AlreadyExists,
    CorruptAdapter,
    NotFound,
    StorageDamaged,
    UsageError,
)
from ..types import HOUSE_ADAPTERS, checked_name, checked_new_name
from . import catalog_tables as tables
from .database import Database
from .records import AdapterRecord, ForgottenItem, OutputRecord, PhotoRecord, Receipt, SubjectRecord

log = logging.getLogger("likeness.catalog")

LOCAL = "local"  # the tenant of the command line, and of a server without keys
_OF_NAME: Mapping[str, tuple[Table, str]] = MappingProxyType(  # kind -> its table, and the column with the name
    {
        "photographs": (tables.photos, "subject"),
        "subject": (tables.subjects, "name"),
        "adapter": (tables.adapters, "name"),
        "portraits": (tables.outputs, "subject"),
    }
)
_HINT_LIST = "`likeness list` shows the adapters"


class Catalog:
    """The rows of one installation. The database is opened, or created, at first use."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: Database | None = None
        self._lock = threading.Lock()

    @property
    def database(self) -> Database:
        """Raises as `Database`."""
        with self._lock:
            if self._opened is None:
                self._opened = Database(self._url, tables.CATALOG)
            return self._opened

    @property
    def engine(self) -> Engine:
        """Raises as `Database`."""
        return self.database.engine

    # adapters

    def publish(self, record: AdapterRecord, *, replace: bool = False) -> str | None:
        """Publish an adapter whose object is written.

        Returns:
            the key of the replaced object, which no row refers to any more.

        Raises:
            AlreadyExists: the name is taken and `replace` is false.
            AdapterBusy: the name is being deleted.
            UsageError: the name is reserved.
        """
        card = record.card
        values = {
            "tenant": record.tenant, "name": checked_new_name(card.name), "content_sha256": card.content_sha256,
            "base_sha256": card.base_sha256, "rank": card.rank, "bytes": record.bytes, "key": record.key,
            "card": write_card(card).decode(), "created": card.created,
        }  # fmt: skip
        try:
            with self.engine.begin() as connection:
                before = _deleted(connection, tables.adapters, record.tenant, name=card.name) if replace else []
                connection.execute(insert(tables.adapters).values(**values))
                refuse_if_forgetting(connection, record.tenant, card.name)
        except IntegrityError as error:
            raise adapter_exists() from error
        return str(before[0].key) if before else None

    def withdraw(self, tenant: str, name: str, content_sha256: str) -> bool:
        """Undo one publication; False if the name has other weights by now, or none."""
        with self.engine.begin() as connection:
            rows = _deleted(connection, tables.adapters, tenant, name=checked_name(name), content_sha256=content_sha256)
        return bool(rows)

    def find_adapter(self, tenant: str, name: str) -> AdapterRecord:
        """One adapter.

        Raises:
            NotFound: no adapter of this name; the hint suggests a similar name of the same tenant.
            UsageError: not a valid name.
        """
        row = self._one(tables.adapters, tenant, name=checked_name(name))
        if row is None:
            names = self._names(tables.adapters, tenant)
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
            hint = f"did you mean {near[0]}?" if near else _HINT_LIST
            raise NotFound("there is no adapter of this name", hint=hint, code="AdapterNotFound")
        return _adapter(row)

    def find_usable(self, tenant: str, name: str) -> AdapterRecord:
        """The tenant's adapter of a name, or the house adapter of this name. Raises as `find_adapter`."""
        if not self.has_adapter(tenant, name) and self.has_adapter(HOUSE_ADAPTERS, name):
            return self.find_adapter(HOUSE_ADAPTERS, name)
        return self.find_adapter(tenant, name)

    def can_use(self, tenant: str, name: str) -> bool:
        """Whether `find_usable` finds an adapter."""
        return self.has_adapter(tenant, name) or self.has_adapter(HOUSE_ADAPTERS, name)

    def has_adapter(self, tenant: str, name: str) -> bool:
        return self.content_sha256(tenant, name) is not None

    def content_sha256(self, tenant: str, name: str) -> str | None:
        """Hash of the weights published under a name, even if the card is damaged; None: no adapter."""
        row = self._one(tables.adapters, tenant, name=checked_name(name))
        return None if row is None else str(row.content_sha256)

    def list_adapters(self, tenant: str, *, after: str = "", limit: int | None = None) -> tuple[AdapterRecord, ...]:
        """Adapters sorted by name, starting after `after`. Damaged rows are logged and skipped."""
        found: list[AdapterRecord] = []
        while True:
            room = None if limit is None else limit - len(found)
            rows = self._page(tables.adapters, tenant, after, room)
            for row in rows:
                try:
                    found.append(_adapter(row))
                except CorruptAdapter as error:
                    log.error("skipped a damaged adapter row in the catalog: %s", error)
            if len(rows) != room or len(found) == limit:
                return tuple(found)
            after = rows[-1].name  # continue after the last row, damaged or not

    def list_usable(self, tenant: str, *, after: str = "", limit: int | None = None) -> tuple[AdapterRecord, ...]:
        """As `list_adapters`, with the house adapters whose names the tenant has not given itself."""
        owners = (HOUSE_ADAPTERS, tenant)
        found = {one.name: one for owner in owners for one in self.list_adapters(owner, after=after, limit=limit)}
        return tuple(found[name] for name in sorted(found)[:limit])

    def published(self) -> frozenset[tuple[str, str, str]]:
        """Tenant, name and content hash of all adapters."""
        with self.engine.connect() as connection:
            adapters = tables.adapters.c
            rows = connection.execute(select(adapters.tenant, adapters.name, adapters.content_sha256))
            return frozenset((tenant, name, sha256) for tenant, name, sha256 in rows)

    # subjects and their photographs

    def add_subject(self, record: SubjectRecord) -> None:
        """Raises AlreadyExists, UsageError, AdapterBusy (the name is being deleted)."""
        checked_new_name(record.name)
        try:
            with self.engine.begin() as connection:
                connection.execute(insert(tables.subjects).values(**asdict(record)))
                refuse_if_forgetting(connection, record.tenant, record.name)
        except IntegrityError as error:
            raise AlreadyExists(
                "a subject of this name already exists", hint="choose another name", code="SubjectExists"
            ) from error

    def find_subject(self, tenant: str, name: str) -> SubjectRecord:
        """Raises NotFound, UsageError."""
        row = self._one(tables.subjects, tenant, name=checked_name(name))
        if row is None:
            raise NotFound(
                "there is no subject of this name", hint="create it first: POST /v1/subjects", code="SubjectNotFound"
            )
        return SubjectRecord(**row._mapping)

    def withdraw_subject(self, record: SubjectRecord) -> None:
        """Undo `add_subject`, unless the name belongs to another subject by now."""
        with self.engine.begin() as connection:
            _deleted(connection, tables.subjects, record.tenant, name=record.name, created=record.created)

    def list_subjects(self, tenant: str, *, after: str = "", limit: int | None = None) -> tuple[SubjectRecord, ...]:
        """Subjects sorted by name, starting after `after`."""
        return tuple(SubjectRecord(**row._mapping) for row in self._page(tables.subjects, tenant, after, limit))

    def add_photo(self, record: PhotoRecord) -> bool:
        """Add a photograph's row; False if the subject has it already. Raises NotFound, AdapterBusy."""
        try:
            with self.engine.begin() as connection:
                connection.execute(insert(tables.photos).values(**asdict(record)))
                refuse_if_forgetting(connection, record.tenant, record.subject)
        except IntegrityError:
            self.find_subject(record.tenant, record.subject)  # raises if the subject is missing
            return False
        return True

    def list_photos(self, tenant: str, subject: str) -> tuple[PhotoRecord, ...]:
        """The photographs of one subject, in the order of upload. Raises NotFound."""
        self.find_subject(tenant, subject)
        photos = tables.photos.c
        asked = (
            select(tables.photos)
            .where(photos.tenant == tenant, photos.subject == subject)
            .order_by(photos.created, photos.file, photos.sha256)
        )
        with self.engine.connect() as connection:
            return tuple(PhotoRecord(**row._mapping) for row in connection.execute(asked))

    def find_photo(self, tenant: str, subject: str, sha256: str) -> PhotoRecord | None:
        row = self._one(tables.photos, tenant, subject=checked_name(subject), sha256=sha256)
        return None if row is None else PhotoRecord(**row._mapping)

    def delete_photo(self, tenant: str, subject: str, sha256: str) -> None:
        """Delete a photograph's row, after its object."""
        with self.engine.begin() as connection:
            _deleted(connection, tables.photos, tenant, subject=checked_name(subject), sha256=sha256)

    # portraits

    def add_output(self, record: OutputRecord, *, also: Sequence[str] = ()) -> None:
        """Add an image's row.

        Args:
            also: the adapters of the image beside its subject.

        Raises:
            AdapterBusy: a name is being deleted.
        """
        with self.engine.begin() as connection:
            connection.execute(insert(tables.outputs).values(**asdict(record)))
            for name in also:
                row = {"tenant": record.tenant, "id": record.id, "adapter": name}
                connection.execute(insert(tables.further_adapters).values(**row))
            for name in sorted({record.subject, *also}):  # in one order, so that two writers cannot wait for each other
                refuse_if_forgetting(connection, record.tenant, name)

    def keys_combined_with(self, tenant: str, name: str) -> tuple[str, ...]:
        """The object keys of images that combine an adapter with others, of which another is the subject."""
        with self.engine.connect() as connection:
            return tuple(key for key, _ in _combined(connection, tenant, name))

    def delete_output(self, tenant: str, id: str) -> None:
        with self.engine.begin() as connection:
            _deleted(connection, tables.outputs, tenant, id=id)

    def find_output(self, tenant: str, id: str) -> OutputRecord | None:
        row = self._one(tables.outputs, tenant, id=id)
        return None if row is None else OutputRecord(**row._mapping)

    # the end

    def holds(self, tenant: str, name: str) -> bool:
        """Whether any row has this name."""
        has_row = any(self._one(table, tenant, **{column: checked_name(name)}) for table, column in _OF_NAME.values())
        return has_row or bool(self.keys_combined_with(tenant, name))

    def forget(self, tenant: str, name: str) -> tuple[ForgottenItem, ...]:
        """Delete all rows of one name in one transaction, after their objects."""
        items = []
        with self.engine.begin() as connection:
            ids = [id for _, id in _combined(connection, tenant, name)]
            for kind, (table, column) in _OF_NAME.items():
                rows = [*_deleted(connection, table, tenant, **{column: checked_name(name)})]
                if kind == "portraits":
                    rows += [row for id in ids for row in _deleted(connection, table, tenant, id=id)]
                if rows:
                    items.append(ForgottenItem(kind, len(rows), sum(getattr(row, "bytes", 0) for row in rows)))
        return tuple(items)

    def object_keys(self) -> frozenset[str]:
        """The keys of all objects with a row, of all tenants."""
        with self.engine.connect() as connection:
            owners = (tables.photos, tables.adapters, tables.outputs)
            return frozenset(key for table in owners for key in connection.execute(select(table.c.key)).scalars())

    def list_receipts(self, tenant: str) -> tuple[Receipt, ...]:
        """Receipts sorted by time. Damaged rows are logged and skipped."""
        asked = select(tables.receipts).where(tables.receipts.c.tenant == tenant).order_by(tables.receipts.c.at)
        with self.engine.connect() as connection:
            rows = connection.execute(asked).all()
        found: list[Receipt] = []
        for row in rows:
            try:
                found.append(Receipt(row.name, read_items(row.items), row.at))
            except StorageDamaged as error:
                log.error("skipped a damaged receipt in the catalog: %s", error)
        return tuple(found)

    def close(self) -> None:
        """Close all connections; the next use opens them again."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def _one(self, table: Table, tenant: str, **values: str) -> Row[Any] | None:
        asked = select(table).where(table.c.tenant == tenant)
        for column, value in values.items():
            asked = asked.where(table.c[column] == value)
        with self.engine.connect() as connection:
            return connection.execute(asked).first()

    def _page(self, table: Table, tenant: str, after: str, limit: int | None) -> Sequence[Row[Any]]:
        if limit is not None and not 1 <= limit <= 1000:
            raise UsageError(f"expected a limit from 1 to 1000, got {limit}")
        asked = select(table).where(table.c.tenant == tenant, table.c.name > after).order_by(table.c.name).limit(limit)
        with self.engine.connect() as connection:
            return connection.execute(asked).all()

    def _names(self, table: Table, tenant: str) -> Sequence[str]:
        with self.engine.connect() as connection:
            return connection.execute(select(table.c.name).where(table.c.tenant == tenant)).scalars().all()

    def scrub(self) -> bool:
        """Remove deleted rows from SQLite's log; False: to be tried again. Raises as `empty_log`."""
        return self.database.scrub()


def read_items(document: str) -> tuple[ForgottenItem, ...]:
    """The inverse of `write_items`. Raises StorageDamaged."""
    try:
        return tuple(
            ForgottenItem(str(item["kind"]), int(item["count"]), int(item["bytes"])) for item in json.loads(document)
        )
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise StorageDamaged(f"expected a readable list of deleted items, got {type(error).__name__}") from error


def write_items(items: Sequence[ForgottenItem]) -> str:
    """The deleted items as JSON."""
    return json.dumps([asdict(item) for item in items])


def now() -> str:
    """ISO 8601, UTC, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def hold_name(connection: Connection, tenant: str, name: str, *, shared: bool = False) -> None:
    """Lock a name until the transaction ends: no other process writes its rows (shared: or announces its deletion).

    SQLite needs no lock: it has one writer at a time.
    """
    if connection.dialect.name == "postgresql":
        lock = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        connection.execute(text(f"SELECT {lock}(hashtextextended(:name, 0))"), {"name": f"{tenant}/{name}"})


def adapter_exists() -> AlreadyExists:
    """The error of a new adapter whose name is taken."""
    return AlreadyExists(
        "an adapter of this name exists already",
        hint="choose another name, replace it (--replace, or `replace` in the request), or forget it first",
        code="AdapterExists",
    )


def being_deleted() -> AdapterBusy:
    """The error of a write to a name that is being deleted."""
    return AdapterBusy("this name is being deleted", hint="wait until its deletion is complete")


def refuse_if_forgetting(connection: Connection, tenant: str, name: str) -> None:
    """Call after writing a row, in the same transaction. Raises AdapterBusy: the name is being deleted."""
    hold_name(connection, tenant, name, shared=True)
    columns = tables.forgettings.c
    asked = select(columns.name).where(columns.tenant == tenant, columns.name == name)
    if connection.execute(asked).first() is not None:
        raise being_deleted()


def _combined(connection: Connection, tenant: str, name: str) -> list[tuple[str, str]]:
    """Key and id of the images that have this adapter beside their subject."""
    further, images = tables.further_adapters.c, tables.outputs.join(tables.further_adapters)
    asked = select(tables.outputs.c.key, tables.outputs.c.id).select_from(images)
    found = connection.execute(asked.where(further.tenant == tenant, further.adapter == checked_name(name)))
    return [(row.key, row.id) for row in found]


def _deleted(connection: Connection, table: Table, tenant: str, **values: str) -> Sequence[Row[Any]]:
    asked = delete(table).where(table.c.tenant == tenant)
    for column, value in values.items():
        asked = asked.where(table.c[column] == value)
    return connection.execute(asked.returning(*table.c)).all()


def _adapter(row: Row[Any]) -> AdapterRecord:
    return AdapterRecord(row.tenant, read_card(row.card.encode()), row.key, row.bytes)
