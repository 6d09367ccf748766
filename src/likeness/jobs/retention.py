"""The retention clock: photographs do not stay for ever once a job is over."""

from functools import partial

import sqlalchemy as sa

from ..storage.objects import Objects
from . import places
from .tables import Database, events, jobs

KEPT_SUFFIXES = ("previews/",)  # made by us, and the owner's to keep until the name is forgotten


class Retention:
    """Deletes what a finished job kept of its photographs when its time is over, and says so."""

    def __init__(self, database: Database, objects: Objects) -> None:
        self._database, self._objects = database, objects

    def purge_due(self, most: int = 20) -> list[str]:
        """Delete the photographs of jobs whose time is over; returns the jobs. Raises StorageUnavailable."""
        due = sa.select(jobs.c.id, jobs.c.tenant, jobs.c.name).where(jobs.c.purge_s <= self._database.now).limit(most)
        found = self._database.run(lambda connection: connection.execute(due).all(), reads_only=True)
        for row in found:
            prefix = places.job_prefix(row.tenant, row.id)
            count = 0
            for facts in list(self._objects.list(prefix)):
                if not facts.key.removeprefix(prefix).startswith(KEPT_SUFFIXES):
                    self._objects.delete(facts.key)
                    count += 1
            self._database.run(partial(self._note, row.id, count))
        return [row.id for row in found]

    def _note(self, job: str, count: int, connection: sa.Connection) -> None:
        connection.execute(jobs.update().where(jobs.c.id == job).values(purge_s=None))
        connection.execute(
            events.insert().values(job=job, at_s=self._database.now, kind="purged", facts=f'{{"objects": {count}}}')
        )
