"""Host memory: by bytes, least recently used first, what is wanted stays, one load for all who want."""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.waiting import HANG_S
from likeness.engine.host_cache import THREADS, HostCache
from likeness.engine.packed import Layout, PackedAdapter

SIZE = 400  # bytes of each adapter


class Owner:
    """The lock, the slots and the ears of a cache."""

    def __init__(self, *, room: int) -> None:
        self.changed = threading.Condition()
        self.active: set[str] = set()
        self.first: tuple[str, ...] = ()  # keys of the oldest request
        self.loads: Counter[str] = Counter()
        self.gates: defaultdict[str, threading.Event] = defaultdict(self._open_gate)
        self.cache = HostCache(
            self.load, self.locked, budget_bytes=room * SIZE, is_active=self.active.__contains__,
            first=lambda: self.first, failed=self.failed, loaded=lambda seconds: None,
        )  # fmt: skip

    @staticmethod
    def _open_gate() -> threading.Event:
        gate = threading.Event()
        gate.set()
        return gate

    @contextmanager
    def locked(self) -> Iterator[None]:
        with self.changed:
            yield
            self.changed.notify_all()

    def load(self, key: str) -> PackedAdapter:
        self.loads[key] += 1
        assert self.gates[key].wait(HANG_S)
        if key.startswith("bad"):
            raise ValueError(key)
        return PackedAdapter(key, 1.0, Layout((), 1), torch.zeros(SIZE // 4))

    def failed(self, key: str, error: Exception) -> None:
        self.cache.unwant(key)

    def want(self, *keys: str) -> None:
        with self.locked():
            for key in keys:
                self.cache.want(key)

    def unwant(self, *keys: str) -> None:
        with self.locked():
            for key in keys:
                self.cache.unwant(key)

    def wait_for(self, *keys: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: all(key in self.cache for key in keys), HANG_S)

    def fetched(self, *keys: str) -> None:
        """Wanted, loaded, and not wanted any more."""
        for key in keys:
            self.want(key)
            self.wait_for(key)
            self.unwant(key)


@pytest.fixture
def owner() -> Iterator[Owner]:
    owner = Owner(room=2)
    yield owner
    owner.cache.close()


def test_the_least_recently_used_leaves_first(owner: Owner) -> None:
    owner.fetched("a", "b")
    assert owner.cache.get("a") is not None
    owner.fetched("c")
    assert [key for key in "abc" if key in owner.cache] == ["a", "c"]
    assert (owner.cache.nbytes, owner.cache.evictions, len(owner.cache)) == (2 * SIZE, 1, 2)
    assert owner.cache.get("b") is None


def test_one_load_for_all_who_want(owner: Owner) -> None:
    owner.gates["a"] = threading.Event()
    owner.want("a", "a", "a")
    owner.gates["a"].set()
    owner.wait_for("a")
    owner.want("a")
    assert owner.loads["a"] == 1


def test_what_is_wanted_stays_and_the_next_waits_for_its_room(owner: Owner) -> None:
    keys = [f"k{i}" for i in range(THREADS + 4)]
    owner.want(*keys)
    with owner.changed:  # the first come, and those that were on their way before the room was taken
        assert owner.changed.wait_for(lambda: len(owner.cache) >= 2 and not owner.cache.loading, HANG_S)
    assert len(owner.cache) <= 2 + THREADS
    for key in keys:
        owner.wait_for(key)
        owner.unwant(key)
        with owner.locked():
            owner.cache.start_loads()
    assert owner.cache.nbytes <= 2 * SIZE
    assert set(owner.loads.values()) == {1}


def test_what_lies_in_a_slot_is_not_loaded_until_it_leaves(owner: Owner) -> None:
    owner.active.add("a")
    owner.want("a")
    assert owner.loads["a"] == 0
    owner.active.remove("a")
    with owner.locked():
        owner.cache.start_loads()
    owner.wait_for("a")


def test_a_failure_is_told_and_not_remembered(owner: Owner) -> None:
    owner.want("bad")
    with owner.changed:
        assert owner.changed.wait_for(lambda: not owner.cache.loading and owner.loads["bad"] == 1, HANG_S)
    owner.want("bad")
    with owner.changed:
        assert owner.changed.wait_for(lambda: owner.loads["bad"] == 2, HANG_S)


def test_what_is_forgotten_during_its_load_is_loaded_again(owner: Owner) -> None:
    owner.gates["a"] = threading.Event()
    owner.want("a")
    with owner.locked():
        owner.cache.forget("a")
    owner.gates["a"].set()
    owner.wait_for("a")
    assert owner.loads["a"] == 2
    with owner.locked():
        owner.cache.unwant("a")
        owner.cache.forget("a")
    assert (owner.cache.nbytes, len(owner.cache)) == (0, 0)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=25), st.integers(1, 4))
def test_the_budget_holds_whatever_is_asked(asks: list[tuple[str, bool]], room: int) -> None:
    owner = Owner(room=room)
    kept: set[str] = set()
    for key, keep in asks:
        owner.want(key)
        if len(kept) < room or key in kept:  # else it waits for room that nobody gives back here
            owner.wait_for(key)
        if keep and len(kept | {key}) < room:
            kept.add(key)
        else:
            owner.unwant(key)
        assert owner.cache.nbytes == SIZE * len(owner.cache)
        assert all(key in owner.cache for key in kept)
    owner.cache.close()
    with owner.locked():
        assert owner.cache.nbytes <= room * SIZE


def test_the_oldest_request_loads_all_its_adapters_whatever_the_budget() -> None:
    """Else two requests with one of two adapters each in memory would wait for one another."""
    owner = Owner(room=1)
    try:
        owner.want("c")
        owner.wait_for("c")
        owner.want("d")
        assert (owner.cache.loading, owner.loads["d"]) == (0, 0)
        owner.first = ("a", "b")
        owner.want("a", "b")
        owner.wait_for("a", "b")
        assert owner.loads["d"] == 0
    finally:
        owner.cache.close()
