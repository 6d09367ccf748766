"""Delivers messages: each row of the delivery log is tried until the recipient accepts it, for a day at most.

At-least-once: a crash between sending and recording the outcome sends again, under the same id. Any number of processes
may deliver; a row is claimed by moving its due time. Every tenant's first message goes before any tenant's second, and
result objects never wait behind a slow webhook. `senders` sends.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import sqlalchemy as sa

from ..errors import LikenessError
from ..jobs.deliveries import CLAIM_S
from ..jobs.messages import Message
from ..jobs.tables import deliveries
from ..storage.database import Database

GIVE_UP_AFTER_S = 86_400.0
GIVE_TEST_UP_AFTER_S = 600.0  # a user waits for the result of a test
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 3600.0
AT_ONCE, MOST_UNDER_WAY = 8, 32  # of each lane: threads, and messages that are being sent or wait for a thread
# 32 / 8 messages one after the other, each with a webhook's deadline of 10 s, need less than CLAIM_S

Sender = Callable[[Message], None]

log = logging.getLogger("likeness.notifier")


@dataclass(frozen=True, eq=False)
class _Lane:
    """The threads for one group of messages, and the messages that they are sending."""

    its: sa.ColumnElement[bool]  # which messages
    threads: ThreadPoolExecutor
    under_way: set[str] = field(default_factory=set)  # ids; also of messages whose claim has expired

    @property
    def room(self) -> int:
        return MOST_UNDER_WAY - len(self.under_way)


class Notifier:
    """Delivers what is due.

    Args:
        senders: for each kind; one that raises is tried again later.
    """

    def __init__(self, database: Database, senders: Mapping[str, Sender]) -> None:
        self._database, self._senders = database, senders
        self._filling, self._closed = threading.Lock(), False
        is_object = deliveries.c.kind == "object"  # of ours, or of a bucket that the operator chose
        self._lanes = (
            _Lane(is_object, ThreadPoolExecutor(AT_ONCE, thread_name_prefix="notifier-objects")),
            _Lane(~is_object, ThreadPoolExecutor(AT_ONCE, thread_name_prefix="notifier")),
        )

    def deliver_due(self) -> int:
        """Start to send what is due, as far as there is room; returns how many. Raises StorageUnavailable."""
        with self._filling:
            return 0 if self._closed or not self.has_due() else sum(self._fill(lane) for lane in self._lanes)

    def close(self) -> None:
        """Send no more; claimed messages that are not sent become due again when the claim expires."""
        with self._filling:
            self._closed = True
        for lane in self._lanes:
            lane.threads.shutdown(wait=False, cancel_futures=True)

    def has_due(self) -> bool:
        """Whether a message is due."""
        query = sa.select(deliveries.c.id).where(*self._due()).limit(1)
        return self._database.run(lambda connection: connection.execute(query).first(), reads_only=True) is not None

    def _due(self) -> tuple[sa.ColumnElement[bool], ...]:
        """Waiting messages that are due and not blocked by an earlier message of their job."""
        earlier = deliveries.alias()
        blocked = sa.exists().where(
            earlier.c.job == deliveries.c.job, earlier.c.kind == "object", earlier.c.state == "waiting",
            earlier.c.place < deliveries.c.place,
        )  # fmt: skip
        now = self._database.now
        # later than any pause: from before the clock was set back
        is_due = sa.or_(deliveries.c.due_s <= now, deliveries.c.due_s > now + LONGEST_PAUSE_S)
        return deliveries.c.state == "waiting", is_due, ~blocked

    def _fill(self, lane: _Lane) -> int:
        claimed = self._database.run(lambda connection: self._claim(connection, lane)) if lane.room else []
        for message in claimed:
            lane.under_way.add(message.id)
            lane.threads.submit(self._deliver, lane, message)
        return len(claimed)

    def _claim(self, connection: sa.Connection, lane: _Lane) -> list[Message]:
        turn = sa.func.row_number().over(partition_by=deliveries.c.tenant, order_by=deliveries.c.due_s)
        mine = lane.its, deliveries.c.id.not_in(tuple(lane.under_way))
        query = sa.select(deliveries).where(*self._due(), *mine).order_by(turn, deliveries.c.due_s).limit(lane.room)
        claimed = []
        for row in connection.execute(query).mappings().all():
            taken = connection.execute(
                deliveries.update()
                .where(deliveries.c.id == row["id"], deliveries.c.due_s == row["due_s"])
                .values(due_s=self._database.now + CLAIM_S, attempts=deliveries.c.attempts + 1, last_error=None)
            )
            if taken.rowcount:
                claimed.append(Message(**{name: row[name] for name in Message.__dataclass_fields__}))
        return claimed

    def _deliver(self, lane: _Lane, message: Message) -> None:
        try:
            error = self._sent(message)
            self._database.run(lambda connection: self._note(connection, message.id, error), patience_s=CLAIM_S)
        except Exception:  # its claim runs out, and it is sent again
            log.exception("the outcome of message %s could not be recorded", message.id)
        finally:
            lane.under_way.discard(message.id)

    def _sent(self, message: Message) -> str | None:
        """Send a message; returns the error, if there was one."""
        try:
            self._senders[message.kind](message)
        except LikenessError as refused:
            return refused.message
        except Exception as failed:  # networks, mail servers and SDKs raise many kinds
            return type(failed).__name__
        return None

    def _note(self, connection: sa.Connection, id: str, error: str | None) -> None:
        now, mine = self._database.now, deliveries.c.id == id
        is_test = connection.execute(sa.select(deliveries.c.job == id).where(mine)).scalar()
        if error is None:
            connection.execute(deliveries.update().where(mine).values(state="delivered", delivered_s=now))
            return
        row = connection.execute(
            sa.select(deliveries.c.attempts, (now - deliveries.c.created_s).label("age_s")).where(mine)
        ).first()
        if row is None:  # forgotten meanwhile
            return
        pause_s = min(FIRST_PAUSE_S * 2 ** (row.attempts - 1), LONGEST_PAUSE_S)
        is_too_late = row.age_s + pause_s > (GIVE_TEST_UP_AFTER_S if is_test else GIVE_UP_AFTER_S)
        state = "given up" if is_too_late else "waiting"
        connection.execute(
            deliveries.update().where(mine).values(state=state, due_s=now + pause_s, last_error=error[:200])
        )
