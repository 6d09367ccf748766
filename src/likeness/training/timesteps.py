"""The noise levels of the rows of one training step, as places in the schedule: 0 the clean image, 1 pure noise.

Stratified sampling: the distribution is divided into as many equal shares as there are rows, and each row gets a
place from one share, in random order. Each row has the original distribution, and the loss of a step varies much
less. `Schedule.timestep_at` makes timesteps of places; on a flow a place is the share of noise.
"""

import math

import torch
from torch import Tensor

from .recipe import TIMESTEP_SHIFT, TIMESTEP_SPREAD, UNIFORM_SHARE


def uniform_places(count: int, generator: torch.Generator) -> Tensor:
    """(count,) places in [0, 1), one from each of `count` equal shares, on the generator's device."""
    place = torch.randperm(count, generator=generator, device=generator.device)
    within = torch.rand(count, generator=generator, device=generator.device)
    return (place + within) / max(1, count)


def middle_places(
    count: int, generator: torch.Generator, *,
    uniform_share: float = UNIFORM_SHARE, spread: float = TIMESTEP_SPREAD, shift: float = TIMESTEP_SHIFT,
) -> Tensor:  # fmt: skip
    """(count,) places in [0, 1], logit-normal (Esser et al. 2024, 'Scaling Rectified Flow Transformers', section 3.1).

    Args:
        uniform_share: of the places that are uniform instead, 0 to 1.
        spread: standard deviation of the logit.
        shift: odds of the median, as the shift of a flow's noise levels: p -> shift p / (1 + (shift - 1) p).
    """
    u = uniform_places(count, generator)
    normal = torch.special.ndtri(((u - uniform_share) / max(1 - uniform_share, 1e-6)).clamp(1e-6, 1 - 1e-6))
    middle = torch.sigmoid(math.log(shift) + spread * normal)
    return torch.where(u < uniform_share, u / max(uniform_share, 1e-6), middle)


def shift_for(tokens: float) -> float:
    """The shift for images of so many tokens of 16 x 16 pixels: larger images need more noise.

    Linear in the logarithm, 0.5 at 256 and 1.15 at 4096 tokens, as in FLUX.1's sampling code. Trainers use it for
    FLUX.2 too, because its own rule for sampling depends on the number of steps.
    """
    return math.exp(0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256))
