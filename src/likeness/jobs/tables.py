"""The service's tables, and how their database is opened. DBOS keeps its own beside them, in the same database.

All times are the database's clock in seconds since 1970: workers on machines with other clocks agree on who is late.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.schema import CreateIndex

from ..errors import SettingsError, StorageDamaged, StorageError, StorageUnavailable
from ..storage.tables import begin_write_ahead, damaged, empty_log, is_damaged, lenient_text, make_file

T = TypeVar("T")
Work = Callable[[sa.Connection], T]

log = logging.getLogger("likeness.jobs")

CONNECT_TIMEOUT_S = 5
_HINT = "try again; if it stays, check the database's URL and that it runs"
_metadata = sa.MetaData()
_ID, _NAME, _SHA256 = sa.String(64), sa.String(63), sa.String(64)
_TIME: sa.Double[float] = sa.Double()

jobs = sa.Table(
    "jobs",
    _metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("tenant", _NAME, nullable=False),
    sa.Column("name", _NAME, nullable=False),
    sa.Column("idempotency_key", sa.String(200)),
    sa.Column("order_sha256", _SHA256, nullable=False),
    sa.Column("order", sa.Text, nullable=False),  # JSON, see JobOrder
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("code", sa.String(64)),
    sa.Column("reason", sa.Text),
    sa.Column("hint", sa.Text),
    sa.Column("submitted_s", _TIME, nullable=False),
    sa.Column("started_s", _TIME),
    sa.Column("finished_s", _TIME),
    sa.Column("queue_until_s", _TIME, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("worker", sa.String(200)),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    sa.Column("deaths", sa.Integer, nullable=False, server_default="0"),  # of its process since it last got further
    sa.Column("progress", sa.Text, nullable=False, server_default="{}"),
    sa.Column("adapter_sha256", _SHA256),
    sa.Column("purge_s", _TIME),  # when the photographs go; null = gone, or not yet over
    sa.UniqueConstraint("tenant", "idempotency_key"),
    sa.Index("jobs_by_state", "state", "priority", "submitted_s"),
    sa.Index("jobs_by_name", "tenant", "name"),
)

_IS_OPEN = jobs.c.state.in_(("queued", "running"))
open_jobs = sa.Index(  # two submits at the same moment are not two jobs of one name
    "jobs_open_by_name", jobs.c.tenant, jobs.c.name, unique=True, sqlite_where=_IS_OPEN, postgresql_where=_IS_OPEN
)

events = sa.Table(
    "job_events",
    _metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job", _ID, nullable=False),
    sa.Column("at_s", _TIME, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("facts", sa.Text, nullable=False),  # JSON
    sa.Index("job_events_by_job", "job", "seq"),
    sqlite_autoincrement=True,
)

workers = sa.Table(
    "job_workers",
    _metadata,
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("boot", _ID, nullable=False),  # of this start of it: two processes of one id notice each other
    sa.Column("beat_s", _TIME, nullable=False),
    sa.Column("lease_s", _TIME, nullable=False),
    sa.Column("concurrency", sa.Integer, nullable=False),
)

holds = sa.Table(  # see `holds`
    "job_holds",
    _metadata,
    sa.Column("job", _ID, primary_key=True),
    sa.Column("worker", sa.String(200), primary_key=True),
)

deliveries = sa.Table(
    "job_deliveries",
    _metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("job", _ID, nullable=False),
    sa.Column("tenant", _NAME, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("place", sa.Integer, nullable=False),  # of one job's: a later one waits for the earlier
    sa.Column("state", sa.String(16), nullable=False),  # waiting, delivered, given up
    sa.Column("created_s", _TIME, nullable=False),
    sa.Column("due_s", _TIME, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("last_error", sa.String(200)),
    sa.Column("delivered_s", _TIME),
    sa.Index("job_deliveries_due", "state", "due_s"),
    sa.Index("job_deliveries_by_job", "job", "place"),
)


facts = sa.Table(
    "job_facts",
    _metadata,
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)


class Database:
    """An engine with our tables and DBOS's there.

    Args:
        url: `sqlite:////path` on a local disk, or `postgresql+psycopg://...`.

    Raises:
        StorageUnavailable: it does not answer.
        StorageDamaged: it is no database.
        SettingsError: the URL is malformed.
    """

    def __init__(self, url: str) -> None:
        from dbos import DBOS

        logging.getLogger("dbos").setLevel(logging.WARNING)
        self.url = url
        try:
            address = sa.make_url(url)
        except (ArgumentError, ValueError) as error:  # the second: a port that is no number
            raise SettingsError("expected a database URL such as sqlite:////FOLDER/jobs.sqlite") from error
        self.is_sqlite = address.get_backend_name() == "sqlite"
        make_file(address)
        # Errors go to the log, and what a tenant asked for shall not.
        self.engine = sa.create_engine(
            address, pool_pre_ping=not self.is_sqlite, hide_parameters=True,
            connect_args={} if self.is_sqlite else {"connect_timeout": CONNECT_TIMEOUT_S},
        )  # fmt: skip
        if self.is_sqlite:
            sa.event.listen(self.engine, "connect", _tune_sqlite)
            sa.event.listen(self.engine, "begin", _begin_immediate)
            self.now: sa.ColumnElement[float] = sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", _TIME)
        else:
            self.now = sa.literal_column("extract(epoch from clock_timestamp())::double precision", _TIME)

        def create(connection: sa.Connection) -> None:
            if not self.is_sqlite:  # two who create at once would both find nothing
                connection.execute(sa.text("SELECT pg_advisory_lock(7310589)"))
            try:
                _metadata.create_all(connection)
                connection.commit()
                _index_open_jobs(connection)
                DBOS.migrate(url)
            finally:
                if not self.is_sqlite:
                    connection.execute(sa.text("SELECT pg_advisory_unlock(7310589)"))

        try:
            with self.engine.connect() as connection:
                create(connection)
        except DBAPIError as error:
            self.engine.dispose()
            if (said := _said(error)) is None:
                raise
            raise said from error

    def run(self, work: Work[T], *, patience_s: float = 0.0, reads_only: bool = False) -> T:
        """One transaction.

        Args:
            reads_only: does not wait for who writes.
            patience_s: how long to try again while the database is away.

        Raises:
            StorageUnavailable: it stayed away.
        """
        give_up_s = time.monotonic() + patience_s
        pause_s = 0.1
        while True:
            try:
                with self.engine.connect().execution_options(reads_only=reads_only) as connection, connection.begin():
                    return work(connection)
            except (DBAPIError, PoolTimeout) as error:
                if (said := _said(error)) is None:
                    raise
                if isinstance(said, StorageDamaged) or time.monotonic() + pause_s > give_up_s:
                    raise said from error
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 2.0)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """For what DBOS does with the same database: its errors are said as those of `run`."""
        try:
            yield
        except (DBAPIError, PoolTimeout) as error:
            if (said := _said(error)) is None:
                raise
            raise said from error

    def remembered(self, name: str, value: str) -> str:
        """The value that was given first under this name, by whichever process."""
        insert = sqlite.insert if self.is_sqlite else postgresql.insert

        def work(connection: sa.Connection) -> str:
            connection.execute(insert(facts).values(name=name, value=value).on_conflict_do_nothing())
            return str(connection.execute(sa.select(facts.c.value).where(facts.c.name == name)).scalar_one())

        return self.run(work, patience_s=5.0)

    def scrub(self) -> bool:
        """Take what was deleted out of SQLite's log; False where that must be tried again.

        Raises as `empty_log`.
        """
        if not self.is_sqlite:
            return True
        connection = self.engine.raw_connection()  # not within a transaction
        try:
            return empty_log(connection)
        finally:
            connection.close()

    def close(self) -> None:
        self.engine.dispose()


def _index_open_jobs(connection: sa.Connection) -> None:
    """The unique index in a database of before there was one."""
    try:
        connection.execute(CreateIndex(open_jobs, if_not_exists=True))
        connection.commit()
    except IntegrityError:
        connection.rollback()
        log.warning("two open jobs have one name; the index against that is made at the next start after they are over")


def _said(error: DBAPIError | PoolTimeout) -> StorageError | None:
    """That the database cannot be reached now, or is damaged; None where it has refused what was asked."""
    if is_damaged(error):
        return damaged("the queue's database")
    is_away = not isinstance(error, DBAPIError) or error.connection_invalidated
    if is_away or isinstance(error, OperationalError | InterfaceError):
        return StorageUnavailable("expected an answer of the queue's database, got none", hint=_HINT)
    return None


def _tune_sqlite(connection: Any, record: object) -> None:
    connection.text_factory = lenient_text
    connection.isolation_level = None  # transactions are begun below, by us
    cursor = connection.cursor()
    begin_write_ahead(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA secure_delete=ON")  # what is forgotten is overwritten
    cursor.close()


def _begin_immediate(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later would fail where another wrote in between.
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("reads_only") else "BEGIN IMMEDIATE")
