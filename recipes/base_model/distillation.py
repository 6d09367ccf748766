"""Targets for few steps without guidance, from a sampler of many guided steps.

Notation of `likeness.diffusion.schedule`: x_t = a x_0 + s eps, a = sqrt(alpha_bar_t), s = sqrt(1 - alpha_bar_t).
Salimans & Ho 2022, 'Progressive Distillation for Fast Sampling of Diffusion Models'; Meng et al. 2023, 'On
Distillation of Guided Diffusion Models'.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from likeness.diffusion.samplers import ddim_step, timesteps
from likeness.diffusion.schedule import DiffusionSchedule

Denoise = Callable[[Tensor, int], Tensor]  # x_t (B, C, h, w) and t -> the predicted clean latent


def student_times(schedule: DiffusionSchedule, sampler: str, steps: int) -> list[int]:
    """The sampler's integer timesteps, and at the end -1, which is the clean latent."""
    return [*(int(t) for t in timesteps(schedule, sampler, steps)), -1]


def between(first: int, last: int, count: int) -> list[int]:
    """`count` + 1 timesteps from `first` to `last`, both included, as evenly spaced as integers can be."""
    return [round(first + (last - first) * k / count) for k in range(count + 1)]


def alpha_bar_at(schedule: DiffusionSchedule, t: int) -> float:
    """alpha_bar of a timestep; -1 is the end of DDIM's last step."""
    return schedule.last_alpha_bar if t < 0 else schedule.alpha_bar[t].item()


def clean_of_step(x: Tensor, reached: Tensor, *, now: float, after: float) -> Tensor:
    """The x_0 with which one `ddim_step` from `x` gives `reached` (Salimans & Ho 2022, eq. 7).

    x, reached: (B, C, h, w)
    """
    shrink = ((1 - after) / (1 - now)) ** 0.5
    return (reached - shrink * x) / (after**0.5 - shrink * now**0.5)


def walked(x: Tensor, denoise: Denoise, schedule: DiffusionSchedule, times: Sequence[int]) -> Tensor:
    """x (B, C, h, w) at times[0], after DDIM steps through all further times."""
    for t, following in pairwise(times):
        x = ddim_step(x, denoise(x, t), now=alpha_bar_at(schedule, t), after=alpha_bar_at(schedule, following))
    return x


def mixed_rows(first: Tensor, second: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Each row of `first` with probability `share`, else that of `second`; both (B, C, h, w)."""
    taken = torch.rand(len(first), generator=generator) < share
    return torch.where(taken.view(-1, 1, 1, 1).to(first.device), first, second)
