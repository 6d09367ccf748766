"""Alembic revisions, one folder a schema; applied by `storage.database`."""
