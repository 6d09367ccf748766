"""The noise schedule: the one place where loss and samplers take their numbers from, so that they cannot drift.

Notation (Song et al. 2021, DDIM): x_0 clean latent, x_t = a_t x_0 + s_t eps with a_t = sqrt(alpha_bar_t) and
s_t = sqrt(1 - alpha_bar_t). Three parameterisations of the network's output are known: epsilon, sample (x_0)
and v = a_t eps - s_t x_0 (Salimans & Ho 2022).
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ..errors import CorruptBase

PredictionType = Literal["epsilon", "sample", "v_prediction"]


def _columns(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1), or as many ones as `like` has dimensions."""
    return values.view(-1, *([1] * (like.ndim - 1)))


@dataclass(frozen=True, eq=False)
class Schedule:
    """alpha_bar over the training timesteps, and what the network predicts."""

    alpha_bar: Tensor  # (T,) float64, falling from 1 towards 0
    prediction_type: PredictionType
    steps_offset: int  # added to inference timesteps, as in the base's own scheduler
    last_alpha_bar: float  # where DDIM ends: 1 where the scheduler says set_alpha_to_one, else alpha_bar[0]

    @property
    def timesteps(self) -> int:
        return len(self.alpha_bar)

    def signal(self, t: Tensor) -> Tensor:
        """a_t for integer timesteps (B,), float64."""
        return self.alpha_bar.to(t.device)[t].sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        """s_t for integer timesteps (B,), float64."""
        return (1 - self.alpha_bar.to(t.device)[t]).sqrt()

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio alpha_bar / (1 - alpha_bar), (B,)."""
        alpha_bar = self.alpha_bar.to(t.device)[t]
        return alpha_bar / (1 - alpha_bar)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t of x0, noise (B, C, h, w) at timesteps (B,)."""
        a, s = _columns(self.signal(t).to(x0), x0), _columns(self.sigma(t).to(x0), x0)
        return a * x0 + s * noise

    def denoised(self, x_t: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """The clean latent that the network's output stands for: x_t, output (B, C, h, w), t (B,)."""
        a, s = _columns(self.signal(t).to(x_t), x_t), _columns(self.sigma(t).to(x_t), x_t)
        if self.prediction_type == "epsilon":
            return (x_t - s * output) / a
        if self.prediction_type == "v_prediction":
            return a * x_t - s * output
        return output

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should have put out for x_t = add_noise(x0, noise, t)."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "v_prediction":
            a, s = _columns(self.signal(t).to(x0), x0), _columns(self.sigma(t).to(x0), x0)
            return a * noise - s * x0
        return x0


def schedule_from_config(config: dict[str, Any]) -> Schedule:
    """The schedule that a base's scheduler/scheduler_config.json describes.

    Raises:
        CorruptBase: the prediction type is none that we know.
    """
    scheduler = DDIMScheduler.from_config(config)
    prediction_type = scheduler.config["prediction_type"]
    if prediction_type not in get_args(PredictionType):
        known = ", ".join(get_args(PredictionType))
        raise CorruptBase(f"expected a prediction type of {known} in the scheduler config")
    alpha_bar = scheduler.alphas_cumprod.to(torch.float64)
    return Schedule(
        alpha_bar, prediction_type, int(scheduler.config["steps_offset"]), float(scheduler.final_alpha_cumprod)
    )
