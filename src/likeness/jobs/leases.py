"""Which worker has which job: claims, leases and heartbeats.

    claim -> the worker renews the lease with every heartbeat -> release, when none of its processes writes any more

A claim takes the first job that waits, or one whose lease has expired or was released in the middle of the job. Each
claim raises the job's attempt, and whatever a worker writes is guarded by worker and attempt: a worker whose job was
taken over can change nothing of it. A lease outlives the job's end until its worker has released it, so that a deletion
can wait for the last write.

A lease ends by the database's clock, and that clock may be set: forward, so that every lease looks expired, or back, so
that a dead worker's lease lies in the future. So a renewal that this process saw itself counts more than the time in
the row, and durations are measured on this process's monotonic clock.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ..storage.database import Database
from .deliveries import is_being_sent
from .job import Claim, Failure
from .store import JobStore, add_event
from .tables import WORKER_PATIENCE_S, deliveries, is_open, jobs, workers

BEATS_IN_LEASE = 2
MOST_TAKEOVERS = 10  # of one job whose worker died each time, without progress between
MARGIN_S = 2.0  # a child process looks at its lease every second
FORGOTTEN_AFTER_S = 86_400.0  # a worker without a heartbeat: each pod has a name of its own, and does not return

log = logging.getLogger("likeness.worker")


@dataclass(frozen=True)
class Lease:
    """Of a running job. Times in seconds, `until_s` on the database's clock."""

    job: str
    attempt: int
    until_s: float
    lease_s: float  # from a renewal to `until_s`


@dataclass
class _Seen:
    lease: Lease
    since_s: float  # on the observer's clock
    has_changed: bool  # whether the observer saw the renewal


class LeaseObserver:
    """One process's observations of all leases. `expired` must be called often.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def expired(self, leases: Iterable[Lease], now_s: float) -> list[Lease]:
        """Those that others may take over.

        Args:
            leases: all of them, as they are now.
            now_s: the database's clock.
        """
        self._seen = {lease.job: self._noted(lease) for lease in leases}
        return [seen.lease for seen in self._seen.values() if self._has_expired(seen, now_s)]

    def _noted(self, lease: Lease) -> _Seen:
        before = self._seen.get(lease.job)
        if before is not None and before.lease == lease:
            return before
        return _Seen(lease, self._clock(), has_changed=before is not None)

    def _has_expired(self, seen: _Seen, now_s: float) -> bool:
        lease = seen.lease
        if self._clock() - seen.since_s > lease.lease_s:
            return True
        # leases of the first look can be judged by their time only: too old, or in the future
        renewed_s = lease.until_s - lease.lease_s
        return not seen.has_changed and abs(now_s - renewed_s) > lease.lease_s


class Leases:
    """One worker's leases.

    Args:
        worker: its id, stable over restarts and no other worker's.
        beat_s: seconds between two heartbeats; a lease lasts `BEATS_IN_LEASE` of them.
    """

    def __init__(self, database: Database, worker: str, *, beat_s: float, concurrency: int = 1) -> None:
        self.worker, self.beat_s, self.concurrency = worker, beat_s, concurrency
        self.is_replaced = False  # another process has started with this worker's id
        self._database, self._store = database, JobStore(database)
        self._boot = secrets.token_hex(8)
        self._observer = LeaseObserver()
        self._held: set[str] = set()  # jobs whose leases are renewed
        self._renewed_since_s: float | None = None  # without an interruption
        self._renewed_s = 0.0

    @property
    def lease_s(self) -> float:
        return BEATS_IN_LEASE * self.beat_s

    def register(self) -> None:
        """The first heartbeat. Leases of an earlier process of this id are released: its children are gone."""

        def work(connection: sa.Connection) -> None:
            insert, values = sqlite.insert if self._database.is_sqlite else postgresql.insert, self._beat()
            row = insert(workers).values(id=self.worker, **values)
            connection.execute(row.on_conflict_do_update(index_elements=["id"], set_=values))
            self._release(connection)

        self._database.run(work, patience_s=self.beat_s / 2)
        self._renewed_s = self._renewed_since_s = time.monotonic()

    def renew(self) -> None:
        """One heartbeat: every lease of this worker's starts anew. Raises StorageUnavailable."""
        begun_s = time.monotonic()
        if begun_s - self._renewed_s > self.lease_s:  # this process was suspended, and others may have been too
            self.interrupted()
        self._database.run(self._renew, patience_s=self.beat_s / 2)
        self._renewed_s = time.monotonic()
        if self._renewed_s - begun_s > self.beat_s:
            self.interrupted()
        if self._renewed_since_s is None:
            self._renewed_since_s = self._renewed_s

    def interrupted(self) -> None:
        """A heartbeat failed: leases that look expired may belong to workers that were cut off like this one."""
        self._renewed_since_s = None

    def claim(self) -> Claim | None:
        """Claim a queued job, or one of another worker; None: there is none.

        Raises:
            StorageUnavailable: to be tried again later.
        """
        expired = self._expired()
        taken_over = [sa.and_(jobs.c.id == one.job, jobs.c.lease_until_s == one.until_s) for one in expired]
        is_free = sa.or_(
            sa.and_(jobs.c.state == "queued", jobs.c.queue_until_s > self._database.now),
            sa.and_(jobs.c.state == "running", sa.or_(jobs.c.lease_until_s.is_(None), *taken_over)),
        )
        query = sa.select(jobs).where(is_free).order_by(jobs.c.priority, jobs.c.submitted_s).limit(1)
        if self._database.run(lambda c: c.execute(query).first(), reads_only=True) is None:
            return None
        claim = self._database.run(lambda connection: self._claim(connection, query))
        if claim is not None:
            self._held.add(claim.job)
        return claim

    def release(self, claim: Claim) -> None:
        """Release the job: no process of this worker writes anything of it any more."""
        self._database.run(lambda connection: self._release(connection, claim), patience_s=WORKER_PATIENCE_S)
        self.abandon(claim)

    def abandon(self, claim: Claim) -> None:
        """Let a lease expire, so that any worker, also this one, can take the job over."""
        self._held.discard(claim.job)

    def unregister(self) -> None:
        """End the heartbeats. Leases that are not released expire."""
        mine = workers.c.id == self.worker, workers.c.boot == self._boot
        self._database.run(lambda c: c.execute(workers.update().where(*mine).values(beat_s=0.0)), patience_s=2.0)

    def drop_old_workers(self) -> None:
        """Delete the rows of workers that ended or died a day ago. Raises StorageUnavailable."""
        late = sa.func.abs(self._database.now - workers.c.beat_s) > FORGOTTEN_AFTER_S
        self._database.run(lambda connection: connection.execute(workers.delete().where(late)))

    def _claim(self, connection: sa.Connection, query: sa.Select[Any]) -> Claim | None:
        row = connection.execute(query.with_for_update(skip_locked=True)).mappings().first()
        if row is None:
            return None
        job, is_first, has_died = row["id"], row["state"] == "queued", row["lease_until_s"] is not None
        takeovers = row["takeovers"] + has_died
        if takeovers > MOST_TAKEOVERS:
            failure = Failure(
                "PoisonJob", "every worker that claimed this job died", "report it; other jobs are not affected"
            )
            self._store.end_in(connection, job, (jobs.c.id == job, is_open), "failed", failure, 0.0)
            return None
        now, attempt = self._database.now, row["attempt"] + 1
        values = {
            "state": "running", "worker": self.worker, "attempt": attempt, "takeovers": takeovers,
            "started_s": sa.func.coalesce(jobs.c.started_s, now), **self._lease(),
        }  # fmt: skip
        connection.execute(jobs.update().where(jobs.c.id == job).values(**values))
        if is_first:
            add_event(self._database, connection, job, "state", {"state": "running", "worker": self.worker})
        else:
            said = {"from": row["worker"], "by": self.worker, "attempt": attempt}
            add_event(self._database, connection, job, "taken over", said)
        return Claim(job, self.worker, attempt)

    def _expired(self) -> list[Lease]:
        """Leases that this worker may take over: none during or just after an outage of the database."""

        def read(connection: sa.Connection) -> tuple[list[Lease], float]:
            columns = jobs.c.id, jobs.c.attempt, jobs.c.lease_until_s, jobs.c.lease_s
            is_anothers = sa.or_(jobs.c.worker != self.worker, jobs.c.id.not_in(tuple(self._held)))
            query = sa.select(*columns).where(jobs.c.state == "running", jobs.c.lease_until_s.is_not(None), is_anothers)
            leases = [Lease(*row) for row in connection.execute(query)]
            return leases, float(connection.execute(sa.select(self._database.now)).scalar_one())

        expired = self._observer.expired(*self._database.run(read, reads_only=True))  # seen now, it is judged later
        now_s = time.monotonic()
        since_s = self._renewed_since_s
        may_judge = since_s is not None and now_s - self._renewed_s < self.lease_s < now_s - since_s
        return expired if may_judge else []

    def _renew(self, connection: sa.Connection) -> None:
        mine = workers.c.id == self.worker, workers.c.boot == self._boot
        self.is_replaced = connection.execute(workers.update().where(*mine).values(**self._beat())).rowcount == 0
        if not self.is_replaced:
            held = jobs.c.worker == self.worker, jobs.c.id.in_(tuple(self._held)), jobs.c.lease_until_s.is_not(None)
            connection.execute(jobs.update().where(*held).values(**self._lease()))

    def _release(self, connection: sa.Connection, claim: Claim | None = None) -> None:
        mine = jobs.update().where(jobs.c.worker == self.worker, jobs.c.lease_until_s.is_not(None))
        if claim is not None:
            mine = mine.where(jobs.c.id == claim.job, jobs.c.attempt == claim.attempt)
        connection.execute(mine.values(lease_until_s=None))

    def _lease(self) -> dict[str, object]:
        return {"lease_until_s": self._database.now + self.lease_s, "lease_s": self.lease_s}

    def _beat(self) -> dict[str, object]:
        return {
            "boot": self._boot, "beat_s": self._database.now, "lease_s": self.lease_s, "concurrency": self.concurrency
        }  # fmt: skip


def being_written(database: Database, connection: sa.Connection, found: Iterable[str]) -> set[str]:
    """Those of the jobs of which something may still be written: by a worker, or by the sender of a result object.

    A lease whose end is much later than that of a new one is from before the clock was set back.
    """
    ids, now = list(found), database.now
    leased = sa.select(jobs.c.id).where(
        jobs.c.id.in_(ids), jobs.c.lease_until_s + MARGIN_S > now,
        jobs.c.lease_until_s < now + 2 * jobs.c.lease_s + MARGIN_S,
    )  # fmt: skip
    sent = sa.select(deliveries.c.job).where(
        deliveries.c.job.in_(ids), deliveries.c.kind == "object", is_being_sent(database)
    )
    return {job for query in (leased, sent) for job in connection.execute(query).scalars()}
