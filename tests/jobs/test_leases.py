"""Leases: a worker that renews its leases keeps its jobs, and one that does not loses them, whatever the clocks do."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from fixtures.waiting import until
from likeness.errors import StorageUnavailable
from likeness.jobs.job import JobOrder
from likeness.jobs.leases import FORGOTTEN_AFTER_S, MOST_TAKEOVERS, Lease, LeaseObserver, Leases
from likeness.jobs.queue import Queue
from likeness.jobs.tables import jobs, workers
from likeness.worker.worker import renew_until
from tests.worker.claims import claimed, next_claim, set_lease

LEASE_S, HOUR_S = 10.0, 3600.0


class World:
    """Workers of one job each, with a heartbeat every 5 s of real time, on a database whose clock may be set."""

    def __init__(self) -> None:
        self.real_s, self.offset_s = 1000.0, 1e9
        self.beats: dict[str, float] = {}

    @property
    def now_s(self) -> float:
        return self.real_s + self.offset_s

    def beat(self, *workers: str) -> None:
        self.beats |= dict.fromkeys(workers, self.now_s)

    def observer(self) -> Callable[[], list[str]]:
        made = LeaseObserver(clock=lambda: self.real_s)

        def expired() -> list[str]:
            leases = [Lease(id, 1, beat_s + LEASE_S, LEASE_S) for id, beat_s in self.beats.items()]
            return [lease.job for lease in made.expired(leases, self.now_s)]

        return expired


@pytest.fixture
def world() -> World:
    return World()


def test_a_lease_from_the_future_has_expired(world: World) -> None:
    world.beat("future")
    world.offset_s -= HOUR_S
    world.beat("now")
    assert world.observer()() == ["future"]


def test_a_lease_that_is_not_renewed_expires(world: World) -> None:
    world.beat("w")
    dead = world.observer()
    world.real_s += LEASE_S - 1
    assert dead() == []
    world.real_s += 2
    assert dead() == ["w"]
    assert world.observer()() == ["w"]  # at the first look


@pytest.mark.parametrize("jump_s", [-HOUR_S, -LEASE_S / 2, LEASE_S / 2, HOUR_S])
def test_a_clock_that_is_set_ends_no_renewed_lease_and_keeps_none_that_is_not(world: World, jump_s: float) -> None:
    dead = world.observer()
    for _ in range(3):
        world.beat("alive", "dying")
        assert dead() == []
        world.real_s += 5.0
    world.offset_s += jump_s
    assert dead() == []  # their next beats are not due yet
    for _ in range(4):
        world.beat("alive")
        found = dead()
        world.real_s += 5.0
    assert found == ["dying"]


@given(steps=st.lists(st.tuples(st.sampled_from([0.0, 0.0, -HOUR_S, HOUR_S, -7.0, 7.0]), st.booleans()), max_size=30))
def test_a_lease_that_is_seen_to_be_renewed_within_its_length_lasts_and_no_other(
    steps: list[tuple[float, bool]],
) -> None:
    world = World()
    world.beat("w", "always")
    dead, last_s = world.observer(), world.real_s
    dead()
    for jump_s, beats in steps:
        world.real_s += 1.0
        world.offset_s += jump_s
        world.beat("always")
        if beats:
            world.beat("w")
            last_s = world.real_s
        found = dead()
        assert "always" not in found
        if world.real_s - last_s > LEASE_S:
            assert found == ["w"]
        elif last_s > 1000.0:
            assert found == []


# in the database

BEAT_S = 0.2


def leases(queue: Queue, worker: str) -> Leases:
    made = Leases(queue.database, worker, beat_s=BEAT_S)
    made.register()
    return made


def submitted(queue: Queue, name: str = "rex") -> str:
    return queue.submit(JobOrder("anna", name, "anna/x")).id


def kinds(queue: Queue, job: str) -> list[str]:
    return [event.kind for event in queue.events(job, "anna")]


def test_only_an_expired_lease_is_taken_over(queue: Queue) -> None:
    taken = {name: submitted(queue, name) for name in ("silent", "alive")}
    silent, alive, other = (leases(queue, worker) for worker in ("silent", "alive", "other"))
    claims = {one.worker: one.claim() for one in (silent, alive)}
    found = []

    def turn() -> bool:
        for one in (alive, other):
            one.renew()
        claim = other.claim()
        found.extend([] if claim is None else [claim])
        return bool(found)

    until(turn)
    assert (found[0].job, found[0].worker, found[0].attempt) == (taken["silent"], "other", 2)
    for _ in range(4):
        turn()
    assert len(found) == 1
    store = queue.store
    assert claims["silent"] is not None and claims["alive"] is not None
    assert not store.holds(claims["silent"]) and store.holds(claims["alive"]) and store.holds(found[0])
    assert kinds(queue, taken["silent"]) == ["state", "state", "taken over"]
    silent.renew()  # awake again: it renews nothing that is another's
    silent.release(claims["silent"])
    assert not silent.is_replaced and store.holds(found[0])
    assert next_claim(queue.database) is None


def test_after_an_interruption_a_worker_takes_nothing_over_for_a_lease(queue: Queue) -> None:
    submitted(queue)
    leases(queue, "silent").claim()
    other = leases(queue, "other")

    def may_take() -> bool:
        other.renew()
        return other.claim() is not None

    set_lease(queue.database, 1.0)
    assert other.claim() is None  # it has just started
    other.interrupted()
    assert not may_take()
    until(may_take)


def test_a_worker_that_starts_again_takes_its_jobs_up_at_once_and_ends_its_earlier_self(queue: Queue) -> None:
    job = submitted(queue)
    earlier = leases(queue, "w-0")
    first = earlier.claim()
    again = leases(queue, "w-0")
    second = again.claim()
    assert first is not None and second is not None
    assert (second.job, second.attempt) == (job, 2)
    earlier.renew()
    again.renew()
    assert earlier.is_replaced and not again.is_replaced
    assert not queue.store.holds(first)


def test_a_released_job_is_taken_up_by_the_next_worker(queue: Queue) -> None:
    submitted(queue)
    first = leases(queue, "w-0")
    claim = first.claim()
    assert claim is not None and next_claim(queue.database) is None
    first.release(claim)
    assert claimed(queue.database, "w-1").attempt == 2


def test_a_lease_that_was_abandoned_is_taken_over_by_the_same_worker_too(queue: Queue) -> None:
    submitted(queue)
    one = leases(queue, "w-0")
    claim = one.claim()
    assert claim is not None
    one.abandon(claim)

    def turn() -> bool:
        one.renew()
        return one.claim() is not None

    until(turn)


def test_a_job_whose_workers_all_died_ends(queue: Queue) -> None:
    job = submitted(queue)
    claimed(queue.database)
    queue.database.run(lambda c: c.execute(jobs.update().values(takeovers=MOST_TAKEOVERS)))
    other = leases(queue, "other")

    def turn() -> bool:
        set_lease(queue.database, 1.0)
        other.renew()
        assert other.claim() is None
        return queue.status(job, "anna").is_over

    until(turn)
    failure = queue.status(job, "anna").failure
    assert failure is not None and failure.code == "PoisonJob"


def test_a_worker_without_a_heartbeat_for_a_day_is_forgotten(queue: Queue) -> None:
    def silent_for(connection: sa.Connection) -> None:
        for worker, silent_s in {"yesterday": FORGOTTEN_AFTER_S + 60.0, "a minute ago": 60.0, "ahead": -3547.0}.items():
            beat_s = queue.database.now - silent_s
            row = workers.insert().values(id=worker, boot="b", beat_s=beat_s, lease_s=10.0, concurrency=1)
            connection.execute(row)

    queue.database.run(silent_for)
    one = leases(queue, "w-0")
    assert queue.backlog().workers == 1
    one.drop_old_workers()
    left = queue.database.run(lambda c: c.execute(sa.select(workers.c.id)).scalars().all())
    assert set(left) == {"a minute ago", "ahead", "w-0"}
    one.unregister()
    assert queue.backlog().workers == 0


def test_a_heartbeat_that_fails_is_not_the_last(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    one, stop = leases(queue, "w-0"), threading.Event()
    one.beat_s = 0.01
    errors: list[Exception] = [KeyError("x"), StorageUnavailable("away"), ZeroDivisionError()]
    run = queue.database.run

    def failing(*given: Any, **named: Any) -> Any:
        if errors:
            raise errors.pop()
        return run(*given, **named)

    monkeypatch.setattr(queue.database, "run", failing)
    renew_until(stop, one, renewed=stop.set)
    assert stop.is_set() and not errors
