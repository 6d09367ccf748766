"""AdamW for many people at once: one row per person, each with its own step count and learning rate.

Adam is elementwise, so stacking people's parameters as rows of (S, P) is S independent optimisers; clipping and
bias correction, which are not elementwise, are done per row. Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adamw import adamw

BETAS = (0.9, 0.99)
EPSILON = 1e-8


def clip_rows(gradient: Tensor, limits: Tensor) -> Tensor:
    """Scale each row of (S, P) down to at most its limit in L2 norm, in place. Returns the norms before, (S,).

    Each norm is computed separately: the summation order of one reduction over all rows may depend on S.
    """
    norms = torch.stack([row.norm() for row in gradient])
    factors = limits / norms.clamp(min=1e-12)
    if (factors < 1).any():
        gradient.mul_(factors.clamp(max=1)[:, None])
    return norms


@dataclass(eq=False)
class RowAdamW:
    """The moments of all slots."""

    mean: Tensor  # (S, P)
    variance: Tensor  # (S, P)

    @classmethod
    def like(cls, flat: Tensor) -> "RowAdamW":
        return cls(torch.zeros_like(flat), torch.zeros_like(flat))

    def step(
        self,
        flat: Tensor,
        gradient: Tensor,
        row: int,
        *,
        count: int,
        rates: Sequence[tuple[slice, float]],
        weight_decay: float,
    ) -> None:
        """Step number `count` (from 1) of one row, in place, with torch's fused kernel.

        flat, gradient: (S, P); rates: columns and their learning rate; other columns are not changed.
        """
        for columns, rate in rates:
            x, g, m, v = ([stacked[row, columns]] for stacked in (flat, gradient, self.mean, self.variance))
            adamw(
                x, g, m, v, [], [torch.tensor(float(count - 1), device=flat.device)], fused=True, amsgrad=False,
                beta1=BETAS[0], beta2=BETAS[1], lr=rate, weight_decay=weight_decay, eps=EPSILON, maximize=False,
            )  # fmt: skip

    def clear(self, row: int) -> None:
        self.mean[row].zero_()
        self.variance[row].zero_()
