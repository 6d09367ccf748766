"""The catalog's tables, and opening a database. All rows of a tenant are keyed by the tenant.

The definitions are the same for SQLite and PostgreSQL. No secrets are stored; of an API key, only the hash.
Sources: SQLite's 'Write-Ahead Logging' and 'PRAGMA secure_delete'; PostgreSQL's 'Explicit Locking', advisory locks.
"""

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    select,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import ArgumentError, DatabaseError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.schema import CreateIndex, CreateTable

from ..errors import MissingPart, SettingsError, StorageDamaged, StorageUnavailable
from .files import make_private_file

SCHEMA_VERSION = 1
_BUSY_MS = 15_000  # waiting time for another writer
_EMPTY_MS = 250  # waiting time for readers of SQLite's log; deletions try again

metadata = MetaData()
_NAME, _SHA256, _TIME = String(63), String(64), String(40)  # times are ISO 8601 in UTC, so they sort as text

schema = Table("schema", metadata, Column("version", Integer, primary_key=True))

tenants = Table(
    "tenants", metadata, Column("tenant", _NAME, primary_key=True), Column("created", _TIME, nullable=False)
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),  # the public part of a key
    Column("tenant", _NAME, nullable=False),
    Column("secret_sha256", _SHA256, nullable=False),
    Column("label", String(100), nullable=False),
    Column("created", _TIME, nullable=False),
    Column("revoked", _TIME),
    ForeignKeyConstraint(["tenant"], ["tenants.tenant"]),
)

subjects = Table(
    "subjects",
    metadata,
    Column("tenant", _NAME, primary_key=True),
    Column("name", _NAME, primary_key=True),
    Column("class_noun", String(100), nullable=False),
    Column("identifier", String(100), nullable=False),
    Column("consent", Text, nullable=False),  # the consent as given by the caller
    Column("consented", _TIME, nullable=False),
    Column("created", _TIME, nullable=False),
)

photos = Table(
    "photos",
    metadata,
    Column("tenant", _NAME, primary_key=True),
    Column("subject", _NAME, primary_key=True),
    Column("sha256", _SHA256, primary_key=True),
    Column("file", String(200), nullable=False),  # file name, for messages only
    Column("bytes", BigInteger, nullable=False),
    Column("report", Text, nullable=False),  # JSON: verdict, reasons, hint
    Column("key", String(900), nullable=False),
    Column("created", _TIME, nullable=False),
    ForeignKeyConstraint(["tenant", "subject"], ["subjects.tenant", "subjects.name"], ondelete="CASCADE"),
)

adapters = Table(
    "adapters",
    metadata,
    Column("tenant", _NAME, primary_key=True),
    Column("name", _NAME, primary_key=True),
    Column("content_sha256", _SHA256, nullable=False),
    Column("base_sha256", _SHA256, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("key", String(900), nullable=False),
    Column("card", Text, nullable=False),  # card.json
    Column("created", _TIME, nullable=False),
)

outputs = Table(
    "outputs",
    metadata,
    Column("tenant", _NAME, primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("subject", _NAME, nullable=False),  # the adapter's name, or `base`
    Column("media_type", String(40), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("key", String(900), nullable=False),
    Column("created", _TIME, nullable=False),
    Index("outputs_of_subject", "tenant", "subject", "created"),
)

receipts = Table(
    "receipts",
    metadata,
    Column("tenant", _NAME, primary_key=True),
    Column("name", _NAME, primary_key=True),
    Column("at", _TIME, primary_key=True),
    Column("items", Text, nullable=False),  # JSON: kinds, counts, bytes; no content
)

forgettings = Table(  # deletions in progress
    "forgettings",
    metadata,
    Column("tenant", _NAME, primary_key=True),
    Column("name", _NAME, primary_key=True),
    Column("begun", _TIME, nullable=False),
    Column("deleted", Text, nullable=False),  # JSON, as a receipt's items: deleted so far
)


def sqlite_url(file: Path) -> str:
    """SQLAlchemy's URL of a file, for paths with any characters."""
    return URL.create("sqlite", database=str(file.absolute())).render_as_string()


def make_file(address: URL) -> None:
    """Create the file of a SQLite database, private to its owner; SQLite itself would make it readable for all."""
    file = address.database if address.get_backend_name() == "sqlite" else None
    if file and not file.startswith((":", "file:")):  # not in memory, and not a SQLite URI
        make_private_file(Path(file))


def open_database(url: str) -> Engine:
    """A database engine with all tables created.

    Args:
        url: SQLAlchemy's, e.g. `sqlite:////folder/catalog.sqlite` or `postgresql+psycopg://user@host/database`.

    Raises:
        SettingsError: not a database URL, or a catalog of another version of Likeness.
        StorageUnavailable, StorageDamaged: no response; the file is not a database.
        MissingPart: the database's driver is not installed.
    """
    try:
        address = make_url(url)
        is_file = address.get_backend_name() == "sqlite"
        make_file(address)
        engine = create_engine(address, pool_pre_ping=not is_file, hide_parameters=True)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:  # ValueError: a port that is not a number
        raise SettingsError("expected a database URL such as sqlite:////FOLDER/catalog.sqlite") from error
    except ImportError as error:
        raise MissingPart(
            "the catalog's database driver is not installed", hint="pip install 'likeness[postgres]'"
        ) from error
    event.listen(engine, "handle_error", _say_unavailable)
    if is_file:
        event.listen(engine, "connect", _tune_sqlite)
    try:
        _create(engine)
    except Exception:
        engine.dispose()
        raise
    return engine


def is_damaged(error: BaseException | None) -> bool:
    """Whether an error means that a file is not a database or is damaged: SQLITE_NOTADB, SQLITE_CORRUPT.

    All other errors of the driver are subclasses of DatabaseError.
    """
    return type(error) is DatabaseError


def damaged(what: str) -> StorageDamaged:
    """The error for a damaged file."""
    return StorageDamaged(f"expected {what} to be readable, got a damaged file", hint="restore it from a backup")


def lenient_text(content: bytes) -> str:
    """SQLite text with any bytes, so that one damaged row does not make the table unreadable."""
    return content.decode(errors="replace")


def _say_unavailable(context: ExceptionContext) -> None:
    """Turn errors of an unavailable or locked database into Likeness errors; errors in statements are not changed."""
    if context.is_pre_ping:  # a check of a pooled connection; the pool replaces it
        return
    error = context.sqlalchemy_exception
    if is_damaged(error):
        raise damaged("the catalog's database") from error
    if isinstance(error, OperationalError | InterfaceError):
        raise StorageUnavailable(
            f"expected a response from the catalog's database, got {type(context.original_exception).__name__}",
            hint="try again later; if it persists, check the database",
        ) from error


def _tune_sqlite(connection: Any, record: object) -> None:
    connection.text_factory = lenient_text
    cursor = connection.cursor()
    begin_write_ahead(cursor)
    cursor.execute("PRAGMA synchronous=FULL")  # a published adapter survives a power failure
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA secure_delete=ON")  # deleted rows are overwritten
    cursor.close()


def begin_write_ahead(cursor: Any) -> None:
    """Set SQLite's busy time-out and write-ahead logging, so that readers do not wait for writers.

    SQLite does not use its busy handler while it changes the journal mode, so of two connections to a new file one
    would fail at once. The change is repeated for as long as other statements would wait.

    Args:
        cursor: of the package sqlite3.

    Raises:
        sqlite3.OperationalError: the database is still locked after that time.
    """
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    deadline = time.monotonic() + _BUSY_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def empty_log(connection: Any) -> bool:
    """Empty SQLite's write-ahead log, which contains deleted pages until then.

    Args:
        connection: of the package sqlite3, outside a transaction.

    Returns:
        False if a reader still needs the log; try again later.

    Raises:
        StorageUnavailable: for example, the disk is full.
        StorageDamaged: the file is not a database.
    """
    cursor = connection.cursor()
    (patience_ms,) = cursor.execute("PRAGMA busy_timeout").fetchone()
    cursor.execute(f"PRAGMA busy_timeout={_EMPTY_MS}")
    try:
        busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return False
        raise StorageUnavailable(
            f"expected to empty the log of a database, got {error.sqlite_errorname}",
            hint="check the free space and the permissions of its folder",
        ) from error
    except sqlite3.DatabaseError as error:
        raise damaged("a database") from error
    finally:
        cursor.execute(f"PRAGMA busy_timeout={patience_ms}")
        cursor.close()
    return not busy


def _create(engine: Engine) -> None:
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":  # IF NOT EXISTS alone is not safe with concurrent creation
            connection.execute(text("SELECT pg_advisory_xact_lock(1818847087)"))
        for table in metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))
        version = connection.execute(select(schema.c.version)).scalar()
        if version is None:
            connection.execute(insert(schema).values(version=SCHEMA_VERSION))
        elif version != SCHEMA_VERSION:
            raise SettingsError(
                f"expected a catalog of version {SCHEMA_VERSION}, got {version}",
                hint="use the version of Likeness that created it",
            )
