"""AdamW for many people at once: one row, one person, each with a step count and a learning rate of its own.

Adam is elementwise, so stacking people's parameters as rows of (S, P) is S independent optimisers; what is not
elementwise (clipping, bias correction) is done per row. Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BETAS = (0.9, 0.99)
EPSILON = 1e-8


def clip_rows(gradient: Tensor, limits: Tensor) -> Tensor:
    """Scale each row of (S, P) down to at most its limit in L2 norm, in place. Returns the norms before, (S,)."""
    norms = gradient.norm(dim=1)
    gradient.mul_((limits / norms.clamp(min=1e-12)).clamp(max=1)[:, None])
    return norms


@dataclass(eq=False)
class RowAdamW:
    """Moments of all slots."""

    mean: Tensor  # (S, P)
    variance: Tensor  # (S, P)

    @classmethod
    def like(cls, flat: Tensor) -> "RowAdamW":
        return cls(torch.zeros_like(flat), torch.zeros_like(flat))

    def step(self, flat: Tensor, gradient: Tensor, row: int, *, count: int, rates: Tensor, weight_decay: float) -> None:
        """Step number `count` (from 1) of one row, in place.

        flat, gradient: (S, P); rates: (P,) learning rate of each column.
        """
        g, m, v, x = gradient[row], self.mean[row], self.variance[row], flat[row]
        m.lerp_(g, 1 - BETAS[0])
        v.lerp_(g.square(), 1 - BETAS[1])
        denominator = (v / (1 - BETAS[1] ** count)).sqrt_().add_(EPSILON)
        x.mul_(1 - rates * weight_decay)
        x.sub_(rates * (m / (1 - BETAS[0] ** count)) / denominator)

    def clear(self, row: int) -> None:
        self.mean[row].zero_()
        self.variance[row].zero_()
