"""The five verbs without a worker: what is promised to whoever submits, asks and cancels."""

import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from dbos import DBOSClient
from sqlalchemy.exc import IntegrityError

from likeness.errors import (
    AdapterBusy,
    AdapterExists,
    IdempotencyConflict,
    JobNotFound,
    QueueFull,
    StorageUnavailable,
    UsageError,
)
from likeness.jobs import queue as queue_module
from likeness.jobs.queue import APP_VERSION, Queue
from likeness.jobs.tables import jobs, open_jobs_database, workers
from likeness.jobs.types import Failure, Job, JobOrder
from likeness.storage.database import Database

Shelf = dict[tuple[str, str], str]


@pytest.fixture
def shelf() -> Shelf:
    """What is published: (tenant, name) -> content hash."""
    return {}


@pytest.fixture
def queue(tmp_path: Path, shelf: Shelf) -> Iterator[Queue]:
    made = Queue(open_jobs_database(f"sqlite:///{tmp_path / 'jobs.sqlite'}"), lambda tenant, name: shelf.get((tenant, name)))
    yield made
    made.close()


def order(name: str, tenant: str = "anna", **changes: object) -> JobOrder:
    return replace(JobOrder(tenant, name, f"{tenant}/uploads/{name}/archive"), **changes)  # type: ignore[arg-type]


def states(queue: Queue, job: Job) -> list[object]:
    found = queue.events(job.id, job.order.tenant)
    return [event.facts["state"] for event in found if event.kind == "state"]


def test_what_was_ordered_can_be_read_back(queue: Queue) -> None:
    asked = order("rex", class_noun="dog", recipe="fast", changes={"steps": 5, "unet_targets": ("to_q",)}, seed=3)
    job = queue.submit(asked)
    assert job.order == asked
    assert (job.state, job.place_in_queue, job.attempt, job.failure) == ("queued", 1, 0, None)
    assert queue.status(job.id, "anna") == job
    assert states(queue, job) == ["queued"]


def test_a_key_that_comes_twice_is_one_job_and_with_another_order_a_conflict(queue: Queue) -> None:
    first = queue.submit(order("rex"), idempotency_key="k")
    assert queue.submit(order("rex"), idempotency_key="k").id == first.id
    with pytest.raises(IdempotencyConflict) as refused:
        queue.submit(order("rex", seed=1), idempotency_key="k")
    assert refused.value.http_status == 409
    assert queue.submit(order("rex", tenant="ben"), idempotency_key="k").id != first.id
    queue.cancel(first.id, "anna")
    assert queue.submit(order("rex"), idempotency_key="k").state == "cancelled"  # still that job


def test_equal_submits_at_the_same_moment_get_the_same_answer(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from two servers: none sees the other's job before it writes its own."""
    monkeypatch.setattr(queue, "_earlier", lambda order, key: None)
    answers = [queue.submit(order("rex"), idempotency_key="k") for _ in range(3)]
    assert {job.id for job in answers} == {queue.jobs_of("anna")[0].id}
    with pytest.raises(IdempotencyConflict):
        queue.submit(order("rex", seed=1), idempotency_key="k")
    with pytest.raises(AdapterBusy):
        queue.submit(order("rex"))


def test_the_database_itself_holds_one_open_job_of_a_name(queue: Queue) -> None:
    first = queue.submit(order("rex"))

    def insert(connection: sa.Connection) -> None:
        row = connection.execute(sa.select(jobs).where(jobs.c.id == first.id)).mappings().one()
        connection.execute(jobs.insert().values({**row, "id": "other"}))

    with pytest.raises(IntegrityError):
        queue.database.run(insert)
    queue.cancel(first.id, "anna")
    queue.database.run(insert)  # a job that is over is not in the way of another


def test_a_database_of_before_that_rule_gets_it_once_it_can(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.sqlite'}"

    def rules(database: Database) -> bool:
        return "jobs_open_by_name" in {index["name"] for index in sa.inspect(database.engine).get_indexes("jobs")}

    old = Queue(open_jobs_database(url), lambda tenant, name: None)
    twins = [old.submit(order(name)) for name in ("rex", "max")]
    with old.database.engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX jobs_open_by_name")
        connection.execute(jobs.update().values(name="rex"))
    old.close()
    newer = Queue(open_jobs_database(url), lambda tenant, name: None)
    assert not rules(newer.database)
    newer.cancel(twins[0].id, "anna")
    newer.close()
    newest = open_jobs_database(url)
    assert rules(newest)
    newest.close()


def test_a_tenant_sees_nothing_of_anothers(queue: Queue) -> None:
    job = queue.submit(order("rex"))
    for ask in (queue.status, queue.cancel, queue.events):
        with pytest.raises(JobNotFound):
            ask(job.id, "ben")
    assert queue.jobs_of("ben") == []
    assert [found.id for found in queue.jobs_of("anna")] == [job.id]


def test_whoever_has_less_outstanding_goes_first(queue: Queue) -> None:
    hog = [queue.submit(order(f"hog-{i}", tenant="hog")) for i in range(4)]
    ann = [queue.submit(order(f"ann-{i}", tenant="ann")) for i in range(2)]
    places = {job.order.name: queue.status(job.id, job.order.tenant).place_in_queue for job in hog + ann}
    assert sorted(places, key=lambda name: places[name] or 0) == ["hog-0", "ann-0", "hog-1", "ann-1", "hog-2", "hog-3"]
    queue.cancel(hog[0].id, "hog")
    assert queue.status(ann[0].id, "ann").place_in_queue == 1


def test_one_open_job_a_name_and_no_taken_name_unless_said(queue: Queue, shelf: Shelf) -> None:
    job = queue.submit(order("rex"))
    with pytest.raises(AdapterBusy):
        queue.submit(order("rex", replace=True))
    queue.cancel(job.id, "anna")
    shelf["anna", "rex"] = "0" * 64
    with pytest.raises(AdapterExists):
        queue.submit(order("rex"))
    assert queue.submit(order("rex", replace=True)).state == "queued"


def test_the_queue_is_bounded(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "MOST_OPEN_OF_TENANT", 2)
    first = queue.submit(order("a"))
    queue.submit(order("b"))
    with pytest.raises(QueueFull) as refused:
        queue.submit(order("c"))
    assert refused.value.http_status == 429
    queue.submit(order("c", tenant="ben"))
    queue.cancel(first.id, "anna")
    queue.submit(order("c"))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../rex"}, {"tenant": "An na"}, {"class_noun": ""}, {"class_noun": "a\nb"}, {"seed": -1},
        {"recipe": "none"}, {"changes": {"steps": 0}}, {"changes": {"nonsense": 1}}, {"time_limit_s": 0},
        {"time_limit_s": 10**6}, {"queue_limit_s": 0},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_before_it_waits(queue: Queue, changes: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        queue.submit(replace(order("rex"), **changes))  # type: ignore[arg-type]
    assert queue.open_jobs() == 0


def test_a_cancelled_job_stays_cancelled_and_leaves_the_queue(queue: Queue) -> None:
    job = queue.submit(order("rex"))
    assert queue.cancel(job.id, "anna").state == "cancelled"
    assert queue.cancel(job.id, "anna").state == "cancelled"
    assert queue.store.claim(job.id, "w-0") is None
    assert states(queue, job) == ["queued", "cancelled"]
    assert queue._client.retrieve_workflow(job.id).get_status().status == "CANCELLED"


def test_success_is_read_only_where_the_adapter_is(queue: Queue, shelf: Shelf) -> None:
    job = queue.submit(order("rex"))
    claim = queue.store.claim(job.id, "w-0")
    assert claim is not None
    assert queue.store.publishes(claim, "a" * 64)
    assert queue.store.finish(claim, "succeeded", keep_photos_s=0)
    assert queue.status(job.id, "anna").state == "failed"  # nothing is there
    assert [found.state for found in queue.jobs_of("anna")] == ["failed"]
    shelf["anna", "rex"] = "a" * 64
    assert queue.status(job.id, "anna").state == "succeeded"
    assert [found.state for found in queue.jobs_of("anna")] == ["succeeded"]


def test_a_success_stays_one_when_a_later_job_replaces_its_adapter(queue: Queue, shelf: Shelf) -> None:
    jobs = []
    for sha256 in ("a" * 64, "b" * 64):
        job = queue.submit(order("rex", replace=True))
        claim = queue.store.claim(job.id, "w-0")
        assert claim is not None and queue.store.publishes(claim, sha256)
        shelf["anna", "rex"] = sha256
        assert queue.store.finish(claim, "succeeded", keep_photos_s=0)
        jobs.append(job)
    assert [queue.status(job.id, "anna").state for job in jobs] == ["succeeded"] * 2
    assert [found.state for found in queue.jobs_of("anna")] == ["succeeded"] * 2


def test_a_list_of_jobs_asks_for_each_name_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def published(tenant: str, name: str) -> str:
        asked.append(name)
        return "a" * 64

    queue = Queue(open_jobs_database(f"sqlite:///{tmp_path / 'jobs.sqlite'}"), published)
    for name in ("rex", "rex", "ida"):
        job = queue.submit(order(name, replace=True))
        claim = queue.store.claim(job.id, "w-0")
        assert claim is not None and queue.store.finish(claim, "succeeded", keep_photos_s=0)
    asked.clear()
    assert len(queue.jobs_of("anna")) == 3
    assert sorted(asked) == ["ida", "rex"]
    queue.close()


def test_a_later_claim_makes_an_earlier_one_worthless(queue: Queue) -> None:
    job = queue.submit(order("rex"))
    old = queue.store.claim(job.id, "w-0")
    new = queue.store.claim(job.id, "w-1")
    assert old is not None and new is not None
    assert not queue.store.holds(old)
    assert queue.store.holds(new)
    assert not queue.store.tell(old, "progress", {"done": 1})
    assert not queue.store.publishes(old, "a" * 64)
    assert not queue.store.finish(old, "failed", failure=Failure("X", "x"), keep_photos_s=0)
    assert queue.store.tell(new, "progress", {"done": 2})
    assert queue.status(job.id, "anna").progress == {"kind": "progress", "done": 2}
    assert [event.kind for event in queue.events(job.id, "anna")] == ["state", "state", "taken over", "progress"]


def test_who_waits_too_long_expires(queue: Queue) -> None:
    job, other = queue.submit(order("rex")), queue.submit(order("max"))
    queue.database.run(lambda c: c.execute(jobs.update().where(jobs.c.id == job.id).values(queue_until_s=1.0)))
    assert queue.store.claim(job.id, "w-0") is None  # nobody begins with it any more
    queue.recover()
    expired = queue.status(job.id, "anna")
    assert (expired.state, expired.failure and expired.failure.code) == ("expired", "Expired")
    assert queue.status(other.id, "anna").state == "queued"


def test_only_a_silent_workers_jobs_are_given_back(queue: Queue) -> None:
    """Also the contract with DBOS: its two methods that are not public do what `recover` needs."""
    taken = {name: queue.submit(order(name)) for name in ("silent", "alive")}
    status = sa.text("UPDATE workflow_status SET status = 'PENDING', executor_id = :worker WHERE workflow_uuid = :job")

    def take(connection: sa.Connection) -> None:
        for worker, job in taken.items():
            beat = sa.literal(1.0) if worker == "silent" else queue.database.now
            row = workers.insert().values(id=worker, boot="b", beat_s=beat, lease_s=10.0, concurrency=1)
            connection.execute(row)
            connection.execute(status, {"worker": worker, "job": job.id})

    queue.database.run(take)
    assert queue.recover() == [taken["silent"].id]
    assert queue.recover() == []
    found = {name: queue._client.retrieve_workflow(job.id).get_status() for name, job in taken.items()}
    assert {name: status.status for name, status in found.items()} == {"silent": "ENQUEUED", "alive": "PENDING"}
    assert {status.queue_name for status in found.values()} == {queue_module.QUEUE}
    assert {status.app_version for status in found.values()} == {APP_VERSION}


def test_a_beat_from_the_future_is_a_dead_workers(queue: Queue) -> None:
    """A worker that died after the clock was set forward, which is right again by now."""
    job = queue.submit(order("rex"))
    status = sa.text("UPDATE workflow_status SET status = 'PENDING', executor_id = 'future' WHERE workflow_uuid = :job")

    def take(connection: sa.Connection) -> None:
        for worker, ahead_s in {"future": 3547.0, "now": 0.0}.items():
            beat = queue.database.now + ahead_s
            connection.execute(workers.insert().values(id=worker, boot="b", beat_s=beat, lease_s=10.0, concurrency=1))
        connection.execute(status, {"job": job.id})

    queue.database.run(take)
    assert queue.backlog().workers == 1
    assert queue.recover() == [job.id]
    left = queue.database.run(lambda c: c.execute(sa.select(workers.c.id)).scalars().all())
    assert set(left) == {"future", "now"}  # it may live, and would take a missing row for a worker in its place


def test_a_worker_that_never_came_back_is_struck_off(queue: Queue) -> None:
    def silent_for(connection: sa.Connection) -> None:
        for worker, silent_s in {"yesterday": 90_000.0, "a minute ago": 60.0}.items():
            beat = queue.database.now - silent_s
            connection.execute(workers.insert().values(id=worker, boot="b", beat_s=beat, lease_s=10.0, concurrency=1))

    queue.database.run(silent_for)
    queue.recover()
    left = queue.database.run(lambda c: c.execute(sa.select(workers.c.id)).scalars().all())
    assert list(left) == ["a minute ago"]


def test_dbos_keeps_the_signatures_that_we_use() -> None:
    from dbos._dbos import DBOSRegistry
    from dbos._sys_db import SystemDatabase

    def parameters(method: object) -> list[str]:
        return list(inspect.signature(method).parameters)  # type: ignore[arg-type]

    assert parameters(SystemDatabase.get_pending_workflows) == ["self", "executor_id", "app_version"]
    assert parameters(SystemDatabase.reenqueue_for_recovery)[1:] == [
        "workflow_id",
        "executor_ids",
        "recovery_queue_name",
    ]
    assert parameters(DBOSRegistry._register_internal_queue) == ["self", "name", "limits"]
    made = DBOSRegistry()._register_internal_queue("training", worker_concurrency=3)
    assert made._worker_concurrency == 3  # what a worker lowers when its device is full
    assert parameters(DBOSClient.enqueue_in_transaction)[:3] == ["self", "conn_or_session", "options"]


def test_a_job_that_dbos_gave_up_has_failed(queue: Queue) -> None:
    job = queue.submit(order("rex"))
    given_up = sa.text(
        "UPDATE workflow_status SET status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED' WHERE workflow_uuid = :job"
    )
    queue.database.run(lambda c: c.execute(given_up, {"job": job.id}))
    queue.recover()
    failed = queue.status(job.id, "anna")
    assert (failed.state, failed.failure and failed.failure.code) == ("failed", "PoisonJob")


def test_nothing_that_python_would_unpickle_is_in_the_database(queue: Queue) -> None:
    queue.submit(order("rex"))
    rows = queue.database.run(lambda c: c.execute(sa.text("SELECT inputs FROM workflow_input")).scalars().all())
    assert rows and all(row.startswith("{") for row in rows)


def test_a_database_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    database = open_jobs_database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")

    def work(connection: sa.Connection) -> None:
        raise sa.exc.OperationalError("x", {}, Exception())

    with pytest.raises(StorageUnavailable):
        database.run(work)
    with pytest.raises(StorageUnavailable):
        open_jobs_database("postgresql+psycopg://nobody@127.0.0.1:9/jobs")
    with pytest.raises(sa.exc.ProgrammingError):
        database.run(lambda c: (_ for _ in ()).throw(sa.exc.ProgrammingError("x", {}, Exception())))
    database.close()
