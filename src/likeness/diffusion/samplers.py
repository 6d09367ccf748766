"""Samplers, as tables: a timestep and three coefficients for each step.

Every sampler here is linear in its inputs. With the network's input x_t, the predicted clean latent x_0 and that of
the step before, the next input is

    x = of_x * x_t + of_clean * x_0 + of_previous * x_0'

so images at different steps of different samplers take their steps together, in one expression over all of them.
Timesteps are spaced as the diffusers scheduler of the sampler's name spaces them with the base's scheduler config, so
that both give the same image.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..types import SAMPLER_NAMES
from .schedule import DiffusionSchedule, FlowSchedule, Schedule


class SamplerStep(NamedTuple):
    """One step: the timestep of the network's input, and the coefficients of the next input."""

    t: float
    of_x: float
    of_clean: float
    of_previous: float = 0.0  # of the clean latent that was predicted in the step before; 0 in the first step


@dataclass(frozen=True)
class Sampler:
    """All steps from noise to image. The first input is standard normal noise times `start`; the last is the image."""

    steps: tuple[SamplerStep, ...]
    start: float = 1.0


MakeSampler = Callable[[DiffusionSchedule, int], Sampler]
FLOW_SAMPLER = "euler"  # the only one of flows
_LEAST_ALPHA_BAR = 2.0**-24  # replaces 0 in schedules that end in pure noise, as in diffusers


def timesteps(schedule: DiffusionSchedule, sampler: str, steps: int) -> list[float]:
    """`steps` decreasing timesteps of a sampler; integers, except for Euler.

    They are computed with numpy in the order of diffusers, so that halves are rounded after the same errors.

    Raises:
        UsageError: as many steps as the schedule has timesteps, or more.
    """
    if not 1 <= steps < schedule.timesteps:
        raise UsageError(f"expected 1 to {schedule.timesteps - 1} sampling steps, got {steps}", param="steps")
    last, spacing = schedule.timesteps - 1, schedule.spacing[sampler]
    if spacing == "trailing":
        return (np.arange(last + 1, 0, -(last + 1) / steps).round() - 1).tolist()[:steps]
    count = steps + 1 if sampler == "dpmpp_2m" else steps  # diffusers computes one more here and drops the last
    if spacing == "leading":
        rising = (np.arange(count) * ((last + 1) // count) + schedule.steps_offset).clip(max=last)
    else:
        rising = np.linspace(0, last, count)
        rising = rising.astype(np.float32) if sampler == "euler" else rising.round()
    return [float(t) for t in rising[::-1][:steps]]


def ddim_step(x: Tensor, x0: Tensor, *, now: float, after: float) -> Tensor:
    """From alpha_bar `now` to `after`; x and x0 have one shape."""
    of_x, of_clean = _ddim(now, after)
    return of_x * x + of_clean * x0


def _ddim(now: float, after: float) -> tuple[float, float]:
    """Song et al. 2021, eq. 12 with sigma = 0, solved for x_t and x_0."""
    of_x = math.sqrt((1 - after) / (1 - now))
    return of_x, math.sqrt(after) - of_x * math.sqrt(now)


def ddim(schedule: DiffusionSchedule, steps: int) -> Sampler:
    """Deterministic DDIM (Song et al. 2021)."""
    made, times = [], [int(t) for t in timesteps(schedule, "ddim", steps)]
    stride = schedule.timesteps // steps
    for t in times:
        after = schedule.alpha_bar[t - stride].item() if t >= stride else schedule.last_alpha_bar
        made.append(SamplerStep(t, *_ddim(schedule.alpha_bar[t].item(), after)))
    return Sampler(tuple(made))


def euler(schedule: DiffusionSchedule, steps: int) -> Sampler:
    """Euler steps in sigma (Karras et al. 2022, algorithm 2 without churn), sigma = s_t / a_t.

    Karras' state is variance-exploding; the network's input is a_t times it, with a_t = 1 / sqrt(sigma^2 + 1).
    """
    times = timesteps(schedule, "euler", steps)
    alpha_bar = schedule.at(torch.tensor(times), lambda found: found.clamp(min=_LEAST_ALPHA_BAR))
    sigmas = [*(1 / alpha_bar - 1).sqrt().tolist(), 0.0]
    a = [1 / math.sqrt(sigma**2 + 1) for sigma in sigmas]
    is_leading = schedule.spacing["euler"] == "leading"  # otherwise the first step is pure noise
    made = []
    for i, t in enumerate(times):
        kept = sigmas[i + 1] / sigmas[i]
        made.append(SamplerStep(t, a[i + 1] / a[i] * kept, a[i + 1] * (1 - kept)))
    return Sampler(tuple(made), start=a[0] * math.sqrt(sigmas[0] ** 2 + is_leading))


def dpmpp_2m(schedule: DiffusionSchedule, steps: int) -> Sampler:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), lambda = log(a / s); the last step is of first order."""
    times = [int(t) for t in timesteps(schedule, "dpmpp_2m", steps)]
    alpha_bar = schedule.alpha_bar[times].clamp(min=_LEAST_ALPHA_BAR)
    a, s = alpha_bar.sqrt().tolist(), (1 - alpha_bar).sqrt().tolist()
    lam = (alpha_bar / (1 - alpha_bar)).log().div(2).tolist()
    made = []
    for i, t in enumerate(times[:-1]):
        h = lam[i + 1] - lam[i]
        second = 0.0 if i == 0 else h / (2 * (lam[i] - lam[i - 1]))  # 1 / (2 r)
        grown = -a[i + 1] * math.expm1(-h)
        made.append(SamplerStep(t, s[i + 1] / s[i], grown * (1 + second), -grown * second))
    return Sampler((*made, SamplerStep(times[-1], 0.0, 1.0)))  # sigma = 0 next: the clean latent itself


def flow_euler(schedule: FlowSchedule, steps: int, tokens: int) -> Sampler:
    """Euler steps along the flow from noise to image (Lipman et al. 2023), in s_t."""
    pairs = itertools.pairwise(schedule.sampling_sigmas(steps, tokens))
    return Sampler(tuple(SamplerStep(now * schedule.timesteps, after / now, 1 - after / now) for now, after in pairs))


SAMPLERS: Mapping[str, MakeSampler] = MappingProxyType(dict(zip(SAMPLER_NAMES, (dpmpp_2m, ddim, euler), strict=True)))


def sampler_named(name: str, schedule: Schedule, steps: int, *, tokens: int) -> Sampler:
    """The sampler of this name for a schedule.

    Args:
        tokens: of the image, see `BaseModel.image_tokens`; flows with a dynamic shift depend on them.

    Raises:
        UsageError: the schedule has none of this name, or fewer timesteps.
    """
    if isinstance(schedule, DiffusionSchedule):
        return SAMPLERS[name](schedule, steps)
    if name != FLOW_SAMPLER:
        raise UsageError(f"expected the sampler {FLOW_SAMPLER} for this base, got {name}", param="sampler")
    assert isinstance(schedule, FlowSchedule)
    return flow_euler(schedule, steps, tokens)


def run(sampler: Sampler, noise: Tensor, denoise: Callable[[Tensor, float], Tensor]) -> Iterator[Tensor]:
    """Run one sampler with `denoise(x_t, t) -> x_0`; yields x_t before each step, and finally the result."""
    x = noise * sampler.start
    previous = torch.zeros_like(x)
    for step in sampler.steps:
        yield x
        clean = denoise(x, step.t)
        x = step.of_x * x + step.of_clean * clean + step.of_previous * previous
        previous = clean
    yield x
