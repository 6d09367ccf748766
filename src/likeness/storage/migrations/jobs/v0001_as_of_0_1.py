"""The queue of version 0.1.0, which had no revisions yet: tables that are there already stay as they are."""

from alembic.operations import Operations

revision, down_revision = "0001", None

_TABLES = (
    """jobs (
        id VARCHAR(64) NOT NULL PRIMARY KEY, tenant VARCHAR(63) NOT NULL, name VARCHAR(63) NOT NULL,
        idempotency_key VARCHAR(200), order_sha256 VARCHAR(64) NOT NULL, "order" TEXT NOT NULL,
        state VARCHAR(16) NOT NULL, code VARCHAR(64), reason TEXT, hint TEXT,
        submitted_s DOUBLE PRECISION NOT NULL, started_s DOUBLE PRECISION, finished_s DOUBLE PRECISION,
        queue_until_s DOUBLE PRECISION NOT NULL, priority INTEGER NOT NULL, worker VARCHAR(200),
        attempt INTEGER DEFAULT '0' NOT NULL, deaths INTEGER DEFAULT '0' NOT NULL,
        progress TEXT DEFAULT '{}' NOT NULL, adapter_sha256 VARCHAR(64), purge_s DOUBLE PRECISION,
        UNIQUE (tenant, idempotency_key))""",
    """job_workers (
        id VARCHAR(200) NOT NULL PRIMARY KEY, boot VARCHAR(64) NOT NULL, beat_s DOUBLE PRECISION NOT NULL,
        lease_s DOUBLE PRECISION NOT NULL, concurrency INTEGER NOT NULL)""",
    """job_deliveries (
        id VARCHAR(64) NOT NULL PRIMARY KEY, job VARCHAR(64) NOT NULL, tenant VARCHAR(63) NOT NULL,
        kind VARCHAR(16) NOT NULL, target TEXT NOT NULL, body TEXT NOT NULL, place INTEGER NOT NULL,
        state VARCHAR(16) NOT NULL, created_s DOUBLE PRECISION NOT NULL, due_s DOUBLE PRECISION NOT NULL,
        attempts INTEGER DEFAULT '0' NOT NULL, last_error VARCHAR(200), delivered_s DOUBLE PRECISION)""",
    "job_facts (name VARCHAR(63) NOT NULL PRIMARY KEY, value TEXT NOT NULL)",
)
_EVENTS = """job_events (
    seq {number}, job VARCHAR(64) NOT NULL, at_s DOUBLE PRECISION NOT NULL, kind VARCHAR(16) NOT NULL,
    facts TEXT NOT NULL{key})"""
_INDEXES = (
    "jobs_by_state ON jobs (state, priority, submitted_s)",
    "jobs_by_name ON jobs (tenant, name)",
    "job_events_by_job ON job_events (job, seq)",
    "job_deliveries_due ON job_deliveries (state, due_s)",
    "job_deliveries_by_job ON job_deliveries (job, place)",
)


def upgrade(op: Operations) -> None:
    is_sqlite = op.get_context().dialect.name == "sqlite"
    for table in _TABLES:
        op.execute(f"CREATE TABLE IF NOT EXISTS {table}")
    events = (
        _EVENTS.format(number="INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", key="") if is_sqlite
        else _EVENTS.format(number="SERIAL NOT NULL", key=", PRIMARY KEY (seq)")
    )  # fmt: skip
    op.execute(f"CREATE TABLE IF NOT EXISTS {events}")
    for index in _INDEXES:
        op.execute(f"CREATE INDEX IF NOT EXISTS {index}")
