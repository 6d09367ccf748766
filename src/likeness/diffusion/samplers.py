"""Samplers, as generators that request one denoising at a time.

A sampler yields `(x_t, t)`, is sent the predicted clean latent, and returns the final latent. It never calls the
network, so a caller can run one sampler, or batch hundreds of samplers at different steps, as the engine does.

The formulas hold for a row or a batch: x is (C, h, w) or (B, C, h, w). Timesteps are spaced as the diffusers
scheduler of the sampler's name spaces them with the base's scheduler config, so that both give the same image.
"""

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..types import SAMPLER_NAMES
from .schedule import DiffusionSchedule, FlowSchedule, Schedule

Sampler = Generator[tuple[Tensor, float], Tensor, Tensor]  # yields (x_t, t), is sent x_0, returns the last x
MakeSampler = Callable[[Tensor, DiffusionSchedule, int], Sampler]
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
    """From alpha_bar `now` to `after`, Song et al. 2021, eq. 12 with sigma = 0; x and x0 have one shape."""
    eps = (x - now**0.5 * x0) / (1 - now) ** 0.5
    return after**0.5 * x0 + (1 - after) ** 0.5 * eps


def ddim(noise: Tensor, schedule: DiffusionSchedule, steps: int) -> Sampler:
    """Deterministic DDIM (Song et al. 2021, eq. 12 with sigma = 0). `noise` is standard normal."""
    times = [int(t) for t in timesteps(schedule, "ddim", steps)]
    x, stride = noise, schedule.timesteps // steps
    for t in times:
        x0 = yield x, t
        now = schedule.alpha_bar[t].item()
        after = schedule.alpha_bar[t - stride].item() if t >= stride else schedule.last_alpha_bar
        x = ddim_step(x, x0, now=now, after=after)
    return x


def euler(noise: Tensor, schedule: DiffusionSchedule, steps: int) -> Sampler:
    """Euler steps in sigma (Karras et al. 2022, algorithm 2 without churn), sigma = s_t / a_t.

    The state is in Karras' variance-exploding space; yielded latents are scaled by a_t.
    """
    times = timesteps(schedule, "euler", steps)
    alpha_bar = schedule.at(torch.tensor(times), lambda found: found.clamp(min=_LEAST_ALPHA_BAR))
    sigmas = [*(1 / alpha_bar - 1).sqrt().tolist(), 0.0]
    is_leading = schedule.spacing["euler"] == "leading"  # otherwise the first step is pure noise
    x = noise * (sigmas[0] ** 2 + is_leading) ** 0.5
    for t, sigma, sigma_next in zip(times, sigmas[:-1], sigmas[1:], strict=True):
        x0 = yield x / (sigma**2 + 1) ** 0.5, t
        x = x + (x - x0) / sigma * (sigma_next - sigma)
    return x


def dpmpp_2m(noise: Tensor, schedule: DiffusionSchedule, steps: int) -> Sampler:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), lambda = log(a / s); the last step is of first order."""
    times = [int(t) for t in timesteps(schedule, "dpmpp_2m", steps)]
    alpha_bar = schedule.alpha_bar[times].clamp(min=_LEAST_ALPHA_BAR)
    a, s = alpha_bar.sqrt().tolist(), (1 - alpha_bar).sqrt().tolist()
    lam = (alpha_bar / (1 - alpha_bar)).log().div(2).tolist()
    x, previous = noise, None
    for i, t in enumerate(times):
        x0 = yield x, t
        if i + 1 == steps:  # sigma = 0 next: the clean latent itself
            return x0
        h = lam[i + 1] - lam[i]
        if previous is None:
            d = x0
        else:
            r = (lam[i] - lam[i - 1]) / h
            d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * previous
        shrink = torch.expm1(torch.tensor(-h, dtype=torch.float64)).item()
        x = s[i + 1] / s[i] * x - a[i + 1] * shrink * d
        previous = x0
    return x


def flow_euler(noise: Tensor, schedule: FlowSchedule, steps: int) -> Sampler:
    """Euler steps along the flow from noise to image (Lipman et al. 2023), in s_t."""
    x, sigmas = noise, schedule.sampling_sigmas(steps)
    for sigma, sigma_next in itertools.pairwise(sigmas):
        x0 = yield x, sigma * schedule.timesteps
        x = x + (x - x0) / sigma * (sigma_next - sigma)
    return x


SAMPLERS: Mapping[str, MakeSampler] = MappingProxyType(dict(zip(SAMPLER_NAMES, (dpmpp_2m, ddim, euler), strict=True)))


def start(name: str, noise: Tensor, schedule: Schedule, steps: int) -> Sampler:
    """The sampler of this name for a schedule.

    Raises:
        UsageError: the schedule has none of this name, or fewer timesteps.
    """
    if isinstance(schedule, DiffusionSchedule):
        return SAMPLERS[name](noise, schedule, steps)
    if name != FLOW_SAMPLER:
        raise UsageError(f"expected the sampler {FLOW_SAMPLER} for this base, got {name}", param="sampler")
    assert isinstance(schedule, FlowSchedule)
    return flow_euler(noise, schedule, steps)


def run(sampler: Sampler, denoise: Callable[[Tensor, float], Tensor]) -> Iterator[Tensor]:
    """Run one sampler with `denoise(x_t, t) -> x_0`; yields x_t before each step, and finally the result."""
    x, t = next(sampler)
    while True:
        yield x
        try:
            x, t = sampler.send(denoise(x, t))
        except StopIteration as end:
            yield end.value
            return
