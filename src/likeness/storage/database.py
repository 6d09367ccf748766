"""Opening a database: the catalog's and the queue's are opened, tuned, migrated and reported in the same way.

SQLite and PostgreSQL are supported. Each schema has a folder of Alembic revisions in `migrations` and a version table
of its own, so that both may be in one database.
Sources: SQLite's 'Write-Ahead Logging' and 'PRAGMA secure_delete'; PostgreSQL's 'Explicit Locking', advisory locks.
"""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import ArgumentError, DatabaseError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ..errors import MissingPart, SettingsError, StorageDamaged, StorageUnavailable
from .files import make_private_file

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5
_BUSY_MS = 15_000  # for another process that is writing
_EMPTY_MS = 250  # for readers of SQLite's log to end; the caller tries again
_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 1818847087  # PostgreSQL's advisory lock of migrations


@dataclass(frozen=True)
class Schema:
    """The tables of one part of an installation.

    Args:
        name: of the folder of revisions, and of the version table's beginning.
        head: the newest revision.
        what: the database, in messages.
        immediate: every transaction on SQLite takes the write lock at its beginning, unless it is read-only: a
            transaction that reads first and writes later would fail if another one wrote in between.
    """

    name: str
    head: str
    what: str
    immediate: bool = False

    @property
    def version_table(self) -> str:
        return f"{self.name}_version"


class Database:
    """An engine whose tables are there and up to date.

    Args:
        url: SQLAlchemy's, e.g. `sqlite:////folder/catalog.sqlite` or `postgresql+psycopg://user@host/database`.

    Raises:
        SettingsError: no such kind of URL, or a database of a newer version of Likeness.
        StorageUnavailable, StorageDamaged: it does not answer; it is not a database.
        MissingPart: the database's driver is not installed.
    """

    def __init__(self, url: str, schema: Schema) -> None:
        self.url, self.schema = url, schema
        try:
            address = make_url(url)
            self.is_sqlite = address.get_backend_name() == "sqlite"
            # Errors are logged, and values of tenants must not be.
            self.engine = sa.create_engine(
                address, pool_pre_ping=not self.is_sqlite, hide_parameters=True,
                connect_args={} if self.is_sqlite else {"connect_timeout": CONNECT_TIMEOUT_S},
            )  # fmt: skip
            make_file(address)  # after the URL has been opened successfully
        except (ArgumentError, NoSuchModuleError, ValueError) as error:  # the last: a port that is no number
            raise SettingsError(
                f"expected a database URL such as sqlite:////FOLDER/{schema.name}.sqlite for {schema.what}"
            ) from error
        except ImportError as error:
            raise MissingPart(
                f"expected the driver of {schema.what}, which is not installed", hint="pip install 'likeness[postgres]'"
            ) from error
        self.now: sa.ColumnElement[float] = sa.literal_column(
            "((julianday('now') - 2440587.5) * 86400.0)" if self.is_sqlite
            else "extract(epoch from clock_timestamp())::double precision",
            sa.Double(),
        )  # fmt: skip
        sa.event.listen(self.engine, "handle_error", self._report)
        if self.is_sqlite:
            sa.event.listen(self.engine, "connect", self._tune)
            if schema.immediate:
                sa.event.listen(self.engine, "begin", _begin_immediate)
        try:
            migrate(self.engine, schema)
        except BaseException:
            self.engine.dispose()
            raise

    def run(self, work: Callable[[Connection], T], *, patience_s: float = 0.0, reads_only: bool = False) -> T:
        """One transaction.

        Args:
            reads_only: does not wait for a writer.
            patience_s: how long to retry while the database is unavailable.

        Raises:
            StorageUnavailable: it stayed unavailable.
        """
        give_up_s = time.monotonic() + patience_s
        pause_s = 0.1
        while True:
            try:
                with self.engine.connect().execution_options(reads_only=reads_only) as connection, connection.begin():
                    return work(connection)
            except (StorageUnavailable, PoolTimeout) as error:
                if time.monotonic() + pause_s > give_up_s:
                    if isinstance(error, PoolTimeout):
                        raise _unavailable(self.schema, error) from error
                    raise
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 2.0)

    def scrub(self) -> bool:
        """Remove deleted rows from SQLite's log; False: to be tried again. Raises as `empty_log`."""
        if not self.is_sqlite:
            return True
        connection = self.engine.raw_connection()  # outside a transaction
        try:
            return empty_log(connection)
        finally:
            connection.close()

    def close(self) -> None:
        self.engine.dispose()

    def _report(self, context: ExceptionContext) -> None:
        """Raise our errors for an unavailable, locked or damaged database; other errors are not changed."""
        if context.is_pre_ping:  # a check of a pooled connection: the pool makes another
            return
        error = context.sqlalchemy_exception or context.original_exception
        if is_damaged(error):
            raise damaged(self.schema.what) from error
        if context.is_disconnect or isinstance(error, OperationalError | InterfaceError):
            raise _unavailable(self.schema, context.original_exception) from error

    def _tune(self, connection: Any, record: object) -> None:
        connection.text_factory = lenient_text
        if self.schema.immediate:
            connection.isolation_level = None  # transactions are begun by `_begin_immediate`
        cursor = connection.cursor()
        begin_write_ahead(cursor)
        cursor.execute("PRAGMA synchronous=FULL")  # what was committed survives a power cut
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA secure_delete=ON")  # deleted rows are overwritten, not just unlinked
        cursor.close()


def migrate(engine: Engine, schema: Schema, *, target: str | None = None) -> None:
    """Bring a database's tables to a revision, `schema.head` by default; several processes may do so at once.

    Raises:
        SettingsError: the database is of a newer revision than this version of Likeness knows.
    """
    target = target or schema.head
    with engine.connect().execution_options(reads_only=True) as connection:
        if _version(connection, schema) == target:
            return
    with engine.connect() as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        elif not schema.immediate:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        found = _version(connection, schema)
        if found is not None and found > schema.head:
            raise SettingsError(
                f"expected {schema.what} of version {schema.head} or older, got {found}",
                hint="use the version of Likeness that wrote it, or a newer one",
            )
        if found != target:
            _apply(connection, schema, found, target)


def _apply(connection: Connection, schema: Schema, found: str | None, target: str) -> None:
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    folder = str(_MIGRATIONS / schema.name)
    script = ScriptDirectory(folder, version_locations=[folder])
    context = MigrationContext.configure(connection, opts={"version_table": schema.version_table})
    operations = Operations(context)  # not alembic.op, which is one for all threads
    for revision in reversed(list(script.iterate_revisions(target, found or "base"))):
        revision.module.upgrade(operations)
    context.stamp(script, target)


def _version(connection: Connection, schema: Schema) -> str | None:
    """The revision of a database's tables; None where there are none, or they are older than revisions."""
    if not sa.inspect(connection).has_table(schema.version_table):
        return None
    found: str | None = connection.exec_driver_sql(f"SELECT version_num FROM {schema.version_table}").scalar()
    return found


def sqlite_url(file: Path) -> str:
    """SQLAlchemy's URL of a file, for any characters in its path."""
    return URL.create("sqlite", database=str(file.absolute())).render_as_string()


def make_file(address: URL) -> None:
    """Create the file of a SQLite database, readable by its owner only; SQLite would make it readable by all."""
    file = address.database if address.get_backend_name() == "sqlite" else None
    if file and not file.startswith((":", "file:")):  # in memory, and SQLite's URIs
        make_private_file(Path(file))


def is_damaged(error: BaseException | None) -> bool:
    """Whether a file is damaged or not a database: SQLITE_NOTADB, SQLITE_CORRUPT.

    All other errors of a driver are of a class below DatabaseError.
    """
    return type(error) is DatabaseError


def damaged(what: str) -> StorageDamaged:
    """The error of a damaged database."""
    return StorageDamaged(f"expected {what} to be readable, got a damaged file", hint="restore it from a backup")


def lenient_text(content: bytes) -> str:
    """Decode SQLite's text leniently, so that one damaged row does not make its table unreadable."""
    return content.decode(errors="replace")


def begin_write_ahead(cursor: Any) -> None:
    """Wait for other writers, and let readers wait for none: SQLite's busy time-out and write-ahead log.

    SQLite does not call its busy handler while it changes the journal mode, so that two connections to a new file
    would fail at once: the change is tried again for as long as any other statement would wait.

    Args:
        cursor: of the package sqlite3.

    Raises:
        sqlite3.OperationalError: the database stayed locked.
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
    """Empty SQLite's write-ahead log, where deleted pages stay until then.

    Args:
        connection: of the package sqlite3, outside a transaction.

    Returns:
        False: a reader still needs the log; to be tried again.

    Raises:
        StorageUnavailable: the disk is full, for example.
        StorageDamaged: it is not a database.
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
            f"expected the log of a database to be emptied, got {error.sqlite_errorname}",
            hint="check the free space and the rights of its folder",
        ) from error
    except sqlite3.DatabaseError as error:
        raise damaged("a database") from error
    finally:
        cursor.execute(f"PRAGMA busy_timeout={patience_ms}")
        cursor.close()
    return not busy


def _unavailable(schema: Schema, cause: BaseException) -> StorageUnavailable:
    return StorageUnavailable(
        f"expected an answer from {schema.what}, got {type(cause).__name__}",
        hint="try again; if it lasts, check that the database runs and that its URL is right",
    )


def _begin_immediate(connection: Connection) -> None:
    is_read = connection.get_execution_options().get("reads_only")
    connection.exec_driver_sql("BEGIN" if is_read else "BEGIN IMMEDIATE")
