"""Leases and kept stages in the jobs table, where DBOS's tables and `job_holds` were.

A job that was running has no lease, so the next worker takes it up: it prepares the photographs again and trains from
the newest checkpoint. Two open jobs of one name, which versions before 0.1.0 allowed, become one: the later ones fail.
"""

import sqlalchemy as sa
from alembic.operations import Operations

revision, down_revision = "0002", "0001"

_DBOS = (
    "dbos_migrations", "workflow_status", "notifications", "workflow_events", "streams", "workflow_events_history",
    "workflow_schedules", "application_versions", "queues", "workflow_input", "workflow_output", "operation_outputs",
)  # fmt: skip
_OF_A_WORKFLOW = ("workflow_input", "workflow_output", "operation_outputs", "workflow_status")
_COLUMNS = (
    "lease_until_s DOUBLE PRECISION", "lease_s DOUBLE PRECISION", "takeovers INTEGER DEFAULT '0' NOT NULL",
    "stages TEXT DEFAULT '{}' NOT NULL",
)  # fmt: skip
_FAIL_TWINS = """
    UPDATE jobs SET state = 'failed', code = 'AdapterBusy', reason = 'another job of this name is not over yet',
        hint = 'submit it again', finished_s = submitted_s, purge_s = submitted_s
    WHERE state IN ('queued', 'running') AND EXISTS (
        SELECT 1 FROM jobs AS other WHERE other.tenant = jobs.tenant AND other.name = jobs.name
            AND other.state IN ('queued', 'running')
            AND (other.submitted_s < jobs.submitted_s
                 OR other.submitted_s = jobs.submitted_s AND other.id < jobs.id))"""
_ONE_OPEN_JOB = """
    CREATE UNIQUE INDEX IF NOT EXISTS jobs_open_by_name ON jobs (tenant, name) WHERE state IN ('queued', 'running')"""


def upgrade(op: Operations) -> None:
    for column in _COLUMNS:
        op.execute(f"ALTER TABLE jobs ADD COLUMN {column}")
    op.execute("DROP TABLE IF EXISTS job_holds")
    op.execute(_FAIL_TWINS)
    op.execute(_ONE_OPEN_JOB)
    if op.get_context().dialect.name == "sqlite":
        op.execute("PRAGMA defer_foreign_keys=ON")
        for table in reversed(_DBOS):  # a file of ours alone
            op.execute(f"DROP TABLE IF EXISTS {table}")
        return
    connection = op.get_bind()
    for table in _OF_A_WORKFLOW:  # a schema that other programs may use: our rows only
        if sa.inspect(connection).has_table(table, schema="dbos"):
            op.execute(f"DELETE FROM dbos.{table} WHERE workflow_uuid IN (SELECT id FROM jobs)")
