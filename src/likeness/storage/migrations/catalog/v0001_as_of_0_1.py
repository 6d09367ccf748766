"""The catalog of version 0.1.0, which had no revisions yet: tables that are there already stay as they are."""

from alembic.operations import Operations

revision, down_revision = "0001", None

_TABLES = (
    "tenants (tenant VARCHAR(63) NOT NULL PRIMARY KEY, created VARCHAR(40) NOT NULL)",
    """api_keys (
        id VARCHAR(32) NOT NULL PRIMARY KEY, tenant VARCHAR(63) NOT NULL, secret_sha256 VARCHAR(64) NOT NULL,
        label VARCHAR(100) NOT NULL, created VARCHAR(40) NOT NULL, revoked VARCHAR(40),
        FOREIGN KEY (tenant) REFERENCES tenants (tenant))""",
    """subjects (
        tenant VARCHAR(63) NOT NULL, name VARCHAR(63) NOT NULL, class_noun VARCHAR(100) NOT NULL,
        identifier VARCHAR(100) NOT NULL, consent TEXT NOT NULL, consented VARCHAR(40) NOT NULL,
        created VARCHAR(40) NOT NULL, PRIMARY KEY (tenant, name))""",
    """photos (
        tenant VARCHAR(63) NOT NULL, subject VARCHAR(63) NOT NULL, sha256 VARCHAR(64) NOT NULL,
        file VARCHAR(200) NOT NULL, bytes BIGINT NOT NULL, report TEXT NOT NULL, key VARCHAR(900) NOT NULL,
        created VARCHAR(40) NOT NULL, PRIMARY KEY (tenant, subject, sha256),
        FOREIGN KEY (tenant, subject) REFERENCES subjects (tenant, name) ON DELETE CASCADE)""",
    """adapters (
        tenant VARCHAR(63) NOT NULL, name VARCHAR(63) NOT NULL, content_sha256 VARCHAR(64) NOT NULL,
        base_sha256 VARCHAR(64) NOT NULL, rank INTEGER NOT NULL, bytes BIGINT NOT NULL, key VARCHAR(900) NOT NULL,
        card TEXT NOT NULL, created VARCHAR(40) NOT NULL, PRIMARY KEY (tenant, name))""",
    """outputs (
        tenant VARCHAR(63) NOT NULL, id VARCHAR(64) NOT NULL, subject VARCHAR(63) NOT NULL,
        media_type VARCHAR(40) NOT NULL, bytes BIGINT NOT NULL, key VARCHAR(900) NOT NULL,
        created VARCHAR(40) NOT NULL, PRIMARY KEY (tenant, id))""",
    """receipts (
        tenant VARCHAR(63) NOT NULL, name VARCHAR(63) NOT NULL, at VARCHAR(40) NOT NULL, items TEXT NOT NULL,
        PRIMARY KEY (tenant, name, at))""",
    """forgettings (
        tenant VARCHAR(63) NOT NULL, name VARCHAR(63) NOT NULL, begun VARCHAR(40) NOT NULL, deleted TEXT NOT NULL,
        PRIMARY KEY (tenant, name))""",
)


def upgrade(op: Operations) -> None:
    for table in _TABLES:
        op.execute(f"CREATE TABLE IF NOT EXISTS {table}")
    op.execute("CREATE INDEX IF NOT EXISTS outputs_of_subject ON outputs (tenant, subject, created)")
    op.execute("DROP TABLE IF EXISTS schema")  # held the number 1
