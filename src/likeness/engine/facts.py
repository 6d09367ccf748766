"""The engine's metrics: counters, occupancies and histograms."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
SMOOTHING = 0.1  # weight of the newest step in the throughput


@dataclass(frozen=True)
class Histogram:
    """Observations by size."""

    bounds: tuple[float, ...]  # upper, inclusive
    counts: tuple[int, ...]  # one a bound, not cumulative, and one more for all above
    sum: float

    @property
    def count(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True)
class EngineFacts:
    """A snapshot. Counts are since the engine's start; bytes and numbers of adapters are current."""

    waiting: int
    running: int  # images in the batch
    rows: int  # of the batch, in those of the base's square: a guided image is two, a larger one more
    row_limit: int
    slots: int  # for adapters, without that of the bare base
    slots_held: int
    slots_pinned: int
    host_adapters: int
    host_bytes: int
    slot_hits: int
    slot_misses: int
    slot_evictions: int
    host_hits: int
    host_misses: int
    host_evictions: int
    images: int
    refused: int  # at submission: the queue was full or the deadline out of reach
    cancelled: int
    failures: Mapping[str, int]  # error code -> requests
    row_steps_per_s: float | None  # throughput of the last steps; None before the first
    load_s: Histogram  # one adapter from the store to host memory
    rows_per_step: Histogram
    queue_s: Histogram  # submitted -> joined
    first_step_s: Histogram  # submitted -> first denoising step done
    total_s: Histogram  # submitted -> image


def total(each: Sequence[EngineFacts]) -> EngineFacts:
    """The facts of several engines as those of one. There must be at least one."""

    def added(name: str) -> object:
        values = [getattr(one, name) for one in each]
        match values[0]:
            case Histogram():
                counts = tuple(map(sum, zip(*(value.counts for value in values), strict=True)))
                return Histogram(values[0].bounds, counts, sum(value.sum for value in values))
            case Mapping():
                return dict(sum((Counter(value) for value in values), Counter()))
            case _:
                known = [value for value in values if value is not None]
                return sum(known) if known else None

    return EngineFacts(**{field.name: added(field.name) for field in fields(EngineFacts)})  # type: ignore[arg-type]


class Buckets:
    """A histogram that is being filled."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def snapshot(self) -> Histogram:
        return Histogram(self._bounds, tuple(self._counts), self._sum)


class Tally:
    """The counters of one engine; guarded by the queue's lock."""

    def __init__(self) -> None:
        self.slot_hits = self.slot_misses = self.host_hits = self.host_misses = 0
        self.images = self.refused = self.cancelled = 0
        self.failures: Counter[str] = Counter()
        self.turn_s: float | None = None
        self._turn_rows = 0.0
        self.load_s, self.queue_s, self.first_step_s, self.total_s = (Buckets(SECONDS) for _ in range(4))
        self.rows_per_step = Buckets(ROWS)

    def turn(self, rows: int, seconds: float) -> None:
        """Count one step of the whole batch, with its slot writes, prompts and decoding."""
        self.rows_per_step.observe(rows)
        self._turn_rows = _smoothed(None if self.turn_s is None else self._turn_rows, rows)
        self.turn_s = _smoothed(self.turn_s, max(seconds, 1e-9))

    @property
    def row_steps_per_s(self) -> float | None:
        """Smoothed rows over smoothed seconds: a mean of the rates would give short turns too much weight."""
        return None if self.turn_s is None else self._turn_rows / self.turn_s

    def failures_now(self) -> Mapping[str, int]:
        return MappingProxyType(dict(self.failures))


def _smoothed(before: float | None, now: float) -> float:
    return now if before is None else before + SMOOTHING * (now - before)
