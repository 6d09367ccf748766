"""Images that combine several adapters."""

from alembic.operations import Operations

revision, down_revision = "0003", "0002"


def upgrade(op: Operations) -> None:
    op.execute(
        """CREATE TABLE further_adapters (
            tenant VARCHAR(63) NOT NULL, id VARCHAR(64) NOT NULL, adapter VARCHAR(63) NOT NULL,
            PRIMARY KEY (tenant, id, adapter),
            FOREIGN KEY (tenant, id) REFERENCES outputs (tenant, id) ON DELETE CASCADE)"""
    )
    op.execute("CREATE INDEX images_of_further_adapter ON further_adapters (tenant, adapter)")
