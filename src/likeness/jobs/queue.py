"""The five verbs: submit, status, cancel, events, recover.

DBOS keeps the queue and knows which steps of a job are done; our ledger, in the same database, says what state a job is
in. A job and its place in the queue are written in one transaction. DBOS has no notion of a worker that died on another
machine, so workers leave heartbeats and `recover` gives the jobs of the silent ones back to the queue.

`dbos` is pinned to one minor version: `recover` uses two of its methods that are not public, and a test watches them.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa
from dbos import DBOSClient, DBOSPortableJSONSerializer
from sqlalchemy.exc import IntegrityError

from ..errors import AdapterBusy, AlreadyExists, NotFound, QueueFull, UsageError
from ..training.recipe import recipe_named
from ..types import Subject, checked_seed, checked_subject, checked_tenant
from .ledger import Ledger
from .liveness import Beat, Observer
from .tables import Database, deliveries, events, holds, jobs, workers
from .types import Failure, Job, JobEvent, JobOrder

APP = "likeness"
QUEUE = "training"
WORKFLOW = "fine-tune"
APP_VERSION = "likeness-jobs-1"  # raised only when a new worker could not go on with an old one's job
SERIALIZER = DBOSPortableJSONSerializer()  # JSON: nothing in the database is ever unpickled

SECONDS_UNTIL_STRUCK_OFF = 86_400.0
_SUBMIT_LOCK = 7310590  # PostgreSQL's advisory lock of submits, with the tenant's hash
MOST_OPEN_OF_TENANT = 200
MOST_OPEN = 20_000
TIME_LIMITS_S = (1, 24 * 3600)
QUEUE_LIMITS_S = (1, 7 * 24 * 3600)

Published = Callable[[str, str], str | None]  # tenant, adapter -> content hash of what is published under that name


@dataclass(frozen=True)
class Backlog:
    """The queue in numbers."""

    counts: Mapping[str, int]  # jobs by state
    oldest_s: float  # age of the job that waits longest
    workers: int  # that are alive


class Queue:
    """The queue of one installation.

    Args:
        database: with our tables.
        published: what is there under a name; a job is read as succeeded only where it says so too.
    """

    def __init__(self, database: Database, published: Published) -> None:
        self.database = database
        self.ledger = Ledger(database)
        self._published = published
        self._observer = Observer()
        self._client = DBOSClient(
            system_database_url=database.url, application_name=APP, serializer=SERIALIZER, lazy=True
        )

    def submit(self, order: JobOrder, *, idempotency_key: str | None = None) -> Job:
        """Put a job into the queue; with a key, once only.

        Raises:
            AlreadyExists: the key came with another order before, or the name is taken and the order does not say to
                replace it.
            AdapterBusy: another job of this name is not over yet.
            QueueFull: too many jobs are waiting.
            UsageError: a value outside its limits.
        """
        _check(order)
        if idempotency_key is not None and not 1 <= len(idempotency_key) <= 200:
            raise UsageError("expected an idempotency key of 1 to 200 characters")
        if (earlier := self._earlier(order, idempotency_key)) is not None:
            return earlier
        if not order.replace and self._published(order.tenant, order.name) is not None:
            raise AlreadyExists(
                "an adapter of this name exists already",
                hint="choose another name, or say to replace it",
                code="AdapterExists",
            )
        job = secrets.token_hex(12)
        try:
            found = self.database.run(
                lambda connection: self._insert(connection, job, order, idempotency_key), patience_s=5.0
            )
        except IntegrityError:  # the database's own rules: a key once, one open job of a name
            if (earlier := self._earlier(order, idempotency_key)) is not None:
                return earlier
            raise _busy() from None
        return self.status(found, order.tenant)

    def status(self, job: str, tenant: str) -> Job:
        """A job as it stands. Raises NotFound."""
        found = self.ledger.find(job, tenant)
        if found is None:
            raise NotFound(
                "there is no such job", hint="it may have been forgotten with its subject", code="JobNotFound"
            )
        return _seen(found, self._published(tenant, found.order.name)) if _has_won(found) else found

    def jobs_of(self, tenant: str, *, name: str | None = None, limit: int = 100) -> list[Job]:
        """A tenant's jobs, the newest first."""
        if not 1 <= limit <= 1000:
            raise UsageError(f"expected a limit from 1 to 1000, got {limit}")
        found = self.ledger.newest(tenant, name=name, limit=limit)
        published = {name: self._published(tenant, name) for name in {job.order.name for job in found if _has_won(job)}}
        return [_seen(job, published.get(job.order.name)) for job in found]

    def cancel(self, job: str, tenant: str) -> Job:
        """End a job that is not over; one that is over stays what it is. Raises NotFound."""
        self.stop(job, tenant)
        return self.status(job, tenant)

    def stop(self, job: str, tenant: str) -> None:
        """`cancel` without reading the job, whose row may be damaged."""
        before = self.ledger.state_of(job, tenant)
        if self.ledger.cancel(job, tenant) and before == "queued":
            self._withdraw(job)

    def events(self, job: str, tenant: str, *, after: int = 0) -> list[JobEvent]:
        """What happened to a job after event `after`, oldest first. Raises NotFound."""
        self.status(job, tenant)
        return self.ledger.events(job, after)

    def recover(self) -> list[str]:
        """Give the jobs of silent workers back to the queue, end those that waited too long or fell out of it.

        Any number of processes may do this at once: DBOS moves a job only while it still belongs to the silent worker.

        Returns:
            ids of the jobs that were given back.
        """

        def pending(executor: str) -> list[str]:
            with self.database.answering():
                found = self._client._sys_db.get_pending_workflows(executor, APP_VERSION)
            return [workflow.workflow_id for workflow in found]

        def reenqueued(job: str, executor: str) -> bool:
            with self.database.answering():
                return bool(self._client._sys_db.reenqueue_for_recovery(job, [executor], QUEUE))

        given_back: list[str] = []
        for executor in self.observe():
            left = pending(executor)
            given_back += [job for job in left if reenqueued(job, executor)]
            if not left:
                self._strike_off(executor)
        self.expire()
        self._fail_the_abandoned()
        return given_back

    def observe(self) -> list[str]:
        """Look at the workers' heartbeats; those that are dead. Look often: see `liveness`."""

        def read(connection: sa.Connection) -> tuple[list[Beat], float]:
            columns = workers.c.id, workers.c.boot, workers.c.beat_s, workers.c.lease_s
            beats = [Beat(*row) for row in connection.execute(sa.select(*columns))]
            return beats, float(connection.execute(sa.select(self.database.now)).scalar_one())

        return self._observer.dead(*self.database.run(read, reads_only=True))

    def expire(self) -> None:
        """End the jobs that waited longer than they would."""
        for job in self.ledger.expire():
            self._withdraw(job)

    def ids_of(self, tenant: str, name: str) -> list[str]:
        """Every job of a name."""
        query = sa.select(jobs.c.id).where(jobs.c.tenant == tenant, jobs.c.name == name)
        return list(self.database.run(lambda connection: connection.execute(query).scalars().all(), reads_only=True))

    def erase(self, found: Sequence[str]) -> dict[str, int]:
        """Delete the rows of these jobs, ours and DBOS's, in one transaction; returns how many of ours by kind."""
        kinds = {"jobs": jobs.c.id, "job events": events.c.job, "job messages": deliveries.c.job}
        system = self._client._sys_db
        theirs, where_they_are = system.tables, system.engine.get_execution_options()
        payloads = (theirs.workflow_input, theirs.workflow_output, theirs.operation_outputs, theirs.workflow_status)

        def work(connection: sa.Connection) -> dict[str, int]:
            for table in payloads:
                their_rows = sa.delete(table).where(table.c.workflow_uuid.in_(found))
                connection.execute(their_rows, execution_options=where_they_are)
            connection.execute(sa.delete(holds).where(holds.c.job.in_(found)))
            return {
                kind: connection.execute(sa.delete(column.table).where(column.in_(found))).rowcount
                for kind, column in kinds.items()
            }

        return self.database.run(work, patience_s=5.0) if found else {}

    def backlog(self) -> Backlog:
        """The queue in numbers, over all tenants. Raises StorageUnavailable."""

        def work(connection: sa.Connection) -> Backlog:
            now = self.database.now
            rows = connection.execute(
                sa.select(jobs.c.state, sa.func.count().label("jobs")).group_by(jobs.c.state)
            ).all()
            counts = {row.state: int(row.jobs) for row in rows}
            oldest = sa.select(now - sa.func.min(jobs.c.submitted_s)).where(jobs.c.state == "queued")
            # a beat from the future is of before the clock was set back
            is_alive = sa.func.abs(now - workers.c.beat_s) < workers.c.lease_s
            alive = sa.select(sa.func.count()).select_from(workers).where(is_alive)
            return Backlog(
                counts,
                max(0.0, float(connection.execute(oldest).scalar() or 0.0)),
                int(connection.execute(alive).scalar() or 0),
            )

        return self.database.run(work, reads_only=True)

    def open_jobs(self) -> int:
        """How many jobs of anybody's wait or run."""
        query = sa.select(sa.func.count()).select_from(jobs).where(jobs.c.state.in_(("queued", "running")))
        return int(self.database.run(lambda connection: connection.execute(query).scalar() or 0, reads_only=True))

    def _strike_off(self, worker: str) -> None:
        """A worker that was silent for a day and left nothing: each pod has a name of its own, and does not return."""
        late = sa.func.abs(self.database.now - workers.c.beat_s) > SECONDS_UNTIL_STRUCK_OFF
        self.database.run(
            lambda connection: connection.execute(workers.delete().where(workers.c.id == worker, late)), patience_s=5.0
        )

    def close(self) -> None:
        self._client.destroy()
        self.database.close()

    def _withdraw(self, job: str) -> None:
        """Take a job out of DBOS' queue."""
        with self.database.answering():
            self._client.cancel_workflow(job)

    def _earlier(self, order: JobOrder, key: str | None) -> Job | None:
        if key is None:
            return None

        found = self.database.run(lambda connection: _of_key(connection, order, key), reads_only=True, patience_s=5.0)
        return None if found is None else self.status(found, order.tenant)

    def _insert(self, connection: sa.Connection, job: str, order: JobOrder, key: str | None) -> str:
        """Write the job and its place in the queue; its id, or that of the job that came with this key meanwhile."""
        if not self.database.is_sqlite:  # whose transactions that write come one after the other
            tenant = sa.func.hashtext(order.tenant)
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SUBMIT_LOCK, tenant)))
        if key is not None and (earlier := _of_key(connection, order, key)) is not None:
            return earlier
        is_open = jobs.c.state.in_(("queued", "running"))
        rows = connection.execute(
            sa.select(sa.func.count(), sa.func.count(sa.case((jobs.c.tenant == order.tenant, 1))),
                      sa.func.count(sa.case((sa.and_(jobs.c.tenant == order.tenant, jobs.c.name == order.name), 1))))
            .where(is_open)
        ).one()  # fmt: skip
        everybody, of_tenant, of_name = rows
        if of_name:
            raise _busy()
        if everybody >= MOST_OPEN or of_tenant >= MOST_OPEN_OF_TENANT:
            raise QueueFull(
                f"expected fewer than {MOST_OPEN_OF_TENANT} open jobs, got {of_tenant}", hint="wait until some are done"
            )
        priority = 1 + of_tenant  # whoever has less outstanding goes first, and nobody's slot stays empty
        now = self.database.now
        connection.execute(
            jobs.insert().values(
                id=job, tenant=order.tenant, name=order.name, idempotency_key=key, order_sha256=order.sha256,
                order=order.document(), state="queued", submitted_s=now, queue_until_s=now + order.queue_limit_s,
                priority=priority,
            )
        )  # fmt: skip
        self.ledger._tell(connection, job, "state", {"state": "queued"})
        self._client.enqueue_in_transaction(
            connection,
            {
                "workflow_name": WORKFLOW, "queue_name": QUEUE, "workflow_id": job, "priority": priority,
                "authenticated_user": order.tenant, "app_version": APP_VERSION,
            },
            job,
        )  # fmt: skip
        return job

    def _fail_the_abandoned(self) -> None:
        """A job that DBOS has given up (too many workers died with it) ends here too."""
        with self.database.answering():
            given_up = self._client.list_workflows(
                status="MAX_RECOVERY_ATTEMPTS_EXCEEDED", name=WORKFLOW, limit=100, sort_desc=True, load_input=False,
                load_output=False,
            )  # fmt: skip
        failure = Failure(
            "PoisonJob", "every worker that took this job up died with it", "report it; others are not affected"
        )
        for workflow in given_up:
            self.ledger.give_up(workflow.workflow_id, failure)


def _has_won(job: Job) -> bool:
    return job.state == "succeeded"


def _seen(job: Job, published: str | None) -> Job:
    """Success is what the catalog confirms: the job's adapter, or a later one that has taken its place."""
    if not _has_won(job) or published is not None:
        return job
    gone = Failure("AdapterNotFound", "the adapter of this job was published, and has been deleted since")
    return replace(job, state="failed", failure=gone)


def _of_key(connection: sa.Connection, order: JobOrder, key: str) -> str | None:
    """The job that came with this key before. Raises AlreadyExists: it was another order."""
    query = sa.select(jobs.c.id, jobs.c.order_sha256)
    row = connection.execute(query.where(jobs.c.tenant == order.tenant, jobs.c.idempotency_key == key)).first()
    if row is None:
        return None
    if row.order_sha256 != order.sha256:
        raise AlreadyExists(
            "this idempotency key came with another order before", hint="use a new key", code="IdempotencyConflict"
        )
    return str(row.id)


def _busy() -> AdapterBusy:
    return AdapterBusy("another job of this name is not over yet", hint="wait for it or cancel it")


def _check(order: JobOrder) -> None:
    checked_tenant(order.tenant)
    checked_subject(Subject(order.name, order.class_noun))
    checked_seed(order.seed)
    recipe_named(order.recipe, **order.changes)
    ranges = {
        "time_limit_s": (order.time_limit_s, TIME_LIMITS_S),
        "queue_limit_s": (order.queue_limit_s, QUEUE_LIMITS_S),
    }
    for name, (value, (low, high)) in ranges.items():
        if not low <= value <= high:
            raise UsageError(f"expected {name} from {low} to {high}, got {value}")
    if len(order.notices) > 8:
        raise UsageError(f"expected at most 8 who are told, got {len(order.notices)}")
