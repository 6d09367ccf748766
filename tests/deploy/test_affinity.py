"""The routing of a cluster: literal tables, and what must hold for any replicas, adapters and loads."""

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cluster_simulation import LARGEST, POLICIES, moved_share, simulate, traffic
from likeness.deploy.affinity import (
    FACTOR,
    ROOM,
    choose,
    limit_of,
    may_retry,
    place,
    ring_of,
    wanted_replicas,
)

NAMES = [f"replica-{k}" for k in range(10)]
RING = ring_of(NAMES)
ADAPTERS = [place(f"local/person-{k}/ab") for k in range(3000)]


def test_a_place_is_the_same_in_every_process() -> None:
    assert place("local/anna/ab12") == 7098608720899500367


@pytest.mark.parametrize(
    ("total", "replicas", "expected"),
    [(1, 4, ROOM), (26, 4, ROOM), (40, 4, 12), (41, 4, 13), (100, 10, 12), (0, 1, ROOM)],
)
def test_limit(total: float, replicas: int, expected: int) -> None:
    assert limit_of(total, replicas) == expected


@pytest.mark.parametrize(
    ("started", "tries", "expected"), [(False, 1, True), (False, 5, True), (True, 1, True), (True, 2, False)]
)
def test_retries(started: bool, tries: int, expected: bool) -> None:
    assert may_retry(started, tries) is expected


@pytest.mark.parametrize(
    ("total", "replicas", "expected"),
    [(0, 3, 1), (80, 10, 10), (81, 10, 11), (64, 10, 10), (63, 10, 10), (57, 10, 10), (10_000, 10, 50), (56, 10, 7)],
)
def test_replicas_follow_the_load_with_a_dead_zone(total: float, replicas: int, expected: int) -> None:
    assert wanted_replicas(total, replicas, target=8, least=1, most=50) == expected


def test_an_adapter_stays_while_its_replica_has_room_and_then_goes_to_the_neighbour() -> None:
    first, second, third = islice(RING.clockwise(ADAPTERS[0]), 3)
    full = dict.fromkeys(NAMES, 12)
    assert choose(RING, ADAPTERS[0], {}, 0) == first
    assert choose(RING, ADAPTERS[0], full, 120) == first  # the limit is 15
    assert choose(RING, ADAPTERS[0], full | {first: 20}, 128) == second  # 16
    assert choose(RING, ADAPTERS[0], full | {first: 20, second: 20}, 136) == third  # 17


def test_a_popular_adapter_spreads() -> None:
    loads: Counter[str] = Counter()
    for k in range(100):
        chosen = choose(RING, ADAPTERS[0], loads, k)
        assert chosen is not None
        loads[chosen] += 1
    assert len(loads) >= 8 and max(loads.values()) <= FACTOR * 10 + 1


def test_without_replicas_there_is_none_and_the_bare_base_goes_to_the_least_loaded() -> None:
    assert choose(ring_of([]), ADAPTERS[0], {}, 0) is choose(ring_of([]), None, {}, 0) is None
    assert choose(RING, None, {name: 1.0 for name in NAMES if name != "replica-7"}, 9) == "replica-7"


@pytest.mark.parametrize("change", ["leaves", "joins"])
def test_only_the_share_of_one_replica_moves(change: str) -> None:
    less = ring_of(NAMES[:-1])
    before, after = (RING, less) if change == "leaves" else (less, RING)
    homes = [(choose(before, point, {}, 0), choose(after, point, {}, 0)) for point in ADAPTERS]
    moved = [(old, new) for old, new in homes if old != new]
    changed = NAMES[-1]
    assert all(changed in pair for pair in moved)  # no adapter moves between two replicas that stay
    assert 0.5 / 10 < len(moved) / len(ADAPTERS) < 2 / 10


def test_a_ring_that_changed_is_the_ring_of_its_replicas() -> None:
    assert ring_of(NAMES[2:], before=ring_of(NAMES[:5])) == ring_of(NAMES[2:])
    assert ring_of([], before=RING) == ring_of([])


LOADS = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 50))


@given(replicas=st.sets(st.sampled_from(NAMES), min_size=1), loads=LOADS, point=st.integers(0, 2**64 - 1))
def test_there_is_always_a_replica_and_it_has_room(replicas: set[str], loads: dict[str, int], point: int) -> None:
    mine = {name: load for name, load in loads.items() if name in replicas}
    total = sum(mine.values())
    ring = ring_of(replicas)
    chosen = choose(ring, point, mine, total)
    assert chosen in replicas
    assert mine.get(chosen, 0) < limit_of(total + 1, len(replicas))
    before = list(ring.clockwise(point))
    assert sorted(before) == sorted(replicas)
    for name in before[: before.index(chosen)]:
        assert mine.get(name, 0) >= limit_of(total + 1, len(replicas))


@given(asked=st.lists(st.integers(0, 5), max_size=200), replicas=st.integers(1, 10))
def test_no_load_exceeds_the_bound(asked: list[int], replicas: int) -> None:
    ring, loads = ring_of(NAMES[:replicas]), Counter[str]()
    for k, adapter in enumerate(asked):
        chosen = choose(ring, ADAPTERS[adapter], loads, k)
        assert chosen is not None
        loads[chosen] += 1
    assert max(loads.values(), default=0) <= limit_of(len(asked), replicas)


def test_a_small_cluster_is_simulated_with_these_functions() -> None:
    """The rehearsal of bench.cluster_simulation: kills, replacements and growth on a few replicas."""
    points = [place(f"tenant/person-{k}") for k in range(500)]
    asked = traffic(replicas=10, adapters=500, requests=3000)
    rows = {name: simulate(name, asked, points, replicas=10)[0] for name in POLICIES}
    assert all(row["lost"] == 0 and row["sent again"] for row in rows.values())
    warm = {name: float(str(row["warm %"])) for name, row in rows.items()}
    assert warm["affinity"] > 85 > max(warm["random"], warm["least loaded"]) + 10
    assert float(str(rows["affinity"][LARGEST])) < 1.4
    assert simulate("affinity", asked, points, replicas=10)[0] == rows["affinity"]
    assert 0 < moved_share(10, points) < 20
