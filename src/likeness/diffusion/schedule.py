"""The noise schedule, shared by loss and samplers, so that they cannot differ.

Notation (Song et al. 2021, DDIM): x_0 clean latent, x_t = a_t x_0 + s_t eps with a_t = sqrt(alpha_bar_t) and
s_t = sqrt(1 - alpha_bar_t). Three parameterisations of the network's output are supported: epsilon, sample (x_0)
and v = a_t eps - s_t x_0 (Salimans & Ho 2022).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, SchedulerMixin
from torch import Tensor

from ..errors import CorruptBase
from ..types import SAMPLER_NAMES
from .devices import has_float64

PredictionType = Literal["epsilon", "sample", "v_prediction"]
Spacing = Literal["leading", "linspace", "trailing"]  # of inference timesteps (Lin et al. 2024, table 2)

# the diffusers scheduler that is equivalent to each sampler
STOCK: Mapping[str, type[SchedulerMixin]] = MappingProxyType(
    dict(zip(SAMPLER_NAMES, (DPMSolverMultistepScheduler, DDIMScheduler, EulerDiscreteScheduler), strict=True))
)


@dataclass(frozen=True, eq=False)
class Schedule:
    """alpha_bar over the training timesteps, and the parameterisation of the network's output."""

    alpha_bar: Tensor  # (T,) float64, falling from 1 towards 0
    prediction_type: PredictionType
    steps_offset: int  # added to inference timesteps, as in the base's scheduler config
    last_alpha_bar: float  # of DDIM's last step: 1 with set_alpha_to_one, else alpha_bar[0]
    spacing: Mapping[str, Spacing]  # per sampler: from the config, or the default of diffusers' scheduler

    @property
    def timesteps(self) -> int:
        return len(self.alpha_bar)

    def signal(self, t: Tensor) -> Tensor:
        """a_t for timesteps (B,), see `at`."""
        return self.at(t, torch.sqrt)

    def sigma(self, t: Tensor) -> Tensor:
        """s_t for timesteps (B,), see `at`."""
        return self.at(t, lambda alpha_bar: (1 - alpha_bar).sqrt())

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio alpha_bar / (1 - alpha_bar) for timesteps (B,), see `at`."""
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
        return output

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The target of the network's output for x_t = add_noise(x0, noise, t)."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "v_prediction":
            a, s = self._columns(t, x0)
            return a * noise - s * x0
        return x0

    def _columns(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """a_t and s_t of timesteps (B,) as (B, 1, 1, 1), on the device and in the type of `like` (B, C, h, w)."""
        each = (self.signal(t), self.sigma(t))
        a, s = (one.to(like.dtype).to(like.device).view(-1, *([1] * (like.ndim - 1))) for one in each)
        return a, s


def schedule_from_config(config: dict[str, Any]) -> Schedule:
    """The schedule of a base's scheduler/scheduler_config.json.

    Raises:
        CorruptBase: the prediction type or the timestep spacing is not supported.
    """
    scheduler = DDIMScheduler.from_config(config)
    prediction_type = scheduler.config["prediction_type"]
    if prediction_type not in get_args(PredictionType):
        known = ", ".join(get_args(PredictionType))
        raise CorruptBase(f"expected a prediction type of {known} in the scheduler config")
    alpha_bar = scheduler.alphas_cumprod.to(torch.float64)
    spacing = {name: _spacing_of(kind, config) for name, kind in STOCK.items()}
    return Schedule(
        alpha_bar, prediction_type, int(scheduler.config["steps_offset"]), float(scheduler.final_alpha_cumprod), spacing
    )


def _spacing_of(kind: type[SchedulerMixin], config: dict[str, Any]) -> Spacing:
    """The spacing of `kind.from_config(config)`: published configs often do not set it."""
    said: Spacing = kind.from_config(config).config["timestep_spacing"]
    if said not in get_args(Spacing):
        raise CorruptBase(f"expected a timestep_spacing of {', '.join(get_args(Spacing))} in the scheduler config")
    return said
