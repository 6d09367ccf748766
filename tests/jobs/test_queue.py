"""The queue without a worker: what submit, status, list and cancel promise."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from likeness.errors import (
    AdapterBusy,
    AlreadyExists,
    NotFound,
    QueueFull,
    StorageUnavailable,
    UsageError,
)
from likeness.jobs import queue as queue_module
from likeness.jobs.job import Failure, Job, JobOrder
from likeness.jobs.queue import Queue
from likeness.jobs.tables import jobs, open_jobs_database
from tests.worker.claims import claimed, next_claim, taken_over

Shelf = dict[tuple[str, str], str]


@pytest.fixture
def shelf() -> Shelf:
    """What is published: (tenant, name) -> content hash."""
    return {}


@pytest.fixture
def queue(tmp_path: Path, shelf: Shelf) -> Iterator[Queue]:
    made = Queue(
        open_jobs_database(f"sqlite:///{tmp_path / 'jobs.sqlite'}"), lambda tenant, name: shelf.get((tenant, name))
    )
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
    with pytest.raises(AlreadyExists) as refused:
        queue.submit(order("rex", seed=1), idempotency_key="k")
    assert refused.value.http_status == 409
    assert queue.submit(order("rex", tenant="ben"), idempotency_key="k").id != first.id
    queue.cancel(first.id, "anna")
    assert queue.submit(order("rex"), idempotency_key="k").state == "cancelled"  # still that job


def test_equal_submits_at_the_same_moment_get_the_same_answer(queue: Queue) -> None:
    """As from many servers: none sees the others' job before it writes its own."""
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: queue.submit(order("rex"), idempotency_key="k"), range(8)))
    assert {job.id for job in answers} == {queue.jobs_of("anna")[0].id}
    with pytest.raises(AlreadyExists):
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


def test_a_tenant_sees_nothing_of_anothers(queue: Queue) -> None:
    job = queue.submit(order("rex"))
    for ask in (queue.status, queue.cancel, queue.events):
        with pytest.raises(NotFound):
            ask(job.id, "ben")
    assert queue.jobs_of("ben") == []
    assert [found.id for found in queue.jobs_of("anna")] == [job.id]


def test_whoever_has_less_outstanding_goes_first(queue: Queue) -> None:
    hog = [queue.submit(order(f"hog-{i}", tenant="hog")) for i in range(4)]
    ann = [queue.submit(order(f"ann-{i}", tenant="ann")) for i in range(2)]
    in_turn = [hog[0], ann[0], hog[1], ann[1], hog[2], hog[3]]
    assert [queue.status(job.id, job.order.tenant).place_in_queue for job in in_turn] == [1, 2, 3, 4, 5, 6]
    queue.cancel(hog[0].id, "hog")
    assert queue.status(ann[0].id, "ann").place_in_queue == 1
    assert [claimed(queue.database).job for _ in range(5)] == [job.id for job in in_turn[1:]]
    assert next_claim(queue.database) is None


def test_one_open_job_a_name_and_no_taken_name_unless_said(queue: Queue, shelf: Shelf) -> None:
    job = queue.submit(order("rex"))
    with pytest.raises(AdapterBusy):
        queue.submit(order("rex", replace=True))
    queue.cancel(job.id, "anna")
    shelf["anna", "rex"] = "0" * 64
    with pytest.raises(AlreadyExists):
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
        {"name": "../rex"}, {"tenant": "An na"}, {"class_noun": " "}, {"seed": -1}, {"changes": {"steps": 0}},
        {"time_limit_s": 0}, {"time_limit_s": 10**6}, {"queue_limit_s": 0},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_before_it_waits(queue: Queue, changes: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        queue.submit(replace(order("rex"), **changes))  # type: ignore[arg-type]
    assert queue.backlog().open_jobs == 0


def test_a_cancelled_job_stays_cancelled_and_leaves_the_queue(queue: Queue) -> None:
    job = queue.submit(order("rex"))
    assert queue.cancel(job.id, "anna").state == "cancelled"
    assert queue.cancel(job.id, "anna").state == "cancelled"
    assert next_claim(queue.database) is None
    assert states(queue, job) == ["queued", "cancelled"]


def test_success_is_read_only_where_the_adapter_is(queue: Queue, shelf: Shelf) -> None:
    job = queue.submit(order("rex"))
    claim = claimed(queue.database)
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
        claim = claimed(queue.database)
        assert queue.store.publishes(claim, sha256)
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
        queue.submit(order(name, replace=True))
        claim = claimed(queue.database)
        assert queue.store.finish(claim, "succeeded", keep_photos_s=0)
    asked.clear()
    assert len(queue.jobs_of("anna")) == 3
    assert sorted(asked) == ["ida", "rex"]
    queue.close()


def test_a_later_claim_makes_an_earlier_one_worthless(queue: Queue) -> None:
    job = queue.submit(order("rex"))
    old, new = claimed(queue.database), taken_over(queue.database)
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
    assert claimed(queue.database).job == other.id and next_claim(queue.database) is None
    queue.store.expire()
    expired = queue.status(job.id, "anna")
    assert (expired.state, expired.failure and expired.failure.code) == ("expired", "Expired")
    assert queue.status(other.id, "anna").state == "running"


def test_a_cancel_is_refused_while_the_database_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likeness.jobs.store.REQUEST_PATIENCE_S", 0.0)
    database = open_jobs_database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    queue = Queue(database, lambda tenant, name: None)
    job = queue.submit(order("rex"))
    queue.close()
    (tmp_path / "jobs.sqlite").rename(tmp_path / "elsewhere")
    (tmp_path / "jobs.sqlite").mkdir()  # as a disk that went away
    with pytest.raises(StorageUnavailable):
        queue.cancel(job.id, "anna")
    queue.close()


def test_a_database_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable):
        open_jobs_database("postgresql+psycopg://nobody@127.0.0.1:9/jobs")
    database = open_jobs_database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    with pytest.raises(sa.exc.ProgrammingError):
        database.run(lambda c: (_ for _ in ()).throw(sa.exc.ProgrammingError("x", {}, Exception())))
    (tmp_path / "jobs.sqlite").unlink()
    (tmp_path / "jobs.sqlite").mkdir()  # as a disk that went away
    database.close()
    with pytest.raises(StorageUnavailable):
        database.run(lambda connection: connection.execute(sa.select(jobs)).all(), patience_s=0.2)
    database.close()
