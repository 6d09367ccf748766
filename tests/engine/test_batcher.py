"""The policy: literal tables, and what must hold for any traffic."""

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.engine.batcher import (
    PATIENCE_S,
    SLOT_PATIENCE_S,
    Plan,
    RowLimit,
    Shares,
    cost,
    expected_wait_s,
    is_out_of_reach,
    parts_of,
    plan,
    retry_after_s,
    rows_that_fit,
)


@dataclass(frozen=True)
class Asked:
    """A request as the planner reads it."""

    id: int
    tenant: str = "t"
    keys: tuple[str, ...] = ()
    rows: int = 2
    steps_left: int = 10
    arrived_s: float = 0.0
    deadline_s: float | None = None


def waits(id: int, tenant: str = "t", key: str | None = None, **changes: object) -> Asked:
    """`key`: a letter for each adapter."""
    return replace(Asked(id, tenant, tuple(key or "")), **changes)  # type: ignore[arg-type]


def runs(id: int, key: str | None = None, **changes: object) -> Asked:
    return replace(Asked(id, keys=tuple(key or ""), steps_left=5), **changes)  # type: ignore[arg-type]


def ids(requests: Sequence[Asked]) -> list[int]:
    return [one.id for one in requests]


def joined(
    waiting: list[Asked], running: list[Asked] = [], *,  # noqa: B006
    row_limit: int = 8, slots: int = 4, now_s: float = 0.0, loading: Set[str] = frozenset(),
) -> list[int]:  # fmt: skip
    return ids(plan(waiting, running, Shares(), row_limit=row_limit, slots=slots, now_s=now_s, loading=loading).joins)


@pytest.mark.parametrize(
    ("what", "waiting", "running", "row_limit", "expected"),
    [
        ("first come first served", [waits(1), waits(2)], [], 8, [1, 2]),
        ("a guided request is two rows", [waits(1), waits(2), waits(3)], [], 5, [1, 2]),
        ("one that is not guided is one", [waits(1), waits(2, rows=1), waits(3, rows=1)], [], 4, [1, 2, 3]),
        ("nobody passes one that lacks rows", [waits(1), waits(2, rows=1)], [runs(9)], 3, []),
        ("those who run keep their rows", [waits(1)], [runs(8), runs(9)], 4, []),
        ("a request larger than the limit runs alone", [waits(1), waits(2)], [], 1, [1]),
        ("who loads is passed", [waits(1, key="z"), waits(2, key="b")], [], 8, [2]),
        ("earliest deadline first", [waits(1), waits(2, deadline_s=9.0), waits(3, deadline_s=5.0)], [], 8, [3, 2, 1]),
        ("no deadline is a late one", [waits(1), waits(2, deadline_s=PATIENCE_S + 1)], [], 8, [1, 2]),
        ("tenants take turns", [waits(1, "a"), waits(2, "a"), waits(3, "b")], [], 4, [1, 3]),
        ("by work", [waits(1, "a", steps_left=99), waits(2, "a"), waits(3, "b"), waits(4, "b")], [], 6, [1, 3, 4]),
    ],
)  # fmt: skip
def test_who_joins(what: str, waiting: list[Asked], running: list[Asked], row_limit: int, expected: list[int]) -> None:
    assert joined(waiting, running, row_limit=row_limit, loading={"z"}) == expected, what


@pytest.mark.parametrize(
    ("what", "waiting", "running", "now_s", "expected"),
    [
        ("a key that runs needs no further slot", [waits(1, key="a")], [runs(9, "a")], 0.0, [1]),
        ("without a slot one waits and is passed", [waits(1, key="b"), waits(2, key="a")], [runs(9, "a")], 0, [2]),
        ("but not for long", [waits(1, key="b"), waits(2, key="a")], [runs(9, "a")], SLOT_PATIENCE_S, []),
        ("unless no longer", [waits(1, key="b"), waits(2, key="a", steps_left=5)], [runs(9, "a")], 2.0, [2]),
        ("the bare base needs no slot", [waits(1, key="b"), waits(2)], [runs(9, "a")], SLOT_PATIENCE_S, [2]),
        ("more adapters than slots never join", [waits(1, key="ab"), waits(2, key="a")], [], 0.0, [2]),
        ("two new keys need two", [waits(1, key="a"), waits(2, key="b"), waits(3, key="a")], [], 0.0, [1, 3]),
    ],
)  # fmt: skip
def test_one_slot(what: str, waiting: list[Asked], running: list[Asked], now_s: float, expected: list[int]) -> None:
    assert joined(waiting, running, slots=1, now_s=now_s) == expected, what


def test_what_is_too_late_leaves_and_frees_its_rows() -> None:
    now = plan(
        [waits(1, deadline_s=3.0), waits(2)], [runs(7, deadline_s=2.9), runs(8, deadline_s=3.1)],
        Shares(), row_limit=4, slots=1, now_s=3.0,
    )  # fmt: skip
    assert (ids(now.expired), ids(now.joins)) == ([1, 7], [2])


def test_a_tenant_that_comes_back_is_not_owed_the_time_it_was_away() -> None:
    shares = Shares()
    for k in range(5):
        shares = plan([waits(k, "a"), waits(99, "a")], [], shares, row_limit=2, slots=1, now_s=0.0).shares
    assert shares.of("a") == shares.of("b") == 100.0  # b is lifted to the least served of those who wait
    order: list[str] = []
    waiting = [*(waits(k, "a") for k in range(4)), *(waits(10 + k, "b") for k in range(4))]
    while waiting:
        now = plan(waiting, [], shares, row_limit=2, slots=1, now_s=0.0)
        shares = now.shares
        order += [one.tenant for one in waiting if one in now.joins]
        waiting = [one for one in waiting if one not in now.joins]
    assert abs(order[:6].count("a") - 3) <= 1


def test_nobody_waits_and_the_past_is_forgotten() -> None:
    now = plan([waits(1, "a")], [], Shares({"a": 70.0, "b": 80.0}, 60.0), row_limit=8, slots=1, now_s=0.0)
    assert (ids(now.joins), now.shares) == ([1], Shares())


def test_a_deadline_is_out_of_reach_when_the_estimate_with_its_doubt_passes_it() -> None:
    assert not is_out_of_reach(8.0, 10.0)
    assert is_out_of_reach(9.5, 10.0)
    assert not is_out_of_reach(0.0, 0.1)


def test_expected_wait() -> None:
    assert expected_wait_s({"a": 900.0}, "a", rate=None) == 0.0
    assert expected_wait_s({}, "a", rate=30.0) == 0.0
    assert expected_wait_s({"a": 900.0}, "a", rate=30.0) == 30.0
    assert expected_wait_s({"a": 900.0, "b": 60.0}, "b", rate=30.0) == 4.0  # they take turns


def test_retry_after() -> None:
    assert retry_after_s(900.0, rate=None) == 1.0
    assert retry_after_s(900.0, rate=30.0) == 15.0
    assert retry_after_s(9e9, rate=30.0) == 60.0


def test_rows_that_fit() -> None:
    assert rows_that_fit(1000, 100.0, most=64) == 9
    assert rows_that_fit(1000, 100.0, most=4) == 4
    assert rows_that_fit(10, 100.0, most=4) == 1
    assert rows_that_fit(10, 0.0, most=4) == 4


def test_the_row_limit_falls_by_half_and_comes_back_slowly() -> None:
    limit = RowLimit(16, 16).halved(10)
    assert limit.now == 5
    steps = 0
    while limit.now < 16:
        limit, steps = limit.after_step(), steps + 1
    assert steps == 11 * RowLimit.CALM_STEPS
    assert limit.after_step() == limit
    assert RowLimit(16, 1).halved(1).now == 1


def test_an_image_larger_than_the_limit_that_never_fits_costs_the_others_no_rows() -> None:
    limit = RowLimit(16, 16)
    for _ in range(5):
        limit = limit.halved(32)
    assert limit.now == 16


@given(st.lists(st.integers(1, 2), max_size=30), st.integers(1, 9))
def test_parts_cover_all_and_none_is_too_large(rows: list[int], limit: int) -> None:
    parts = parts_of(rows, limit)
    assert [i for part in parts for i in range(len(rows))[part]] == list(range(len(rows)))
    assert all(sum(rows[part]) <= limit or len(rows[part]) == 1 for part in parts)
    assert all(sum(rows[one]) + rows[next.start] > limit for one, next in pairwise(parts))


KEYS = st.sampled_from(["", "a", "b", "c", "d"]).map(tuple)
BLENDS = st.sampled_from(["", "a", "b", "c", "d", "ab", "bc", "dca"]).map(tuple)
REQUESTS = st.builds(
    Asked, st.just(0), st.sampled_from("xyz"), BLENDS, st.integers(1, 2), st.integers(1, 50),
    st.floats(0, 100), st.none() | st.floats(50, 200),
)  # fmt: skip


@given(
    st.lists(REQUESTS, max_size=20), st.lists(REQUESTS, max_size=5), st.integers(1, 12), st.integers(1, 5),
    st.dictionaries(st.sampled_from("xyz"), st.floats(0, 1e6)), st.floats(0, 200), st.sets(st.sampled_from("abcd")),
)  # fmt: skip
def test_every_plan_keeps_the_limits(
    waiting: list[Asked], running: list[Asked], row_limit: int, slots: int, given_: dict[str, float], now_s: float,
    loading: set[str],
) -> None:  # fmt: skip
    fitting = [one for one in waiting if len(one.keys) <= slots]  # the queue refuses others
    waiting = [replace(one, id=k) for k, one in enumerate(fitting)]
    running = [replace(one, id=100 + k) for k, one in enumerate(running)]
    now: Plan[Asked] = plan(
        waiting, running, Shares(given_), row_limit=row_limit, slots=slots, now_s=now_s, loading=loading
    )
    every: list[Asked] = [*waiting, *running]
    late = {one.id for one in every if one.deadline_s is not None and one.deadline_s <= now_s}
    assert set(ids(now.expired)) == late
    joins = list(now.joins)
    staying = [one for one in running if one.id not in late]
    assert not late & set(ids(joins)) and len(set(ids(joins))) == len(joins)
    assert all(one in waiting and loading.isdisjoint(one.keys) for one in joins)
    if joins:
        assert sum(one.rows for one in staying) + sum(one.rows for one in joins) <= max(row_limit, joins[0].rows)
    used = {key for one in staying for key in one.keys}
    assert len(used | {key for one in joins for key in one.keys}) <= max(slots, len(used))
    if not staying and any(loading.isdisjoint(one.keys) and one.id not in late for one in waiting):
        assert joins  # an idle device takes something
    waited = {one.tenant for one in waiting if one.id not in late | set(ids(joins))}
    assert all(now.shares.of(tenant) >= given_.get(tenant, 0.0) for tenant in waited)


@given(
    st.lists(st.tuples(st.sampled_from("xy"), BLENDS, st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=30),
    st.integers(2, 6), st.integers(3, 4),
)  # fmt: skip
def test_everybody_is_served_while_another_tenant_never_stops(
    asked: list[tuple[str, tuple[str, ...], int, int]], row_limit: int, slots: int
) -> None:
    """The tenant 'flood' always has four requests waiting, of two adapters that are always loaded.

    Some of the others are of large images: more rows than the limit.
    """
    waiting = [Asked(k, tenant, key, rows, steps) for k, (tenant, key, rows, steps) in enumerate(asked)]
    running: list[Asked] = []
    shares, next_id = Shares(), 1000
    ours = {one.id for one in waiting}
    for now_s in range(3000):
        if not ours:
            return
        while sum(one.tenant == "flood" for one in waiting) < 4:
            waiting.append(Asked(next_id, "flood", ("ef"[next_id % 2],), 2, 8, float(now_s)))
            next_id += 1
        now = plan(waiting, running, shares, row_limit=row_limit, slots=slots, now_s=float(now_s))
        shares = now.shares
        running += now.joins
        waiting = [one for one in waiting if one not in now.joins]
        ours -= set(ids(now.joins))
        running = [replace(one, steps_left=one.steps_left - 1) for one in running if one.steps_left > 1]
    pytest.fail(f"{len(ours)} requests starved")


COST = st.tuples(st.integers(1, 2), st.integers(1, 30))


@settings(max_examples=20)
@given(st.dictionaries(st.sampled_from("abcd"), COST, min_size=2))
def test_tenants_that_always_wait_get_equal_work(costs: dict[str, tuple[int, int]]) -> None:
    served: Counter[str] = Counter()
    waiting: list[Asked] = []
    running: list[Asked] = []
    shares, next_id = Shares(), 0
    for _ in range(150):
        for tenant, (rows, steps) in costs.items():
            while sum(one.tenant == tenant for one in waiting) < 9:  # more than one plan can take
                waiting.append(Asked(next_id, tenant, (), rows, steps))
                next_id += 1
        now = plan(waiting, running, shares, row_limit=8, slots=1, now_s=0.0)
        shares = now.shares
        for one in now.joins:
            served[one.tenant] += cost(one)
        running += now.joins
        waiting = [one for one in waiting if one not in now.joins]
        running = [replace(one, steps_left=one.steps_left - 1) for one in running if one.steps_left > 1]
    largest = max(rows * steps for rows, steps in costs.values())
    assert max(served.values()) - min(served.values()) <= 2 * largest  # Sheng et al. 2024, theorem 4.4
