"""The slots of a forward pass's rows, computed once for all adapted layers.

Consecutive rows of the same slots use the same factors, so the rows are divided into runs of equal length: 80 rows of 8
people are 8 runs of 10, and the factors are gathered 8 times, not 80. If people have different numbers of rows, the
length is the greatest common divisor.

A row can have several adapters. Rows with the same number of them, its width, form a route of their own: the factors of
a run are joined along the rank, [A_1; A_2] and [B_1 B_2], so that a row is computed as if it had one adapter of their
added ranks. A row's result thus depends on its own width only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

Row = tuple[tuple[int, float], ...]  # slot and scale of each adapter; the bare base is one, slot 0


@dataclass(frozen=True, eq=False)
class Route:
    """Consecutive rows of a forward pass: `runs` runs of `length` rows with the same `width` slots and scales each."""

    start: int  # the first row
    used: tuple[int, ...]  # slots of the runs, (runs * width)
    slots: slice | Tensor  # the same for indexing; a slice if they are adjacent in the bank, which avoids a copy
    runs: int
    length: int
    scales: Tensor | None  # (runs * width, 1); None: all 1
    width: int = 1

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.runs * self.length)

    def take(self, stacked: Tensor) -> Tensor:
        """The runs' factors (runs * width, ...), from those of all slots (S, ...)."""
        return stacked[self.slots] if isinstance(self.slots, slice) else stacked.index_select(0, self.slots)

    def give(self, stacked: Tensor, parts: Tensor) -> None:
        """Add each run's part (runs * width, ...) to its slot's (S, ...): the transpose of `take`."""
        if isinstance(self.slots, slice):
            stacked[self.slots].add_(parts)
        else:
            stacked.index_add_(0, self.slots, parts)

    def joined(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """Each run's factors joined along the rank: (runs, width * r, ...) and (runs, d_out, width * r)."""
        if self.width == 1:
            return A, B
        runs, width, rank = self.runs, self.width, A.shape[1]
        B = B.view(runs, width, -1, rank).transpose(1, 2)  # (runs, d_out, width, r)
        return A.reshape(runs, width * rank, *A.shape[2:]), B.reshape(runs, -1, width * rank)


def routes_of(slots: Tensor, scales: Tensor | None, like: Tensor) -> tuple[Route, ...]:
    """The routes of rows with these slots and scales, (B,) or (B, K), on the device and in the dtype of `like`.

    Rows of slot 0 at the end have no route and cost nothing; elsewhere they are computed with factors of zero.
    """
    rows = _rows(slots, scales)
    adapted = max((i + 1 for i, row in enumerate(rows) if row[0][0]), default=0)
    routes, start = [], 0
    for width, group in groupby(rows[:adapted], key=len):
        members = list(group)
        routes.append(_route(start, members, width, like))
        start += len(members)
    return tuple(routes)


def _rows(slots: Tensor, scales: Tensor | None) -> list[Row]:
    wide = slots.view(len(slots), -1)
    factors = [[1.0] * wide.shape[1]] * len(slots) if scales is None else scales.view(len(slots), -1).tolist()
    if wide.shape[1] == 1:
        return [((slot, factor),) for (slot,), (factor,) in zip(wide.tolist(), factors, strict=True)]
    rows = []
    for mine, scaled in zip(wide.tolist(), factors, strict=True):
        used = tuple(one for one in zip(mine, scaled, strict=True) if one[0])
        rows.append(used or ((0, 1.0),))
    return rows


def _route(start: int, rows: Sequence[Row], width: int, like: Tensor) -> Route:
    length = math.gcd(*(len(list(run)) for _, run in groupby(rows)))
    used = [one for row in rows[::length] for one in row]
    mine = [slot for slot, _ in used]
    side_by_side = mine == list(range(mine[0], mine[0] + len(mine)))
    places = (
        slice(mine[0], mine[0] + len(mine))
        if side_by_side
        else torch.tensor(mine, dtype=torch.long, device=like.device)
    )
    scaled = None
    if any(scale != 1 for _, scale in used):
        scaled = torch.tensor([scale for _, scale in used], device=like.device, dtype=like.dtype).view(-1, 1)
    return Route(start, tuple(mine), places, len(rows) // length, length, scaled, width)
