"""The slots of a forward pass's rows, computed once for all adapted layers.

Consecutive rows of one slot use the same factors, so the rows are divided into runs of equal length with one slot each:
80 rows of 8 people are 8 runs of 10, and the factors are gathered 8 times, not 80. If people have different numbers of
rows, the length is the greatest common divisor.
"""

import math
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Route:
    """The rows of a forward pass: `runs` runs of `length` rows with one slot and scale each, then rows of slot 0."""

    slots: slice | Tensor  # of the runs; a slice if they are adjacent in the bank, which avoids a copy
    runs: int
    length: int
    scales: Tensor | None  # (runs, 1, 1); None: all 1
    bare: int  # further rows, without an adapter

    @property
    def adapted(self) -> int:
        return self.runs * self.length

    @property
    def rows(self) -> int:
        return self.adapted + self.bare

    def take(self, stacked: Tensor) -> Tensor:
        """The runs' factors (runs, ...), from those of all slots (S, ...)."""
        return stacked[self.slots] if isinstance(self.slots, slice) else stacked.index_select(0, self.slots)

    def give(self, stacked: Tensor, parts: Tensor) -> None:
        """Add each run's part (runs, ...) to its slot's (S, ...): the transpose of `take`."""
        if isinstance(self.slots, slice):
            stacked[self.slots].add_(parts)
        else:
            stacked.index_add_(0, self.slots, parts)


def route_of(slots: Tensor, scales: Tensor | None, like: Tensor) -> Route:
    """The route of rows with these slots (B,) and scales (B,), on the device and in the dtype of `like`.

    Rows of slot 0 at the end cost nothing; elsewhere they are computed with factors of zero.
    """
    factors = [1.0] * len(slots) if scales is None else scales.tolist()
    rows = list(zip(slots.tolist(), factors, strict=True))
    adapted = max((i + 1 for i, (slot, _) in enumerate(rows) if slot), default=0)
    bare, rows = len(rows) - adapted, rows[:adapted]
    length = math.gcd(*(len(list(run)) for _, run in groupby(rows)))
    firsts = rows[::length] if length else []
    mine = [slot for slot, _ in firsts]
    side_by_side = bool(mine) and mine == list(range(mine[0], mine[0] + len(mine)))
    places = (
        slice(mine[0], mine[0] + len(mine))
        if side_by_side
        else torch.tensor(mine, dtype=torch.long, device=like.device)
    )
    scaled = None
    if any(scale != 1 for _, scale in firsts):
        scaled = torch.tensor([scale for _, scale in firsts], device=like.device, dtype=like.dtype).view(-1, 1, 1)
    return Route(places, len(mine), length, scaled, bare)
