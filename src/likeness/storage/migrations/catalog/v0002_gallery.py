"""What the web app needs: how an image was made, favourites, sessions."""

from alembic.operations import Operations

revision, down_revision = "0002", "0001"


def upgrade(op: Operations) -> None:
    op.execute("ALTER TABLE outputs ADD COLUMN facts TEXT DEFAULT '{}' NOT NULL")
    op.execute("ALTER TABLE outputs ADD COLUMN is_favourite BOOLEAN DEFAULT false NOT NULL")
    op.execute(
        """CREATE TABLE sessions (
            token_sha256 VARCHAR(64) NOT NULL PRIMARY KEY, key_id VARCHAR(32) NOT NULL,
            created VARCHAR(40) NOT NULL, expires VARCHAR(40) NOT NULL,
            FOREIGN KEY (key_id) REFERENCES api_keys (id))"""
    )
