"""The timesteps of the rows of one training step.

Stratified sampling: the distribution is divided into as many equal shares as there are rows, and each row gets a
timestep from one share, in random order. Each row has the original distribution, and the loss of a step varies much
less.
"""

import math

import torch
from torch import Tensor

EVEN_SHARE = 1 / 3  # share of rows with uniform timesteps; the others are logit-normal
CENTRE, SPREAD = 0.4, 0.7  # of the logit-normal: the timesteps that form a face, and the spread


def uniform_timesteps(count: int, timesteps: int, generator: torch.Generator) -> Tensor:
    """(count,) uniform timesteps, on the generator's device."""
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
    """(count,) in [0, 1): one from each of `count` equal shares."""
    place = torch.randperm(count, generator=generator, device=generator.device)
    within = torch.rand(count, generator=generator, device=generator.device)
    return (place + within) / max(1, count)
