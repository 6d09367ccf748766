"""Who joins the batch at the next step: policy only, pure functions over frozen values.

Between tenants: whoever was given the least work goes first, and a tenant that comes back is lifted to the level of
those who wait (virtual token counter: Sheng et al. 2024, "Fairness in Serving Large Language Models", algorithm 2;
the tokens here are row-steps). Within a tenant: earliest deadline first. Work is counted in rows: a guided picture is
two. Knows no clock, no thread and no tensor.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

PATIENCE_S = 60.0  # a request without a deadline is due after this long, so that later deadlines cannot starve it
SLOT_PATIENCE_S = 2.0  # after this long without a free slot, nobody may keep one occupied for longer
LONGEST_RETRY_S = 60.0
DOUBT = 0.15  # share by which a picture may take longer than expected


@dataclass(frozen=True)
class Waiting:
    """A request in the queue. Times in seconds on the caller's clock."""

    id: int  # rising with arrival
    tenant: str
    key: str | None  # of its adapter; None = the bare base
    rows: int  # 1, guided 2
    steps: int
    arrived_s: float
    deadline_s: float | None = None
    is_ready: bool = True  # its adapter can be put into a slot now

    @property
    def due_s(self) -> float:
        return self.arrived_s + PATIENCE_S if self.deadline_s is None else self.deadline_s

    @property
    def cost(self) -> int:
        return self.rows * self.steps


@dataclass(frozen=True)
class Running:
    """A request in the batch."""

    id: int
    key: str | None
    rows: int
    steps_left: int
    deadline_s: float | None = None


@dataclass(frozen=True)
class Shares:
    """What each tenant was given so far, in row-steps, above a common floor."""

    given: Mapping[str, float] = field(default_factory=dict)
    floor: float = 0.0

    def of(self, tenant: str) -> float:
        return max(self.given.get(tenant, 0.0), self.floor)


@dataclass(frozen=True)
class Plan:
    """What happens before the next step."""

    joins: tuple[int, ...]  # ids, in the order they were chosen
    expired: tuple[int, ...]  # ids, waiting or running, whose deadline has passed
    shares: Shares


def plan(
    waiting: Sequence[Waiting], running: Sequence[Running], shares: Shares, *,
    row_limit: int, slots: int, now_s: float,
) -> Plan:  # fmt: skip
    """Drop what is too late and fill the batch.

    Nobody passes a request that only lacks rows. A request that lacks a slot is passed by those who need none, and
    for `SLOT_PATIENCE_S` by others; after that only by those who free their slot no later than it would be anyway.
    A request whose adapter is not ready is passed, and keeps its turn.

    Args:
        row_limit: rows in one forward; a single request may exceed it, since it cannot be split.
        slots: adapters that can be in use at once.
    """
    alive = [one for one in waiting if not _is_late(one.deadline_s, now_s)]
    staying = [one for one in running if not _is_late(one.deadline_s, now_s)]
    there = {one.id for one in waiting} | {one.id for one in running}
    expired = tuple(sorted(there - {one.id for one in alive} - {one.id for one in staying}))
    queues = _by_tenant(one for one in alive if one.is_ready)
    given = {tenant: shares.of(tenant) for tenant in {one.tenant for one in alive}}
    rows = sum(one.rows for one in staying)
    busy_until = _steps_by_key(staying)  # key -> steps until its slot is free
    may_extend = True
    joins: list[Waiting] = []
    while queues:
        tenant = min(queues, key=lambda name: (given[name], queues[name][0].due_s, queues[name][0].id))
        one = queues[tenant].pop(0)
        if not queues[tenant]:
            del queues[tenant]
        if one.key is not None:
            if one.key not in busy_until and len(busy_until) >= slots:
                may_extend = may_extend and now_s - one.arrived_s < SLOT_PATIENCE_S
                continue
            if not may_extend and one.steps > busy_until.get(one.key, 0):
                continue
        if rows and rows + one.rows > row_limit:
            break
        rows += one.rows
        given[tenant] += one.cost
        if one.key is not None:
            busy_until[one.key] = max(busy_until.get(one.key, 0), one.steps)
        joins.append(one)
    joined = {one.id for one in joins}
    left = {one.tenant for one in alive if one.id not in joined}
    return Plan(tuple(one.id for one in joins), expired, _settled(shares, given, left))


def expected_wait_s(ahead: Mapping[str, float], tenant: str, *, rate: float | None) -> float:
    """Seconds that a request waits that arrives now and finds the batch full; 0 when no throughput was measured yet.

    Before it goes all work there is, or, if that is less, its own tenant's once for each tenant (they take turns).

    Args:
        ahead: tenant -> row-steps that wait or run.
        rate: row-steps a second.
    """
    if not rate:
        return 0.0
    tenants = len(ahead.keys() | {tenant})
    return min(sum(ahead.values()), ahead.get(tenant, 0.0) * tenants) / rate


def is_out_of_reach(expected_s: float, allowed_s: float) -> bool:
    """Whether to refuse at the door: estimates err, and one that expires half done has cost others their time."""
    return expected_s * (1 + DOUBT) > allowed_s


def retry_after_s(work: float, *, rate: float | None) -> float:
    """When half of `work` (row-steps) will be done: 1 to 60 seconds, 1 when no throughput was measured yet."""
    return min(max(work / 2 / rate, 1.0), LONGEST_RETRY_S) if rate else 1.0


@dataclass(frozen=True)
class RowLimit:
    """How many rows go into one forward: falls by half when memory runs out, and slowly comes back.

    The rule of TCP's window (Jacobson 1988): what another program took for a moment is not lost for good.
    """

    most: int
    now: int
    calm: int = 0  # steps since the last change

    CALM_STEPS = 200

    def halved(self, rows: int) -> "RowLimit":
        """After `rows` rows did not fit."""
        return replace(self, now=max(1, min(self.now, rows) // 2), calm=0)

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


def _is_late(deadline_s: float | None, now_s: float) -> bool:
    return deadline_s is not None and deadline_s <= now_s


def _by_tenant(ready: Iterable[Waiting]) -> dict[str, list[Waiting]]:
    """Each tenant's requests, the one that is due first in front."""
    queues: dict[str, list[Waiting]] = {}
    for one in sorted(ready, key=lambda one: (one.due_s, one.id)):
        queues.setdefault(one.tenant, []).append(one)
    return queues


def _steps_by_key(running: Iterable[Running]) -> dict[str, int]:
    longest: dict[str, int] = {}
    for one in running:
        if one.key is not None:
            longest[one.key] = max(longest.get(one.key, 0), one.steps_left)
    return longest


def _settled(shares: Shares, given: Mapping[str, float], left: set[str]) -> Shares:
    """The floor rises to the least of those who still wait; who is at or below it need not be remembered.

    When nobody waits the past is forgotten: there was enough for all.
    """
    if not left:
        return Shares()
    every = {**shares.given, **given}
    floor = max(shares.floor, min(every.get(tenant, 0.0) for tenant in left))
    return Shares({tenant: each for tenant, each in every.items() if each > floor}, floor)
