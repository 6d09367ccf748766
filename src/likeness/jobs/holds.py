"""Who may still write objects of a job. A job's rows go only when nobody does, or what is written then is nobody's.

    claim -> a hold of the worker -> it has let go: its children write no more, what they wrote is swept -> no hold

A worker that is silent for longer than its lease holds nothing: its children have ended themselves. One that starts
lets go of what an earlier process of its id held.
"""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from .notify import CLAIM_S
from .tables import Database, deliveries, holds, workers

MARGIN_S = 2.0  # a child looks at its lease every second


def hold(database: Database, connection: sa.Connection, job: str, worker: str) -> None:
    """Note, in the transaction of the claim, that this worker may write from now on."""
    insert = sqlite.insert if database.is_sqlite else postgresql.insert
    connection.execute(insert(holds).values(job=job, worker=worker).on_conflict_do_nothing())


def let_go(database: Database, worker: str, job: str | None = None) -> None:
    """This worker writes nothing of a job any more; of no job at all where none is said. Raises StorageUnavailable."""
    mine = holds.delete().where(holds.c.worker == worker)
    if job is not None:
        mine = mine.where(holds.c.job == job)
    database.run(lambda connection: connection.execute(mine), patience_s=60.0)


def held(database: Database, connection: sa.Connection, jobs: Iterable[str]) -> set[str]:
    """Those of the jobs of which somebody may still write: a worker that lives, or the sender of a result object."""
    found, now = list(jobs), database.now
    # a beat from far ahead is of a clock that has been set back since
    alive = (
        workers.c.beat_s + workers.c.lease_s + MARGIN_S > now,
        workers.c.beat_s < now + workers.c.lease_s + MARGIN_S,
    )
    writing = sa.select(holds.c.job).join(workers, workers.c.id == holds.c.worker).where(holds.c.job.in_(found), *alive)
    sending = sa.select(deliveries.c.job).where(
        deliveries.c.job.in_(found), deliveries.c.kind == "object", is_being_sent(database)
    )
    return {job for query in (writing, sending) for job in connection.execute(query).scalars()}


def is_being_sent(database: Database) -> sa.ColumnElement[bool]:
    """Of a message: somebody has claimed it, and neither noted the outcome nor run out of time. See `notify`.

    A claim that ends much later than one of now is of a clock that has been set back since.
    """
    return sa.and_(
        deliveries.c.state == "waiting", deliveries.c.attempts > 0, deliveries.c.last_error.is_(None),
        deliveries.c.due_s > database.now, deliveries.c.due_s < database.now + 2 * CLAIM_S,
    )  # fmt: skip
