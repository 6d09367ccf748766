"""Reads and writes of job rows: the only place where a job changes its state.

    queued -> running -> succeeded, failed          a worker that holds the job's newest claim
    queued, running -> cancelled                    the job's owner
    queued -> expired                               any process

A final state stays. Every transition is one guarded UPDATE: of two attempts, one succeeds. The messages about the end
are written in the transaction of the end, so no end goes unreported and no report is false. `leases` claims jobs.
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
from ..storage.database import Database
from ..storage.objects import Objects
from .job import STATES, Claim, Failure, Job, JobEvent, JobOrder, State, read_document, read_order
from .messages import messages_about
from .tables import REQUEST_PATIENCE_S, WORKER_PATIENCE_S, deliveries, events, is_open, jobs

S = TypeVar("S")
T = TypeVar("T")

CURVE_POINTS = 200  # of the losses that stay when a job is over
GRACE_S = 30.0  # until the photographs of a cancelled job are deleted: its worker may be about to read them

log = logging.getLogger("likeness.jobs")


class JobStore:
    """The rows of one installation's jobs."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # reading

    def state_of(self, job: str, tenant: str) -> State | None:
        """A job's state, also where the rest of its row is damaged; another tenant's job is not found."""
        query = sa.select(jobs.c.state).where(jobs.c.id == job, jobs.c.tenant == tenant)
        return self._read(lambda connection: connection.execute(query).scalar())

    def find(self, job: str, tenant: str | None = None) -> Job | None:
        """A job; another tenant's is not found. Raises StorageDamaged."""
        query = sa.select(jobs).where(jobs.c.id == job)
        if tenant is not None:
            query = query.where(jobs.c.tenant == tenant)

        def work(connection: sa.Connection) -> Job | None:
            row = connection.execute(query).mappings().first()
            return None if row is None else _job(connection, row)

        return self._read(work)

    def newest(self, tenant: str, *, name: str | None = None, limit: int = 100) -> list[Job]:
        """A tenant's jobs, the newest first. Damaged rows are logged and left out."""
        query = sa.select(jobs).where(jobs.c.tenant == tenant).order_by(jobs.c.submitted_s.desc()).limit(limit)
        if name is not None:
            query = query.where(jobs.c.name == name)

        def work(connection: sa.Connection) -> list[Job]:
            rows = connection.execute(query).mappings().all()
            return readable(lambda row: _job(connection, row), rows)

        return self._read(work)

    def open(self, limit: int = 200) -> list[tuple[Job, int]]:
        """Jobs of all tenants that run or wait, in the queue's order, with their priorities (small goes first)."""
        order = jobs.c.state.desc(), jobs.c.priority, jobs.c.submitted_s
        query = sa.select(jobs).where(is_open).order_by(*order).limit(limit)

        def work(connection: sa.Connection) -> list[tuple[Job, int]]:
            rows = connection.execute(query).mappings().all()
            return readable(lambda row: (_job(connection, row), int(row["priority"])), rows)

        return self._read(work)

    def prioritise(self, job: str, priority: int) -> bool:
        """Set the priority of a job that waits; small goes first. False: it does not wait."""
        update = jobs.update().where(jobs.c.id == job, jobs.c.state == "queued").values(priority=priority)
        return self.database.run(lambda c: c.execute(update).rowcount > 0, patience_s=REQUEST_PATIENCE_S)

    def orders(self, found: Sequence[str]) -> list[JobOrder]:
        """The orders of these jobs. Damaged rows are logged and left out."""
        query = sa.select(jobs.c.order).where(jobs.c.id.in_(found))
        return readable(read_order, self._read(lambda connection: connection.execute(query).scalars().all()))

    def uploads(self, tenant: str | None = None) -> frozenset[str]:
        """Locations of the photographs of open jobs; of all tenants, or of one."""
        query = sa.select(jobs.c.order).where(is_open)
        if tenant is not None:
            query = query.where(jobs.c.tenant == tenant)
        rows = self._read(lambda connection: connection.execute(query).scalars().all())
        return frozenset(order.photos for order in readable(read_order, rows))

    def drop_upload(self, objects: Objects, order: JobOrder) -> bool:
        """Delete the archive that was uploaded for an order, unless an open job waits for the same one.

        Returns whether there was one: photographs may lie elsewhere. Raises StorageUnavailable.
        """
        key = order.photos
        if not key.startswith(f"{order.tenant}/uploads/") or key in self.uploads(order.tenant):
            return False
        there = objects.has(key)
        objects.delete(key)
        return there

    def ids(self) -> frozenset[tuple[str, str]]:
        """Tenant and id of every job."""
        query = sa.select(jobs.c.tenant, jobs.c.id)
        return self._read(lambda connection: frozenset((row.tenant, row.id) for row in connection.execute(query)))

    def events(self, job: str, after: int = 0, *, limit: int = 1000) -> list[JobEvent]:
        """The events of a job, oldest first. Damaged rows are logged and left out."""
        query = sa.select(events).where(events.c.job == job, events.c.seq > after)
        rows = self._read(lambda c: c.execute(query.order_by(events.c.seq).limit(limit)).all())
        return readable(lambda row: JobEvent(row.seq, row.at_s, row.kind, read_document(row.facts)), rows)

    # of the worker that holds the claim

    def order_of(self, claim: Claim) -> JobOrder | None:
        """The order of the claimed job; None: the job was forgotten. Raises StorageDamaged."""
        query = sa.select(jobs.c.order).where(jobs.c.id == claim.job)
        found = self._read(lambda c: c.execute(query).scalar(), patience_s=WORKER_PATIENCE_S)
        return None if found is None else read_order(found)

    def holds(self, claim: Claim) -> bool:
        """Whether the job still runs under this claim."""
        query = sa.select(jobs.c.id).where(*_held(claim))
        return self._read(lambda c: c.execute(query).first() is not None, patience_s=WORKER_PATIENCE_S)

    def left_s(self, claim: Claim, limit_s: float) -> float:
        """Seconds until the job's time limit, negative when it is over."""
        query = sa.select(jobs.c.started_s + limit_s - self.database.now).where(jobs.c.id == claim.job)
        return self._read(lambda c: float(c.execute(query).scalar() or 0.0), patience_s=WORKER_PATIENCE_S)

    def tell(self, claim: Claim, kind: str, facts: Mapping[str, object]) -> bool:
        """Write an event, and make it the job's progress. False: the claim is not held any more."""

        def work(connection: sa.Connection) -> bool:
            is_held = _update(connection, claim, progress=json.dumps({"kind": kind, **facts}))
            if is_held:
                add_event(self.database, connection, claim.job, kind, facts)
            return is_held

        return self.database.run(work, patience_s=WORKER_PATIENCE_S)

    def kept(self, claim: Claim) -> dict[str, Any]:
        """The results of the job's stages that are done. Raises StorageDamaged."""
        query = sa.select(jobs.c.stages).where(jobs.c.id == claim.job)
        return read_document(self._read(lambda c: c.execute(query).scalar() or "{}", patience_s=WORKER_PATIENCE_S))

    def keep(self, claim: Claim, results: Mapping[str, Mapping[str, Any]]) -> bool:
        """Store the results of stages, so that they are not done again. False: the claim is not held any more."""
        return self._write(claim, stages=json.dumps(results), deaths=0, takeovers=0)

    def got_further(self, claim: Claim) -> None:
        """Reset the crash counts after a checkpoint: earlier crashes were not caused by this job."""
        self._write(claim, deaths=0, takeovers=0)

    def died(self, claim: Claim) -> int:
        """Count a crash of the job's process; returns the number since the job's last progress."""
        update = jobs.update().where(*_held(claim)).values(deaths=jobs.c.deaths + 1).returning(jobs.c.deaths)
        return self.database.run(lambda c: int(c.execute(update).scalar() or 0), patience_s=WORKER_PATIENCE_S)

    def publishes(self, claim: Claim, adapter_sha256: str) -> bool:
        """Record the adapter that is about to be published. False: the claim is lost, so it must not be published."""
        return self._write(claim, adapter_sha256=adapter_sha256)

    def amend(self, claim: Claim, order: JobOrder) -> None:
        """Replace the order by the one that config.json in the archive has changed. Raises AdapterBusy."""
        try:
            self._write(claim, order=order.document(), name=order.name)
        except IntegrityError:
            raise job_of_name_open() from None

    def finish(self, claim: Claim, state: State, *, failure: Failure | None = None, keep_photos_s: float) -> bool:
        """End a job under this claim, with the messages about it. False: the claim is not held any more."""
        return self.database.run(
            lambda connection: self.end_in(connection, claim.job, _held(claim), state, failure, keep_photos_s),
            patience_s=WORKER_PATIENCE_S,
        )

    # transitions that need no claim

    def cancel(self, job: str, tenant: str) -> bool:
        """End a job that waits or runs; its worker notices within `stages.LOOK_EVERY_S`. Raises StorageUnavailable."""
        guard, failure = (
            (jobs.c.id == job, jobs.c.tenant == tenant, is_open),
            Failure("Cancelled", "cancelled by its owner"),
        )
        return self.database.run(
            lambda connection: self.end_in(connection, job, guard, "cancelled", failure, GRACE_S),
            patience_s=REQUEST_PATIENCE_S,
        )

    def expire(self) -> list[str]:
        """End the jobs whose time in the queue is over; returns them. Raises StorageUnavailable."""
        late = (jobs.c.state == "queued", jobs.c.queue_until_s <= self.database.now)
        query = sa.select(jobs.c.id).where(*late).limit(100)
        found = self.database.run(lambda connection: connection.execute(query).scalars().all(), reads_only=True)
        return [job for job in found if self.database.run(partial(self._expire, job, late))]

    def end_in(
        self, connection: sa.Connection, job: str, guard: Sequence[sa.ColumnElement[bool]], state: State,
        failure: Failure | None, keep_photos_s: float,
    ) -> bool:  # fmt: skip
        """End a job where the guard holds, within a transaction; False: it holds nowhere."""
        now, said = self.database.now, {} if failure is None else asdict(failure)
        update = jobs.update().where(*guard).values(state=state, finished_s=now, purge_s=now + keep_photos_s, **said)
        row = connection.execute(update.returning(*jobs.c)).mappings().first()
        if row is None:
            return False
        if losses := _losses(connection, job):
            add_event(self.database, connection, job, "losses", {"losses": curve(losses)})
        add_event(self.database, connection, job, "state", {"state": state, **said})
        # progress is for readers that follow the job; the other events stay
        connection.execute(events.delete().where(events.c.job == job, events.c.kind == "progress"))
        for over in readable(lambda row: _job(connection, row), [row]):  # a damaged job ends too, without messages
            for message in messages_about(over):
                connection.execute(
                    deliveries.insert().values(created_s=now, due_s=now, state="waiting", **asdict(message))
                )
        return True

    def _expire(self, job: str, late: Sequence[sa.ColumnElement[bool]], connection: sa.Connection) -> bool:
        failure = Failure("Expired", "no worker was free before the job's time in the queue was over",
                          "submit it again, or start more workers")  # fmt: skip
        return self.end_in(connection, job, (jobs.c.id == job, *late), "expired", failure, 0.0)

    def _read(self, work: Callable[[sa.Connection], T], *, patience_s: float = REQUEST_PATIENCE_S) -> T:
        return self.database.run(work, reads_only=True, patience_s=patience_s)

    def _write(self, claim: Claim, **values: object) -> bool:
        return self.database.run(lambda connection: _update(connection, claim, **values), patience_s=WORKER_PATIENCE_S)


def job_of_name_open() -> AdapterBusy:
    """A name has one open job at most."""
    return AdapterBusy("another job of this name is not over yet", hint="wait for it or cancel it")


def add_event(database: Database, connection: sa.Connection, job: str, kind: str, facts: Mapping[str, object]) -> None:
    """Write an event within a transaction."""
    connection.execute(events.insert().values(job=job, at_s=database.now, kind=kind, facts=json.dumps(facts)))


def curve(losses: Sequence[float]) -> list[float]:
    """The losses of a training in at most `CURVE_POINTS` numbers: means of parts of equal length, in their order."""
    length = math.ceil(len(losses) / CURVE_POINTS)
    parts = [losses[start : start + length] for start in range(0, len(losses), length or 1)]
    return [round(sum(part) / len(part), 6) for part in parts]


def _losses(connection: sa.Connection, job: str) -> list[float]:
    """The losses in a job's progress events, in their order."""
    query = sa.select(events.c.facts).where(events.c.job == job, events.c.kind == "progress").order_by(events.c.seq)
    told = readable(read_document, connection.execute(query).scalars().all())
    return [loss for one in told if isinstance(loss := one.get("loss"), float)]


def readable(read: Callable[[S], T], rows: Sequence[S]) -> list[T]:
    """The contents of rows. A damaged row is logged and left out, so that it does not hide the others."""
    found = []
    for row in rows:
        try:
            found.append(read(row))
        except StorageDamaged as error:
            log.error("a damaged row of the job database was left out: %s", error)
    return found


def _held(claim: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        jobs.c.id == claim.job, jobs.c.state == "running",
        jobs.c.worker == claim.worker, jobs.c.attempt == claim.attempt,
    )  # fmt: skip


def _update(connection: sa.Connection, claim: Claim, **values: object) -> bool:
    return bool(connection.execute(jobs.update().where(*_held(claim)).values(**values)).rowcount)


def _job(connection: sa.Connection, row: Mapping[Any, Any]) -> Job:
    """Raises StorageDamaged."""
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
        progress=read_document(row["progress"]), adapter_sha256=row["adapter_sha256"],
    )  # fmt: skip
