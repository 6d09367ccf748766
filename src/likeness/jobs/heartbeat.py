"""Being known to be alive: a worker's row with the database's clock, and what follows when the beat fails.

A beat that reached the database is passed on to the worker's children, which end themselves when they hear none for a
lease. So a worker that is cut off trains no longer than the others believe it to be alive.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ..errors import StorageUnavailable
from .tables import Database, workers

BEATS_IN_LEASE = 2

log = logging.getLogger("likeness.worker")


class Heartbeat:
    """One worker's beat, on a thread of its own.

    Args:
        worker: its stable id.
        beat_s: seconds between two beats; after `BEATS_IN_LEASE` of them without one, others take its jobs.
        beaten: called after each beat that reached the database.
    """

    def __init__(
        self, database: Database, worker: str, *, beat_s: float, concurrency: int, beaten: Callable[[], None]
    ) -> None:
        self.worker, self.beat_s, self.concurrency = worker, beat_s, concurrency
        self._database, self._beaten = database, beaten
        self._boot = secrets.token_hex(8)
        self._stop = threading.Event()
        self._alive_since_s: float | None = None
        self._last_s = 0.0
        self.is_replaced = False  # another process has taken this worker's id

    @property
    def lease_s(self) -> float:
        return BEATS_IN_LEASE * self.beat_s

    @property
    def may_judge(self) -> bool:
        """Whether this worker may take others for dead: not while, or just after, the database was away for all."""
        now_s = time.monotonic()
        return (
            self._alive_since_s is not None
            and now_s - self._last_s < self.lease_s
            and now_s - self._alive_since_s > self.lease_s
        )

    def start(self) -> None:
        """The first beat, then one after the other. Raises StorageUnavailable."""
        self._beat(is_first=True)
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def stop(self) -> None:
        """No more beats, and the row goes: others may take over at once."""
        self._stop.set()
        mine = sa.and_(workers.c.id == self.worker, workers.c.boot == self._boot)
        self._database.run(
            lambda connection: connection.execute(workers.update().where(mine).values(beat_s=0.0)), patience_s=2.0
        )

    def _run(self) -> None:
        while not self._stop.wait(self.beat_s):
            try:
                self._beat(is_first=False)
            except StorageUnavailable:
                self._alive_since_s = None
            except Exception:  # without a beat the worker loses its jobs, whatever the reason: the next one may work
                log.exception("a heartbeat failed")
                self._alive_since_s = None

    def _beat(self, *, is_first: bool) -> None:
        begun_s = time.monotonic()
        if begun_s - self._last_s > self.lease_s:  # this process itself stood still, and the others may have, too
            self._alive_since_s = None
        self._database.run(lambda connection: self._write(connection, is_first=is_first), patience_s=self.beat_s / 2)
        self._last_s = time.monotonic()
        if self._last_s - begun_s > self.beat_s:
            self._alive_since_s = None
        if self._alive_since_s is None:
            self._alive_since_s = self._last_s
        if not self.is_replaced:
            self._beaten()

    def _write(self, connection: sa.Connection, *, is_first: bool) -> None:
        values = {
            "boot": self._boot, "beat_s": self._database.now, "lease_s": self.lease_s, "concurrency": self.concurrency
        }  # fmt: skip
        if is_first:
            insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
            row = insert(workers).values(id=self.worker, **values)
            connection.execute(row.on_conflict_do_update(index_elements=["id"], set_=values))
            return
        mine = sa.and_(workers.c.id == self.worker, workers.c.boot == self._boot)
        self.is_replaced = connection.execute(workers.update().where(mine).values(**values)).rowcount == 0
