"""Alembic revisions, one folder a schema; `storage.database` calls each one's `upgrade` with the operations."""
