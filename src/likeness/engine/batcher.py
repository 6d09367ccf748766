"""Which requests join the batch at the next step: policy only, pure functions without clock, thread or tensor.

Across tenants: weighted fair queueing by a virtual token counter (Sheng et al. 2024, "Fairness in Serving Large
Language Models", algorithm 2; the tokens here are row-steps). The tenant with the least work so far is served first; a
tenant that returns starts at the level of the least served tenant that waits. Within a tenant: earliest deadline first.
Work is counted in rows of the base's square: a guided image is two, and one of twice the square's area four. Images of
different shapes take their steps in forwards of their own, all of them before the next step of any.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

PATIENCE_S = 60.0  # a request without a deadline is due after this long, so that later deadlines cannot starve it
SLOT_PATIENCE_S = 2.0  # how long a request may wait for an adapter slot before others stop to extend its wait
LONGEST_RETRY_S = 60.0
DOUBT = 0.15  # relative error that is expected of an estimated duration


class BatchRequest(Protocol):
    """What the planner reads of a request, waiting or running. Times are in seconds on the caller's clock."""

    @property
    def id(self) -> int: ...  # rising with arrival
    @property
    def tenant(self) -> str: ...
    @property
    def keys(self) -> Sequence[str]: ...  # of its adapters, all of which it needs at once; none = the bare base
    @property
    def rows(self) -> int: ...  # 1, guided 2; more if it is larger than the square
    @property
    def steps_left(self) -> int: ...
    @property
    def arrived_s(self) -> float: ...
    @property
    def deadline_s(self) -> float | None: ...


T = TypeVar("T", bound=BatchRequest)


def cost(request: BatchRequest) -> int:
    """Row-steps that are still to be computed."""
    return request.rows * request.steps_left


@dataclass(frozen=True)
class Shares:
    """Row-steps that each tenant was given so far, above a common floor."""

    given: Mapping[str, float] = field(default_factory=dict)
    floor: float = 0.0

    def of(self, tenant: str) -> float:
        return max(self.given.get(tenant, 0.0), self.floor)


@dataclass(frozen=True)
class Plan(Generic[T]):
    """What happens before the next step."""

    joins: tuple[T, ...]  # in the order they were chosen
    expired: tuple[T, ...]  # waiting or running, past their deadlines
    shares: Shares


def plan(
    waiting: Sequence[T], running: Sequence[T], shares: Shares, *,
    row_limit: int, slots: int, now_s: float, loading: Set[str] = frozenset(),
) -> Plan[T]:  # fmt: skip
    """Drop requests past their deadlines and fill the batch.

    The order is kept with these exceptions. A request with an adapter that is still loading is overtaken and keeps its
    turn. A request that waits for slots may be overtaken by requests that need no slot, and for `SLOT_PATIENCE_S` by
    any. After that, only by requests that will finish before the next slot is due to be freed (as in EASY
    backfilling: Lifka 1995, "The ANL/IBM SP Scheduling System"). A request that only waits for rows is not overtaken.

    Args:
        row_limit: rows in one step; a single request may exceed it, since it cannot be split.
        slots: adapters that can be in use at once.
        loading: keys of adapters that cannot be put into a slot yet.
    """
    alive = [one for one in waiting if not _is_late(one, now_s)]
    staying = [one for one in running if not _is_late(one, now_s)]
    queues = _by_tenant(one for one in alive if loading.isdisjoint(one.keys))
    given = {tenant: shares.of(tenant) for tenant in {one.tenant for one in alive}}
    rows = sum(one.rows for one in staying)
    busy_until = _steps_by_key(staying)  # key -> steps until its slot is free
    may_extend = True
    joins: list[T] = []
    while queues:
        tenant = min(queues, key=lambda name: (given[name], _due_s(queues[name][0]), queues[name][0].id))
        one = queues[tenant].pop(0)
        if not queues[tenant]:
            del queues[tenant]
        further = sum(key not in busy_until for key in one.keys)
        if further and len(busy_until) + further > slots:
            may_extend = may_extend and now_s - one.arrived_s < SLOT_PATIENCE_S
            continue
        if not may_extend and any(one.steps_left > busy_until.get(key, 0) for key in one.keys):
            continue
        if rows and rows + one.rows > row_limit:
            break
        rows += one.rows
        given[tenant] += cost(one)
        for key in one.keys:
            busy_until[key] = max(busy_until.get(key, 0), one.steps_left)
        joins.append(one)
    joined = {one.id for one in joins}
    left = {one.tenant for one in alive if one.id not in joined}
    expired = tuple(one for one in (*waiting, *running) if _is_late(one, now_s))
    return Plan(tuple(joins), expired, _settled(shares, given, left))


def expected_wait_s(ahead: Mapping[str, float], tenant: str, *, rate: float | None) -> float:
    """Seconds that a request would wait that arrives now, with a full batch; 0 until a throughput was measured.

    Ahead of it is all work or, if that is less, its own tenant's work times the number of tenants, since
    tenants take turns.

    Args:
        ahead: tenant -> row-steps that wait or run.
        rate: row-steps a second.
    """
    if not rate:
        return 0.0
    tenants = len(ahead.keys() | {tenant})
    return min(sum(ahead.values()), ahead.get(tenant, 0.0) * tenants) / rate


def is_out_of_reach(expected_s: float, allowed_s: float) -> bool:
    """Whether to refuse at once. Estimates err, and a request that expires half done has wasted the others' time."""
    return expected_s * (1 + DOUBT) > allowed_s


def retry_after_s(work: float, *, rate: float | None) -> float:
    """When half of `work` (row-steps) will be done: 1 to 60 seconds, 1 when no throughput was measured yet."""
    return min(max(work / 2 / rate, 1.0), LONGEST_RETRY_S) if rate else 1.0


@dataclass(frozen=True)
class RowLimit:
    """How many rows go into one forward: halved when memory runs out, then raised slowly again.

    Additive increase, multiplicative decrease, as TCP's window (Jacobson 1988), since memory that another program took
    may be free again later.
    """

    most: int
    now: int
    calm: int = 0  # steps since the last change

    CALM_STEPS = 200

    def halved(self, rows: int) -> "RowLimit":
        """After `rows` rows did not fit. An image of more rows than the limit may fail without lowering it."""
        return replace(self, now=max(1, min(self.now, rows // 2)), calm=0)

    def after_step(self) -> "RowLimit":
        """After a step that went well."""
        if self.now == self.most:
            return self
        if self.calm + 1 < self.CALM_STEPS:
            return replace(self, calm=self.calm + 1)
        return replace(self, now=self.now + 1, calm=0)


def rows_that_fit(free_bytes: int, bytes_per_row: float, *, most: int, share: float = 0.9) -> int:
    """The measured limit: rows whose activations fit into `share` of the free memory, at least 1, at most `most`."""
    return most if bytes_per_row <= 0 else max(1, min(most, int(free_bytes * share / bytes_per_row)))


def parts_of(rows: Sequence[int], limit: int) -> list[slice]:
    """Cut a batch into runs of at most `limit` rows each; a single larger entry is a part of its own."""
    parts, start, held = [], 0, 0
    for i, count in enumerate(rows):
        if held and held + count > limit:
            parts.append(slice(start, i))
            start, held = i, 0
        held += count
    if held:
        parts.append(slice(start, len(rows)))
    return parts


def _is_late(one: BatchRequest, now_s: float) -> bool:
    return one.deadline_s is not None and one.deadline_s <= now_s


def _due_s(one: BatchRequest) -> float:
    return one.arrived_s + PATIENCE_S if one.deadline_s is None else one.deadline_s


def _by_tenant(ready: Iterable[T]) -> dict[str, list[T]]:
    """Each tenant's requests, the one that is due first in front."""
    queues: dict[str, list[T]] = {}
    for one in sorted(ready, key=lambda one: (_due_s(one), one.id)):
        queues.setdefault(one.tenant, []).append(one)
    return queues


def _steps_by_key(running: Iterable[BatchRequest]) -> dict[str, int]:
    longest: dict[str, int] = {}
    for one in running:
        for key in one.keys:
            longest[key] = max(longest.get(key, 0), one.steps_left)
    return longest


def _settled(shares: Shares, given: Mapping[str, float], left: set[str]) -> Shares:
    """Raise the floor to the least share of the tenants that still wait; shares at or below it are dropped.

    When no request waits all shares are dropped: there was enough for all.
    """
    if not left:
        return Shares()
    every = {**shares.given, **given}
    floor = max(shares.floor, min(every.get(tenant, 0.0) for tenant in left))
    return Shares({tenant: each for tenant, each in every.items() if each > floor}, floor)
