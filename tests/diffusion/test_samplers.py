"""Every sampler is the diffusers scheduler of its name, step for step."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import Tensor

from likeness.diffusion.noise import row_noise
from likeness.diffusion.samplers import SAMPLERS, leading_timesteps, run, sampler_named
from likeness.diffusion.schedule import schedule_from_config
from likeness.errors import UsageError
from tests.tiny import scheduler

THEIRS = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler, "dpmpp_2m": DPMSolverMultistepScheduler}
TYPES = ("sample", "epsilon", "v_prediction")


def network(x: Tensor, t: int) -> Tensor:
    """Smooth, not linear, and different at each timestep."""
    return torch.tanh(0.7 * x + 0.1 * x.roll(1, -1)) * (0.5 + t / 2000)


def by_diffusers(name: str, config: dict[str, Any], steps: int, noise: Tensor) -> list[Tensor]:
    theirs = THEIRS[name].from_config(config, timestep_spacing="leading")
    theirs.set_timesteps(steps)
    x = noise * theirs.init_noise_sigma
    seen = []
    for t in theirs.timesteps:
        scaled = theirs.scale_model_input(x, t)
        seen.append(scaled)
        x = theirs.step(network(scaled, int(t)), t, x).prev_sample
    return [*seen, x]


@pytest.mark.parametrize("to_one", [False, True])
@pytest.mark.parametrize("steps", [1, 5, 20, 30, 50])
@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_equals_diffusers(name: str, prediction_type: str, steps: int, to_one: bool) -> None:
    config = dict(scheduler(prediction_type).config) | {"set_alpha_to_one": to_one}
    schedule = schedule_from_config(config)
    noise = row_noise([3], (4, 8, 8))

    def denoise(x: Tensor, t: int) -> Tensor:
        return schedule.denoised(x, network(x, t)[None], torch.tensor([t]))[0]

    ours = list(run(sampler_named(name)(noise[0], schedule, steps), denoise))
    theirs = by_diffusers(name, config, steps, noise)
    assert len(ours) == len(theirs) == steps + 1
    for mine, its in zip(ours, theirs, strict=True):
        assert (mine - its[0]).abs().max() <= 1e-4 * its.abs().max()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_perfect_denoiser_ends_at_the_clean_latent(name: str) -> None:
    schedule = schedule_from_config(dict(scheduler().config))
    truth = row_noise([1], (4, 2, 2))[0]
    *_, last = run(sampler_named(name)(row_noise([2], (4, 2, 2))[0], schedule, 12), lambda x, t: truth)
    # DDIM stops at alpha_bar[0], as Stable Diffusion's set_alpha_to_one = False says
    left = schedule.sigma(torch.tensor(0)).item() * 5 if name == "ddim" else 1e-5
    assert (last - truth).abs().max() <= left


def test_timesteps_fall_within_the_schedule() -> None:
    schedule = schedule_from_config(dict(scheduler().config))
    for steps in (1, 7, 300, 999):
        times = leading_timesteps(schedule, steps)
        assert len(times) == steps
        assert times == sorted(times, reverse=True)
        assert times[0] < schedule.timesteps
        assert times[-1] >= 0


@pytest.mark.parametrize("steps", [0, -1, 1000])
@pytest.mark.parametrize("name", SAMPLERS)
def test_impossible_step_counts_are_refused(name: str, steps: int) -> None:
    schedule = schedule_from_config(dict(scheduler().config))
    with pytest.raises(UsageError, match="1 to 999"):
        next(sampler_named(name)(torch.zeros(1, 2, 2), schedule, steps))


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(UsageError, match="dpmpp_2m, ddim, euler"):
        sampler_named("plms")
