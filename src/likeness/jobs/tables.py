"""The queue's tables. A change here needs a revision in `storage/migrations/jobs`.

All times are the database's clock in seconds since 1970: workers on machines with other clocks agree on what is late.
"""

import math

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ..storage.database import Database, Schema

JOBS = Schema("jobs", "0002", "the queue's database", immediate=True)

REQUEST_PATIENCE_S = 10.0  # how long a request waits for an unavailable database
WORKER_PATIENCE_S = math.inf  # a job continues when the database is available again, after any time

metadata = sa.MetaData()
_ID, _NAME, _SHA256, _WORKER = sa.String(64), sa.String(63), sa.String(64), sa.String(200)
_TIME: sa.Double[float] = sa.Double()

jobs = sa.Table(
    "jobs",
    metadata,
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
    sa.Column("worker", _WORKER),  # the lease's owner, or its last one
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),  # raised by every claim
    sa.Column("lease_until_s", _TIME),  # null: no worker writes anything of this job
    sa.Column("lease_s", _TIME),  # how long a lease lasts, as its owner renews it
    sa.Column("takeovers", sa.Integer, nullable=False, server_default="0"),  # expired leases since the last progress
    sa.Column("deaths", sa.Integer, nullable=False, server_default="0"),  # of its child process, likewise
    sa.Column("stages", sa.Text, nullable=False, server_default="{}"),  # JSON: results of the stages that are done
    sa.Column("progress", sa.Text, nullable=False, server_default="{}"),  # JSON: the newest event of its stage
    sa.Column("adapter_sha256", _SHA256),
    sa.Column("purge_s", _TIME),  # when the photographs go; null = gone, or the job is not over
    sa.UniqueConstraint("tenant", "idempotency_key"),
    sa.Index("jobs_by_state", "state", "priority", "submitted_s"),
    sa.Index("jobs_by_name", "tenant", "name"),
)

is_open = jobs.c.state.in_(("queued", "running"))
sa.Index(  # two submits at the same moment are not two jobs of one name
    "jobs_open_by_name", jobs.c.tenant, jobs.c.name, unique=True, sqlite_where=is_open, postgresql_where=is_open
)

events = sa.Table(
    "job_events",
    metadata,
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
    metadata,
    sa.Column("id", _WORKER, primary_key=True),
    sa.Column("boot", _ID, nullable=False),  # of this start: two processes of one id notice each other
    sa.Column("beat_s", _TIME, nullable=False),  # of the last heartbeat; 0 = the worker ended in order
    sa.Column("lease_s", _TIME, nullable=False),
    sa.Column("concurrency", sa.Integer, nullable=False),
)

deliveries = sa.Table(
    "job_deliveries",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("job", _ID, nullable=False),
    sa.Column("tenant", _NAME, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("place", sa.Integer, nullable=False),  # among a job's messages: a later one waits for the earlier
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
    metadata,
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)


def open_jobs_database(url: str) -> Database:
    """Raises as `Database`."""
    return Database(url, JOBS)


def remembered(database: Database, name: str, value: str) -> str:
    """The value that was stored first under this name, by any process."""

    def work(connection: sa.Connection) -> str:
        insert = sqlite.insert if database.is_sqlite else postgresql.insert
        connection.execute(insert(facts).values(name=name, value=value).on_conflict_do_nothing())
        return str(connection.execute(sa.select(facts.c.value).where(facts.c.name == name)).scalar_one())

    return database.run(work, patience_s=REQUEST_PATIENCE_S)
