"""Who is dead, whatever becomes of the clock that the beats are written with."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from likeness.jobs.liveness import Beat, Observer

LEASE_S, HOUR_S = 10.0, 3600.0


class World:
    """Workers that beat every 5 s of real time, on a database whose clock may be set."""

    def __init__(self) -> None:
        self.real_s, self.offset_s = 1000.0, 1e9
        self.beats: dict[str, float] = {}

    @property
    def now_s(self) -> float:
        return self.real_s + self.offset_s

    def beat(self, *workers: str) -> None:
        self.beats |= dict.fromkeys(workers, self.now_s)

    def observer(self) -> Callable[[], list[str]]:
        made = Observer(clock=lambda: self.real_s)
        return lambda: made.dead([Beat(id, "b", beat_s, LEASE_S) for id, beat_s in self.beats.items()], self.now_s)


@pytest.fixture
def world() -> World:
    return World()


def test_a_beat_from_the_future_is_no_beat(world: World) -> None:
    world.beat("future")
    world.offset_s -= HOUR_S
    world.beat("now")
    assert world.observer()() == ["future"]


def test_a_silent_worker_is_dead_after_its_lease_and_one_that_ended_in_order_at_once(world: World) -> None:
    world.beat("w")
    dead = world.observer()
    world.real_s += LEASE_S - 1
    assert dead() == []
    world.real_s += 2
    assert dead() == ["w"]
    world.beats["w"] = 0.0
    assert world.observer()() == ["w"]


@pytest.mark.parametrize("jump_s", [-HOUR_S, -LEASE_S / 2, LEASE_S / 2, HOUR_S])
def test_a_clock_that_is_set_kills_nobody_alive_and_keeps_nobody_dead(world: World, jump_s: float) -> None:
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
def test_whoever_is_seen_to_beat_within_the_lease_lives_and_nobody_else(
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
