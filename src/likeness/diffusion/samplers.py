"""Samplers, as generators that ask for one denoising at a time.

A sampler yields `(x_t, t)` and is sent the clean latent that the network sees in it; it returns the final latent.
It never calls the network, so a caller may run one sampler, or hundreds of different ones that joined at
different times in one batched forward: that is what the engine does.

All formulas are for one row or a batch alike: x is (C, h, w) or (B, C, h, w). Timesteps follow diffusers'
"leading" spacing, so that every sampler here equals the diffusers scheduler of its name.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from ..errors import UsageError
from ..types import SAMPLER_NAMES
from .schedule import Schedule

Sampler = Generator[tuple[Tensor, int], Tensor, Tensor]  # yields (x_t, t), is sent x_0, returns the last x
MakeSampler = Callable[[Tensor, Schedule, int], Sampler]


def leading_timesteps(schedule: Schedule, steps: int) -> list[int]:
    """`steps` falling timesteps, evenly spaced from the start ("leading", Lin et al. 2024, table 2)."""
    stride = schedule.timesteps // steps
    return [min(k * stride + schedule.steps_offset, schedule.timesteps - 1) for k in reversed(range(steps))]


def _check_steps(schedule: Schedule, steps: int) -> None:
    if not 1 <= steps < schedule.timesteps:
        raise UsageError(f"expected 1 to {schedule.timesteps - 1} sampling steps, got {steps}", param="steps")


def ddim(noise: Tensor, schedule: Schedule, steps: int) -> Sampler:
    """Deterministic DDIM (Song et al. 2021, eq. 12 with sigma = 0). `noise` is standard normal."""
    _check_steps(schedule, steps)
    x, stride = noise, schedule.timesteps // steps
    for t in leading_timesteps(schedule, steps):
        x0 = yield x, t
        now = schedule.alpha_bar[t].item()
        after = schedule.alpha_bar[t - stride].item() if t >= stride else schedule.last_alpha_bar
        eps = (x - now**0.5 * x0) / (1 - now) ** 0.5
        x = after**0.5 * x0 + (1 - after) ** 0.5 * eps
    return x


def euler(noise: Tensor, schedule: Schedule, steps: int) -> Sampler:
    """Euler steps in sigma (Karras et al. 2022, algorithm 2 without churn), sigma = s_t / a_t.

    The state lives in Karras' variance-exploding space; what is yielded is scaled back by a_t.
    """
    _check_steps(schedule, steps)
    times = leading_timesteps(schedule, steps)
    sigmas = [((1 - schedule.alpha_bar[t]) / schedule.alpha_bar[t]).sqrt().item() for t in times] + [0.0]
    x = noise * (sigmas[0] ** 2 + 1) ** 0.5
    for t, sigma, sigma_next in zip(times, sigmas[:-1], sigmas[1:], strict=True):
        x0 = yield x / (sigma**2 + 1) ** 0.5, t
        x = x + (x - x0) / sigma * (sigma_next - sigma)
    return x


def dpmpp_2m(noise: Tensor, schedule: Schedule, steps: int) -> Sampler:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), lambda = log(a / s); the last step is of first order."""
    _check_steps(schedule, steps)
    times = leading_timesteps(schedule, steps + 1)[:-1]  # diffusers spaces steps + 1 and drops the last
    alpha_bar = torch.stack([schedule.alpha_bar[t] for t in times])
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


SAMPLERS: Mapping[str, MakeSampler] = MappingProxyType(dict(zip(SAMPLER_NAMES, (dpmpp_2m, ddim, euler), strict=True)))


def sampler_named(name: str) -> MakeSampler:
    """Raises UsageError for a name that is not in SAMPLERS."""
    if name not in SAMPLERS:
        raise UsageError(f"expected a sampler of {', '.join(SAMPLERS)}", param="sampler")
    return SAMPLERS[name]


def run(sampler: Sampler, denoise: Callable[[Tensor, int], Tensor]) -> Iterator[Tensor]:
    """Drive one sampler to its end with `denoise(x_t, t) -> x_0`, yielding x_t before each step and last the result."""
    x, t = next(sampler)
    while True:
        yield x
        try:
            x, t = sampler.send(denoise(x, t))
        except StopIteration as end:
            yield end.value
            return
