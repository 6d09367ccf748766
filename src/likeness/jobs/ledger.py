"""What is written about jobs, and the only places where a job changes its state.

    queued -> running -> succeeded, failed          a worker, holding the job's newest claim
    queued, running -> cancelled                    whoever owns the job
    queued -> expired                               whoever notices first

A final state stays. Every transition is one guarded UPDATE: of two who try, one does. The row that tells others of
the end is written in the same transaction as the end, so there is no end that nobody hears of, and no false one.
Knows nothing of queues, processes or pictures.
"""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from ..errors import AdapterBusy, StorageDamaged
from .holds import hold
from .tables import Database, deliveries, events, jobs
from .types import STATES, Claim, Failure, Job, JobEvent, JobOrder, State, read_order

S = TypeVar("S")
T = TypeVar("T")

log = logging.getLogger("likeness.jobs")

PATIENCE_S = math.inf  # a worker waits for its database, however long that is away
GRACE_S = 30.0  # before the photographs of a cancelled job go: its worker may be about to read them
_OPEN = ("queued", "running")


class Ledger:
    """Reads and writes of jobs."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def state_of(self, job: str, tenant: str) -> State | None:
        """A job's state, also where the rest of its row is damaged; another tenant's job is not there."""
        query = sa.select(jobs.c.state).where(jobs.c.id == job, jobs.c.tenant == tenant)
        return self.database.run(
            lambda connection: connection.execute(query).scalar(), reads_only=True, patience_s=10.0
        )

    def find(self, job: str, tenant: str | None = None, *, patience_s: float = 10.0) -> Job | None:
        """A job; another tenant's is not there. Raises StorageDamaged."""

        def work(connection: sa.Connection) -> Job | None:
            query = sa.select(jobs).where(jobs.c.id == job)
            if tenant is not None:
                query = query.where(jobs.c.tenant == tenant)
            row = connection.execute(query).mappings().first()
            return None if row is None else self._job(connection, row)

        return self.database.run(work, reads_only=True, patience_s=patience_s)

    def needs(self, tenant: str, photos: str) -> bool:
        """Whether an open job of this tenant was ordered with these photographs."""

        def work(connection: sa.Connection) -> bool:
            query = sa.select(jobs.c.order).where(jobs.c.tenant == tenant, jobs.c.state.in_(_OPEN))
            orders = (_readable(read_order, order) for order in connection.execute(query).scalars())
            return any(order is not None and order.photos == photos for order in orders)

        return self.database.run(work, reads_only=True, patience_s=10.0)

    def owned(self) -> tuple[frozenset[tuple[str, str]], frozenset[str]]:
        """Tenant and id of every job, and where the photographs of the open ones are."""

        def work(connection: sa.Connection) -> tuple[frozenset[tuple[str, str]], frozenset[str]]:
            every = connection.execute(sa.select(jobs.c.tenant, jobs.c.id)).all()
            orders = connection.execute(sa.select(jobs.c.order).where(jobs.c.state.in_(_OPEN))).scalars()
            readable = (_readable(read_order, order) for order in orders)
            uploads = frozenset(order.photos for order in readable if order is not None)
            return frozenset((row.tenant, row.id) for row in every), uploads

        return self.database.run(work, reads_only=True, patience_s=10.0)

    def orders(self, found: Sequence[str]) -> list[JobOrder]:
        """What these jobs were ordered to do. Damaged rows are logged and left out."""
        query = sa.select(jobs.c.order).where(jobs.c.id.in_(found))
        rows = self.database.run(lambda connection: connection.execute(query).scalars().all(), reads_only=True)
        return [order for order in (_readable(read_order, row) for row in rows) if order is not None]

    def newest(self, tenant: str, *, name: str | None = None, limit: int = 100) -> list[Job]:
        """A tenant's jobs, the newest first. Damaged rows are logged and left out."""

        def work(connection: sa.Connection) -> list[Job]:
            query = sa.select(jobs).where(jobs.c.tenant == tenant).order_by(jobs.c.submitted_s.desc()).limit(limit)
            if name is not None:
                query = query.where(jobs.c.name == name)
            rows = connection.execute(query).mappings().all()
            found = (_readable(partial(self._job, connection), row) for row in rows)
            return [job for job in found if job is not None]

        return self.database.run(work, reads_only=True, patience_s=10.0)

    def claim(self, job: str, worker: str) -> Claim | None:
        """Take a job up, for the first time or from whoever held it. None: there is nothing to do any more."""

        def work(connection: sa.Connection) -> Claim | None:
            before = connection.execute(sa.select(jobs.c.state, jobs.c.worker).where(jobs.c.id == job)).first()
            fresh = sa.or_(jobs.c.state == "running", jobs.c.queue_until_s > self.database.now)
            attempt = connection.execute(
                jobs.update()
                .where(jobs.c.id == job, jobs.c.state.in_(_OPEN), fresh)
                .values(
                    state="running", worker=worker, attempt=jobs.c.attempt + 1,
                    started_s=sa.func.coalesce(jobs.c.started_s, self.database.now),
                )
                .returning(jobs.c.attempt)
            ).scalar()  # fmt: skip
            if before is None or attempt is None:
                return None
            hold(self.database, connection, job, worker)
            if before.state == "queued":
                self._tell(connection, job, "state", {"state": "running", "worker": worker})
            else:
                self._tell(connection, job, "taken over", {"from": before.worker, "by": worker, "attempt": attempt})
            return Claim(job, worker, attempt)

        return self.database.run(work, patience_s=PATIENCE_S)

    def holds(self, claim: Claim) -> bool:
        """Whether the job still runs under this claim."""

        def work(connection: sa.Connection) -> bool:
            return connection.execute(sa.select(jobs.c.id).where(*_held(claim))).first() is not None

        return self.database.run(work, reads_only=True, patience_s=PATIENCE_S)

    def left_s(self, claim: Claim, limit_s: float) -> float:
        """Seconds until the job's time limit, negative when it is over."""

        def work(connection: sa.Connection) -> float:
            left = jobs.c.started_s + limit_s - self.database.now
            return float(connection.execute(sa.select(left).where(jobs.c.id == claim.job)).scalar() or 0.0)

        return self.database.run(work, reads_only=True, patience_s=PATIENCE_S)

    def tell(self, claim: Claim, kind: str, facts: Mapping[str, object]) -> bool:
        """Note something that happened, and make it the job's progress. False: the claim is worth nothing any more."""

        def work(connection: sa.Connection) -> bool:
            found = connection.execute(
                jobs.update().where(*_held(claim)).values(progress=json.dumps({"kind": kind, **facts}))
            )
            if found.rowcount:
                self._tell(connection, claim.job, kind, facts)
            return bool(found.rowcount)

        return self.database.run(work, patience_s=PATIENCE_S)

    def died(self, claim: Claim) -> int:
        """Count one death of the job's process; returns how many there were since the job last got further."""

        def work(connection: sa.Connection) -> int:
            update = jobs.update().where(*_held(claim)).values(deaths=jobs.c.deaths + 1).returning(jobs.c.deaths)
            return int(connection.execute(update).scalar() or 0)

        return self.database.run(work, patience_s=PATIENCE_S)

    def got_further(self, claim: Claim) -> None:
        """A stage or a checkpoint is behind us: earlier deaths were not this job's."""
        self.database.run(
            lambda connection: connection.execute(
                jobs.update().where(*_held(claim), jobs.c.deaths > 0).values(deaths=0)
            ),
            patience_s=PATIENCE_S,
        )

    def publishes(self, claim: Claim, adapter_sha256: str) -> bool:
        """Note what is about to be published. False: the claim is worth nothing any more, so do not publish."""

        def work(connection: sa.Connection) -> bool:
            return bool(
                connection.execute(jobs.update().where(*_held(claim)).values(adapter_sha256=adapter_sha256)).rowcount
            )

        return self.database.run(work, patience_s=PATIENCE_S)

    def amend(self, claim: Claim, order: JobOrder) -> None:
        """What came with the photographs belongs to the order from now on. Raises AdapterBusy."""
        values = {"order": order.document(), "name": order.name}
        busy = AdapterBusy("another job of this name is not over yet", hint="wait for it or cancel it")

        def work(connection: sa.Connection) -> None:
            same = (jobs.c.tenant == order.tenant, jobs.c.name == order.name, jobs.c.state.in_(_OPEN))
            if connection.execute(sa.select(jobs.c.id).where(*same, jobs.c.id != claim.job)).first() is not None:
                raise busy
            connection.execute(jobs.update().where(*_held(claim)).values(**values))

        try:
            self.database.run(work, patience_s=PATIENCE_S)
        except IntegrityError:  # the other came at this moment
            raise busy from None

    def finish(self, claim: Claim, state: State, *, failure: Failure | None = None, keep_photos_s: float) -> bool:
        """The end of a job under this claim, and the messages about it. False: somebody else ended it before."""
        return self._end(claim.job, _held(claim), state, failure=failure, keep_photos_s=keep_photos_s)

    def cancel(self, job: str, tenant: str) -> bool:
        """End a job that waits or runs. Whoever works on it notices at its next look."""
        guard = (jobs.c.id == job, jobs.c.tenant == tenant, jobs.c.state.in_(_OPEN))
        failure = Failure("Cancelled", "cancelled by its owner")
        return self._end(job, guard, "cancelled", failure=failure, keep_photos_s=GRACE_S)

    def give_up(self, job: str, failure: Failure) -> bool:
        """Fail a job that nobody will take up again."""
        return self._end(job, (jobs.c.id == job, jobs.c.state.in_(_OPEN)), "failed", failure=failure, keep_photos_s=0.0)

    def expire(self) -> list[str]:
        """End the jobs that waited longer than they would; returns them."""
        late = (jobs.c.state == "queued", jobs.c.queue_until_s <= self.database.now)
        query = sa.select(jobs.c.id).where(*late).limit(100)
        found = self.database.run(lambda connection: connection.execute(query).scalars().all(), reads_only=True)
        failure = Failure("Expired", "no worker was free before the job's time in the queue was over",
                          "submit again, or start more workers")  # fmt: skip
        guards = {job: (jobs.c.id == job, *late) for job in found}
        return [
            job for job, guard in guards.items() if self._end(job, guard, "expired", failure=failure, keep_photos_s=0.0)
        ]

    def events(self, job: str, after: int = 0, *, limit: int = 1000) -> list[JobEvent]:
        """What happened to a job, oldest first. Damaged rows are logged and left out."""

        def work(connection: sa.Connection) -> list[JobEvent]:
            query = sa.select(events).where(events.c.job == job, events.c.seq > after)
            rows = connection.execute(query.order_by(events.c.seq).limit(limit)).all()
            found = (_readable(_event, row) for row in rows)
            return [event for event in found if event is not None]

        return self.database.run(work, reads_only=True, patience_s=10.0)

    def _end(
        self, job: str, guard: Sequence[sa.ColumnElement[bool]], state: State, *,
        failure: Failure | None, keep_photos_s: float,
    ) -> bool:  # fmt: skip
        from .messages import messages_about

        def work(connection: sa.Connection) -> bool:
            now = self.database.now
            said = {} if failure is None else asdict(failure)
            row = (
                connection.execute(
                    jobs.update()
                    .where(*guard)
                    .values(state=state, finished_s=now, purge_s=now + keep_photos_s, **said)
                    .returning(*jobs.c)
                )
                .mappings()
                .first()
            )
            if row is None:
                return False
            self._tell(connection, job, "state", {"state": state, **said})
            # the steps were for who watched; where it ended is what stays
            connection.execute(events.delete().where(events.c.job == job, events.c.kind == "progress"))
            over = _readable(partial(self._job, connection), row)  # a damaged job ends too; nobody is told
            for message in messages_about(over) if over is not None else ():
                connection.execute(
                    deliveries.insert().values(created_s=now, due_s=now, state="waiting", **asdict(message))
                )
            return True

        return self.database.run(work, patience_s=PATIENCE_S)

    def _tell(self, connection: sa.Connection, job: str, kind: str, facts: Mapping[str, object]) -> None:
        connection.execute(events.insert().values(job=job, at_s=self.database.now, kind=kind, facts=json.dumps(facts)))

    def _job(self, connection: sa.Connection, row: Mapping[Any, Any]) -> Job:
        place = None
        if row["state"] == "queued":
            before = sa.or_(
                jobs.c.priority < row["priority"],
                sa.and_(jobs.c.priority == row["priority"], jobs.c.submitted_s < row["submitted_s"]),
            )
            query = sa.select(sa.func.count()).select_from(jobs).where(jobs.c.state == "queued", before)
            place = 1 + int(connection.execute(query).scalar() or 0)
        failure = Failure(row["code"], row["reason"] or "", row["hint"] or "") if row["code"] else None
        if row["state"] not in STATES:
            raise StorageDamaged("expected a job's row to be readable, got an unknown state")
        return Job(
            id=row["id"], order=read_order(row["order"]), state=row["state"], submitted_s=row["submitted_s"],
            started_s=row["started_s"], finished_s=row["finished_s"], queue_until_s=row["queue_until_s"],
            failure=failure, place_in_queue=place, worker=row["worker"], attempt=row["attempt"],
            progress=_facts(row["progress"]), adapter_sha256=row["adapter_sha256"],
        )  # fmt: skip


def _facts(document: str) -> dict[str, object]:
    try:
        facts = json.loads(document)
    except (ValueError, TypeError, RecursionError) as error:
        raise StorageDamaged(f"expected a job's row to be readable, got {type(error).__name__}") from error
    if not isinstance(facts, dict):
        raise StorageDamaged(f"expected a job's row to be readable, got {type(facts).__name__}")
    return facts


def _event(row: Any) -> JobEvent:
    return JobEvent(row.seq, row.at_s, row.kind, _facts(row.facts))


def _readable(read: Callable[[S], T], row: S) -> T | None:
    """What a row says; None where it is damaged: one row shall not hide all others."""
    try:
        return read(row)
    except StorageDamaged as error:
        log.error("a damaged row of the job database was left out: %s", error)
        return None


def _held(claim: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        jobs.c.id == claim.job, jobs.c.state == "running",
        jobs.c.worker == claim.worker, jobs.c.attempt == claim.attempt,
    )  # fmt: skip
