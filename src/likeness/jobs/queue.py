"""The client side of the queue: submit, status, list, cancel, events. Workers use `leases` and `store`."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from ..errors import AlreadyExists, NotFound, QueueFull, UsageError
from ..storage.catalog import adapter_exists
from ..storage.database import Database
from ..types import checked_tenant
from .job import Failure, Job, JobEvent, JobOrder
from .store import JobStore, add_event, job_of_name_open
from .tables import REQUEST_PATIENCE_S, deliveries, events, is_open, jobs, workers

_SUBMIT_LOCK = 7310590  # PostgreSQL's advisory lock of submits, with the tenant's hash
MOST_OPEN_OF_TENANT = 200
MOST_OPEN = 20_000
MOST_NOTICES = 8  # of one job
TIME_LIMITS_S = (1, 24 * 3600)
QUEUE_LIMITS_S = (1, 7 * 24 * 3600)

Published = Callable[[str, str], str | None]  # tenant, adapter -> content hash of what is published under that name


@dataclass(frozen=True)
class Backlog:
    """The queue in numbers."""

    counts: Mapping[str, int]  # jobs by state
    oldest_s: float  # age of the job that waits longest
    workers: int  # that are alive

    @property
    def open_jobs(self) -> int:
        return self.counts.get("queued", 0) + self.counts.get("running", 0)


class Queue:
    """The queue of one installation.

    Args:
        database: with the queue's tables.
        published: the hash of the adapter of a name, if there is one; without it no job of the name reads as succeeded.
    """

    def __init__(self, database: Database, published: Published) -> None:
        self.database, self.store, self._published = database, JobStore(database), published

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
            raise UsageError(f"expected an idempotency key of 1 to 200 characters, got {len(idempotency_key)}")
        if (earlier := self._earlier(order, idempotency_key)) is not None:
            return earlier
        if not order.replace and self._published(order.tenant, order.name) is not None:
            raise adapter_exists()
        job = secrets.token_hex(12)
        try:
            found = self.database.run(
                lambda connection: self._insert(connection, job, order, idempotency_key), patience_s=REQUEST_PATIENCE_S
            )
        except IntegrityError:  # the database's own rules: a key once, one open job of a name
            if (earlier := self._earlier(order, idempotency_key)) is not None:
                return earlier
            raise job_of_name_open() from None
        return self.status(found, order.tenant)

    def status(self, job: str, tenant: str) -> Job:
        """The current state of a job. Raises NotFound."""
        found = self.store.find(job, tenant)
        if found is None:
            raise NotFound(
                "there is no such job", hint="it may have been forgotten with its subject", code="JobNotFound"
            )
        if found.state != "succeeded":
            return found
        return _as_published(found, self._published(tenant, found.order.name))

    def jobs_of(self, tenant: str, *, name: str | None = None, limit: int = 100) -> list[Job]:
        """A tenant's jobs, the newest first."""
        if not 1 <= limit <= 1000:
            raise UsageError(f"expected a limit from 1 to 1000, got {limit}")
        found = self.store.newest(tenant, name=name, limit=limit)
        names = {job.order.name for job in found if job.state == "succeeded"}
        published = {name: self._published(tenant, name) for name in names}
        return [_as_published(job, published.get(job.order.name)) for job in found]

    def cancel(self, job: str, tenant: str) -> Job:
        """End a job; a final state stays. Raises NotFound, StorageUnavailable."""
        self.store.cancel(job, tenant)
        return self.status(job, tenant)

    def events(self, job: str, tenant: str, *, after: int = 0) -> list[JobEvent]:
        """The events of a job after event `after`, oldest first. Raises NotFound."""
        self.status(job, tenant)
        return self.store.events(job, after)

    def ids_of(self, tenant: str, name: str) -> list[str]:
        """Every job of a name."""
        query = sa.select(jobs.c.id).where(jobs.c.tenant == tenant, jobs.c.name == name)
        return list(self.database.run(lambda connection: connection.execute(query).scalars().all(), reads_only=True))

    def erase(self, found: Sequence[str]) -> dict[str, int]:
        """Delete the rows of these jobs in one transaction; returns how many by kind."""
        kinds = {"jobs": jobs.c.id, "job events": events.c.job, "job messages": deliveries.c.job}

        def work(connection: sa.Connection) -> dict[str, int]:
            return {
                kind: connection.execute(sa.delete(column.table).where(column.in_(found))).rowcount
                for kind, column in kinds.items()
            }

        return self.database.run(work, patience_s=REQUEST_PATIENCE_S) if found else {}

    def backlog(self) -> Backlog:
        """The queue in numbers, over all tenants. Raises StorageUnavailable."""

        def work(connection: sa.Connection) -> Backlog:
            now = self.database.now
            by_state = sa.select(jobs.c.state, sa.func.count().label("jobs")).group_by(jobs.c.state)
            counts = {row.state: int(row.jobs) for row in connection.execute(by_state)}
            oldest = sa.select(now - sa.func.min(jobs.c.submitted_s)).where(jobs.c.state == "queued")
            # a heartbeat from the future is from before the clock was set back
            is_alive = sa.func.abs(now - workers.c.beat_s) < workers.c.lease_s
            alive = sa.select(sa.func.count()).select_from(workers).where(is_alive)
            oldest_s = max(0.0, float(connection.execute(oldest).scalar() or 0.0))
            return Backlog(counts, oldest_s, int(connection.execute(alive).scalar() or 0))

        return self.database.run(work, reads_only=True)

    def close(self) -> None:
        self.database.close()

    def _earlier(self, order: JobOrder, key: str | None) -> Job | None:
        if key is None:
            return None
        found = self.database.run(
            lambda connection: _of_key(connection, order, key), reads_only=True, patience_s=REQUEST_PATIENCE_S
        )
        return None if found is None else self.status(found, order.tenant)

    def _insert(self, connection: sa.Connection, job: str, order: JobOrder, key: str | None) -> str:
        """Write the job; returns its id, or that of the job that came with this key meanwhile."""
        if not self.database.is_sqlite:  # whose transactions that write come one after the other
            tenant = sa.func.hashtext(order.tenant)
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SUBMIT_LOCK, tenant)))
        if key is not None and (earlier := _of_key(connection, order, key)) is not None:
            return earlier
        is_tenants = jobs.c.tenant == order.tenant
        counted = [sa.func.count(), sa.func.count(sa.case((is_tenants, 1))),
                   sa.func.count(sa.case((sa.and_(is_tenants, jobs.c.name == order.name), 1)))]  # fmt: skip
        of_all, of_tenant, of_name = tuple(connection.execute(sa.select(*counted).where(is_open)).one())
        if of_name:
            raise job_of_name_open()
        if of_all >= MOST_OPEN or of_tenant >= MOST_OPEN_OF_TENANT:
            raise QueueFull(
                f"expected fewer than {MOST_OPEN_OF_TENANT} open jobs, got {of_tenant}", hint="wait until some are done"
            )
        now = self.database.now
        connection.execute(
            jobs.insert().values(
                id=job, tenant=order.tenant, name=order.name, idempotency_key=key, order_sha256=order.sha256,
                order=order.document(), state="queued", submitted_s=now, queue_until_s=now + order.queue_limit_s,
                priority=1 + of_tenant,  # a tenant with fewer open jobs goes first, and no slot stays empty
            )
        )  # fmt: skip
        add_event(self.database, connection, job, "state", {"state": "queued"})
        return job


def _as_published(job: Job, published: str | None) -> Job:
    """The job; failed if it succeeded and the catalog no longer has an adapter of its name."""
    if job.state != "succeeded" or published is not None:
        return job
    gone = Failure("AdapterNotFound", "the adapter of this job was published and later deleted", "train again")
    return replace(job, state="failed", failure=gone)


def _of_key(connection: sa.Connection, order: JobOrder, key: str) -> str | None:
    """The job that came with this key before. Raises AlreadyExists: it was another order."""
    query = sa.select(jobs.c.id, jobs.c.order_sha256)
    row = connection.execute(query.where(jobs.c.tenant == order.tenant, jobs.c.idempotency_key == key)).first()
    if row is None:
        return None
    if row.order_sha256 != order.sha256:
        raise AlreadyExists(
            "expected the order that this idempotency key was first used for, got another",
            hint="use a new key",
            code="IdempotencyConflict",
        )
    return str(row.id)


def _check(order: JobOrder) -> None:
    checked_tenant(order.tenant)
    order.fine_tune()
    ranges = {
        "time_limit_s": (order.time_limit_s, TIME_LIMITS_S),
        "queue_limit_s": (order.queue_limit_s, QUEUE_LIMITS_S),
    }
    for name, (value, (low, high)) in ranges.items():
        if not low <= value <= high:
            raise UsageError(f"expected {name} from {low} to {high}, got {value}")
    if len(order.notices) > MOST_NOTICES:
        raise UsageError(f"expected at most {MOST_NOTICES} notices, got {len(order.notices)}")
