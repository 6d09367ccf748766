"""The noise process, shared by loss and samplers, so that they cannot differ: x_t = a_t x_0 + s_t eps.

DiffusionSchedule   a_t = sqrt(alpha_bar_t), s_t = sqrt(1 - alpha_bar_t) (Song et al. 2021, DDIM); the network predicts
                    epsilon, the sample x_0, or v = a_t eps - s_t x_0 (Salimans & Ho 2022)
FlowSchedule        a_t = 1 - s_t; the network predicts the velocity eps - x_0 (Lipman et al. 2023; Liu et al. 2023)
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
)
from torch import Tensor

from ..errors import CorruptBase
from ..types import SAMPLER_NAMES
from .devices import has_float64

PredictionType = Literal["epsilon", "sample", "v_prediction", "flow"]
_LARGE_IMAGE = 4300  # tokens
_OF_DIFFUSION = ("epsilon", "sample", "v_prediction")
Spacing = Literal["leading", "linspace", "trailing"]  # of inference timesteps (Lin et al. 2024, table 2)

# the diffusers scheduler that is equivalent to each sampler
STOCK: Mapping[str, type[SchedulerMixin]] = MappingProxyType(
    dict(zip(SAMPLER_NAMES, (DPMSolverMultistepScheduler, DDIMScheduler, EulerDiscreteScheduler), strict=True))
)


@dataclass(frozen=True, eq=False)
class Schedule(ABC):
    """Signal and noise over the training timesteps, and the meaning of the network's output.

    A timestep is an integer of `range(timesteps)` in training, and such a number or a fraction in sampling.
    """

    prediction_type: PredictionType

    @property
    @abstractmethod
    def timesteps(self) -> int:
        """T, of training."""

    @abstractmethod
    def signal(self, t: Tensor) -> Tensor:
        """a_t for timesteps (B,), on their device."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """s_t for timesteps (B,), on their device."""

    def timestep_at(self, place: Tensor) -> Tensor:
        """Timesteps of training (B,) at places (B,) from 0, the clean image, to 1, pure noise."""
        return (place * self.timesteps).long().clamp(max=self.timesteps - 1)

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio (a_t / s_t)^2 for timesteps (B,)."""
        return (self.signal(t) / self.sigma(t)).square()

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t of x0, noise (B, C, h, w) at timesteps (B,)."""
        a, s = self._columns(t, x0)
        return a * x0 + s * noise

    def denoised(self, x_t: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """The clean latent predicted by the network: x_t, output (B, C, h, w), t (B,)."""
        a, s = self._columns(t, x_t)
        if self.prediction_type == "epsilon":
            return (x_t - s * output) / a
        if self.prediction_type == "v_prediction":
            return a * x_t - s * output
        if self.prediction_type == "flow":
            return x_t - s * output
        return output

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The target of the network's output for x_t = add_noise(x0, noise, t)."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "flow":
            return noise - x0
        if self.prediction_type == "v_prediction":
            a, s = self._columns(t, x0)
            return a * noise - s * x0
        return x0

    def _columns(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """a_t and s_t of timesteps (B,) as (B, 1, 1, 1), on the device and in the type of `like` (B, C, h, w)."""
        each = (self.signal(t), self.sigma(t))
        a, s = (one.to(like.dtype).to(like.device).view(-1, *([1] * (like.ndim - 1))) for one in each)
        return a, s


@dataclass(frozen=True, eq=False)
class DiffusionSchedule(Schedule):
    """alpha_bar over the training timesteps."""

    alpha_bar: Tensor  # (T,) float64, falling from 1 towards 0
    steps_offset: int  # added to inference timesteps, as in the base's scheduler config
    last_alpha_bar: float  # of DDIM's last step: 1 with set_alpha_to_one, else alpha_bar[0]
    spacing: Mapping[str, Spacing]  # per sampler: from the config, or the default of diffusers' scheduler

    @property
    def timesteps(self) -> int:
        return len(self.alpha_bar)

    def signal(self, t: Tensor) -> Tensor:
        return self.at(t, torch.sqrt)

    def sigma(self, t: Tensor) -> Tensor:
        return self.at(t, lambda alpha_bar: (1 - alpha_bar).sqrt())

    def snr(self, t: Tensor) -> Tensor:
        return self.at(t, lambda alpha_bar: alpha_bar / (1 - alpha_bar))

    def at(self, t: Tensor, value: Callable[[Tensor], Tensor]) -> Tensor:
        """A function of alpha_bar at timesteps (B,), on their device.

        float64, or float32 on a device without float64 (computed on the CPU). Timesteps may be fractions: s_t / a_t is
        interpolated linearly, as in diffusers' Euler.
        """
        where = t.device if has_float64(t.device) else torch.device("cpu")
        found = value(self._alpha_bar_at(t.to(where)))
        return found if where == t.device else found.float().to(t.device)

    def _alpha_bar_at(self, t: Tensor) -> Tensor:
        alpha_bar = self.alpha_bar.to(t.device)
        if not t.is_floating_point():
            return alpha_bar[t]
        low = t.floor().long()
        share = (t - low).to(alpha_bar)
        below, above = alpha_bar[low], alpha_bar[(low + 1).clamp(max=self.timesteps - 1)]
        ratio = torch.lerp((1 / below - 1).sqrt(), (1 / above - 1).sqrt(), share)  # s_t / a_t
        return torch.where(share == 0, below, 1 / (1 + ratio.square()))


@dataclass(frozen=True, eq=False)
class FlowSchedule(Schedule):
    """s_t over the training timesteps, and how a scheduler config of diffusers spaces those of sampling.

    A timestep that is a fraction is 1000 s_t, as diffusers' scheduler counts.
    """

    sigmas: Tensor  # (T,) float64, rising to 1; shifted if the shift does not depend on the image's size
    config: str  # JSON of FlowMatchEulerDiscreteScheduler

    @property
    def timesteps(self) -> int:
        return len(self.sigmas)

    def timestep_at(self, place: Tensor) -> Tensor:
        """Fractions: a place is s_t, independent of the config's shift for sampling."""
        return place * self.timesteps

    def signal(self, t: Tensor) -> Tensor:
        return 1 - self.sigma(t)

    def sigma(self, t: Tensor) -> Tensor:
        """float64 on the CPU, float32 elsewhere."""
        if t.is_floating_point():
            return t / self.timesteps
        return self._sigmas_on(t.device)[t]

    def _sigmas_on(self, device: torch.device) -> Tensor:
        return self.sigmas if device.type == "cpu" else self._float_sigmas.to(device)

    @cached_property
    def _float_sigmas(self) -> Tensor:
        return self.sigmas.float()

    def sampling_sigmas(self, steps: int, tokens: int) -> list[float]:
        """s_t of each step, falling from 1, and a last 0: diffusers' own, with FLUX.2's rule for a dynamic shift.

        Args:
            tokens: of the image in the denoising network; a dynamic shift depends on them.
        """
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(json.loads(self.config))
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=flux2_shift(tokens, steps))
        return cast(Tensor, scheduler.sigmas).tolist()


def flux2_shift(tokens: int, steps: int) -> float:
    """The logarithm of FLUX.2's shift for an image of so many tokens: linear in them at 10 and at 200 steps.

    Large images have the shift of 200 steps. Source: black-forest-labs/flux2, src/flux2/sampling.py.
    """
    few, many = 8.73809524e-05 * tokens + 1.89833333, 0.00016927 * tokens + 0.45666666
    return many if tokens > _LARGE_IMAGE else few + (steps - 10) / 190 * (many - few)


def schedule_from_config(config: dict[str, Any]) -> Schedule:
    """The schedule of a base's scheduler/scheduler_config.json.

    Raises:
        CorruptBase: the prediction type or the timestep spacing is not supported.
    """
    if config.get("_class_name") == FlowMatchEulerDiscreteScheduler.__name__:
        return _flow_schedule(config)
    return diffusion_schedule(config)


def diffusion_schedule(config: dict[str, Any]) -> DiffusionSchedule:
    """The schedule of a base that is no flow. Raises as `schedule_from_config`."""
    scheduler = DDIMScheduler.from_config(config)
    prediction_type = scheduler.config["prediction_type"]
    if prediction_type not in _OF_DIFFUSION:
        raise CorruptBase(f"expected a prediction type of {', '.join(_OF_DIFFUSION)} in the scheduler config")
    alpha_bar = scheduler.alphas_cumprod.to(torch.float64)
    spacing = {name: _spacing_of(kind, config) for name, kind in STOCK.items()}
    return DiffusionSchedule(
        prediction_type, alpha_bar, int(scheduler.config["steps_offset"]), float(scheduler.final_alpha_cumprod), spacing
    )


def _flow_schedule(config: dict[str, Any]) -> FlowSchedule:
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    if scheduler.config["invert_sigmas"] or scheduler.config["stochastic_sampling"]:
        raise CorruptBase("expected a flow scheduler config without inverted sigmas and stochastic sampling")
    sigmas = scheduler.sigmas.to(torch.float64).flip(0)
    return FlowSchedule("flow", sigmas, json.dumps(config, sort_keys=True))


def _spacing_of(kind: type[SchedulerMixin], config: dict[str, Any]) -> Spacing:
    """The spacing of `kind.from_config(config)`: published configs often do not set it."""
    said: Spacing = kind.from_config(config).config["timestep_spacing"]
    if said not in get_args(Spacing):
        raise CorruptBase(f"expected a timestep_spacing of {', '.join(get_args(Spacing))} in the scheduler config")
    return said
