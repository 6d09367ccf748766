"""Which rows of a forward belong to whom, worked out once for all adapted layers.

Neighbouring rows of one person read the same factors, so a forward's rows are cut into runs of equal length, each of
one slot: 80 rows of 8 people are 8 runs of 10, and the factors are fetched 8 times, not 80. Where the people's shares
differ, the greatest common divisor is the length.
"""

import math
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Route:
    """The rows of a forward: `runs` runs of `length` rows, each with one slot and one scale, then the bare ones."""

    slots: slice | Tensor  # of the runs: a slice where they lie side by side in the bank, which saves a copy
    runs: int
    length: int
    scales: Tensor | None  # (runs, 1, 1); None = 1 everywhere
    bare: int  # further rows, without an adapter

    @property
    def adapted(self) -> int:
        return self.runs * self.length

    @property
    def rows(self) -> int:
        return self.adapted + self.bare

    def take(self, stacked: Tensor) -> Tensor:
        """The runs' factors (runs, ...) out of those of all slots (S, ...)."""
        return stacked[self.slots] if isinstance(self.slots, slice) else stacked.index_select(0, self.slots)

    def give(self, stacked: Tensor, parts: Tensor) -> None:
        """Add each run's part (runs, ...) to its slot's (S, ...): the transpose of `take`."""
        if isinstance(self.slots, slice):
            stacked[self.slots].add_(parts)
        else:
            stacked.index_add_(0, self.slots, parts)


def route_of(slots: Tensor, scales: Tensor | None, like: Tensor) -> Route:
    """The route of rows with these slots (B,) and scales (B,), on the device and in the dtype of `like`.

    Rows of slot 0 at the end cost nothing; elsewhere they are rows with zeros for factors.
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
    mixed = torch.tensor([scale for _, scale in firsts]).to(like).view(len(mine), 1, 1)
    return Route(places, len(mine), length, None if bool((mixed == 1).all()) else mixed, bare)
