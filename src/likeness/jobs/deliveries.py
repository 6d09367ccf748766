"""The delivery log: messages that wait to be sent, or were sent. `worker.notifier` sends them."""

import json
import secrets
from dataclasses import dataclass

import sqlalchemy as sa

from ..storage.database import Database
from .job import Notice
from .messages import TEST_NOTIFICATION
from .tables import deliveries

CLAIM_S = 60.0  # of a process on a message; longer than its running deliveries need, see `worker.notifier`


@dataclass(frozen=True)
class Delivery:
    """One row of the delivery log."""

    id: str
    job: str
    kind: str
    target: str
    state: str  # waiting, delivered, given up
    attempts: int
    created_s: float
    due_s: float
    delivered_s: float | None
    last_error: str | None


class DeliveryLog:
    """The messages of one installation's jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_job(self, tenant: str, job: str) -> list[Delivery]:
        """All messages about a job of this tenant, in the order of their sending."""
        columns = [deliveries.c[name] for name in Delivery.__dataclass_fields__]
        query = sa.select(*columns).where(deliveries.c.tenant == tenant, deliveries.c.job == job)
        rows = self._database.run(
            lambda connection: connection.execute(query.order_by(deliveries.c.place)).all(), reads_only=True
        )
        return [Delivery(**row._mapping) for row in rows]

    def replay(self, tenant: str, job: str) -> int:
        """Make all messages about a job due again, delivered ones too; returns how many."""
        now = self._database.now
        again = (
            deliveries.update()
            .where(deliveries.c.tenant == tenant, deliveries.c.job == job)
            .values(state="waiting", attempts=0, created_s=now, due_s=now, last_error=None)
        )
        return self._database.run(lambda connection: connection.execute(again).rowcount)

    def test(self, tenant: str, notice: Notice) -> str:
        """Add SageMaker's TestNotification to an address; returns the id of its row."""
        id, now = secrets.token_hex(16), self._database.now
        row = deliveries.insert().values(
            id=id, job=id, tenant=tenant, kind=notice.kind, target=notice.target, body=json.dumps(TEST_NOTIFICATION),
            place=0, state="waiting", created_s=now, due_s=now,
        )  # fmt: skip
        self._database.run(lambda connection: connection.execute(row))
        return id


def is_being_sent(database: Database) -> sa.ColumnElement[bool]:
    """Whether a sender has claimed a message, and has neither recorded the outcome nor exceeded its time.

    A claim whose end is much later than that of a new one is from before the clock was set back.
    """
    return sa.and_(
        deliveries.c.state == "waiting", deliveries.c.attempts > 0, deliveries.c.last_error.is_(None),
        deliveries.c.due_s > database.now, deliveries.c.due_s < database.now + 2 * CLAIM_S,
    )  # fmt: skip
