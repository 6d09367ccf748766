"""Which timesteps the rows of one training step get.

Every row gets one out of as many equal shares of the distribution as there are rows, in random order: each is drawn as
it would be alone, and the loss of a step varies much less than with free draws.
"""

import math

import torch
from torch import Tensor

EVEN_SHARE = 1 / 3  # of the rows over all timesteps alike; the others are logit-normal
CENTRE, SPREAD = 0.4, 0.7  # of the logit-normal: where a face takes shape, and how far around it


def uniform_timesteps(count: int, timesteps: int, generator: torch.Generator) -> Tensor:
    """(count,) of all timesteps alike, on the generator's device."""
    return (_shares(count, generator) * timesteps).long().clamp(max=timesteps - 1)


def middle_timesteps(count: int, timesteps: int, generator: torch.Generator) -> Tensor:
    """(count,), a third of them uniform, two thirds logit-normal (Esser et al. 2024, 'Scaling Rectified Flow
    Transformers', section 3.1), on the generator's device."""
    u = _shares(count, generator)
    normal = torch.special.ndtri(((u - EVEN_SHARE) / (1 - EVEN_SHARE)).clamp(1e-6, 1 - 1e-6))
    middle = torch.sigmoid(math.log(CENTRE / (1 - CENTRE)) + SPREAD * normal)
    warped = torch.where(u < EVEN_SHARE, u / EVEN_SHARE, middle)
    return (warped * timesteps).long().clamp(max=timesteps - 1)


def _shares(count: int, generator: torch.Generator) -> Tensor:
    """(count,) in [0, 1): one of each of `count` equal shares."""
    place = torch.randperm(count, generator=generator, device=generator.device)
    within = torch.rand(count, generator=generator, device=generator.device)
    return (place + within) / max(1, count)
