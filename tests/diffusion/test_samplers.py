"""Every sampler is the diffusers scheduler of its name, step for step."""

import json
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import Tensor

from fixtures.tiny import PUBLISHED_SCHEDULERS, scheduler
from likeness.diffusion.noise import row_noise
from likeness.diffusion.samplers import SAMPLERS, run, timesteps
from likeness.diffusion.schedule import diffusion_schedule
from likeness.errors import CorruptBase, UsageError

THEIRS = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler, "dpmpp_2m": DPMSolverMultistepScheduler}
TYPES = ("sample", "epsilon", "v_prediction")
OURS = json.loads(scheduler().to_json_string())  # says that spacing is leading
CONFIGS: dict[str, dict[str, Any]] = {
    **{kind: OURS | {"prediction_type": kind} for kind in TYPES},
    "to-one": OURS | {"set_alpha_to_one": True},
    **PUBLISHED_SCHEDULERS,
    **{
        spacing: PUBLISHED_SCHEDULERS["sd-1.5"] | {"timestep_spacing": spacing}
        for spacing in ("leading", "linspace", "trailing")
    },
    "no-offset": {**PUBLISHED_SCHEDULERS["sd-1.5"], "steps_offset": 0, "timestep_spacing": "leading"},
    "in-memory": dict(DDIMScheduler.from_config(PUBLISHED_SCHEDULERS["sd-1.5"]).config),  # leading, but only by default
}


def network(x: Tensor, t: float) -> Tensor:
    """Smooth, not linear, and different at each timestep."""
    return torch.tanh(0.7 * x + 0.1 * x.roll(1, -1)) * (0.5 + t / 2000)


def by_diffusers(name: str, config: dict[str, Any], steps: int, noise: Tensor) -> list[Tensor]:
    theirs = THEIRS[name].from_config(config)
    theirs.set_timesteps(steps)
    x = noise * theirs.init_noise_sigma
    seen = []
    for t in theirs.timesteps:
        scaled = theirs.scale_model_input(x, t)
        seen.append(scaled)
        x = theirs.step(network(scaled, float(t)), t, x).prev_sample
    return [*seen, x]


@pytest.mark.parametrize("steps", [1, 2, 5, 20, 30, 47, 50])
@pytest.mark.parametrize("which", CONFIGS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_equals_diffusers(name: str, which: str, steps: int) -> None:
    config = CONFIGS[which]
    schedule = diffusion_schedule(config)
    noise = row_noise([3], (4, 8, 8))

    def denoise(x: Tensor, t: float) -> Tensor:
        return schedule.denoised(x, network(x, t)[None], torch.tensor([t]))[0]

    ours = list(run(SAMPLERS[name](schedule, steps), noise[0], denoise))
    theirs = by_diffusers(name, config, steps, noise)
    assert len(ours) == len(theirs) == steps + 1
    for mine, its in zip(ours, theirs, strict=True):
        assert (mine - its[0]).abs().max() <= 1e-4 * its.abs().max()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_perfect_denoiser_ends_at_the_clean_latent(name: str) -> None:
    schedule = diffusion_schedule(dict(scheduler().config))
    truth = row_noise([1], (4, 2, 2))[0]
    *_, last = run(SAMPLERS[name](schedule, 12), row_noise([2], (4, 2, 2))[0], lambda x, t: truth)
    # DDIM stops at alpha_bar[0], as Stable Diffusion's set_alpha_to_one = False says
    left = schedule.sigma(torch.tensor(0)).item() * 5 if name == "ddim" else 1e-5
    assert (last - truth).abs().max() <= left


@pytest.mark.parametrize("which", CONFIGS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_timesteps_fall_within_the_schedule_and_are_those_of_diffusers(name: str, which: str) -> None:
    schedule = diffusion_schedule(CONFIGS[which])
    theirs = THEIRS[name].from_config(CONFIGS[which])
    for steps in (1, 7, 16, 48, 300, 998, 999):
        times = timesteps(schedule, name, steps)
        assert len(times) == steps
        assert times == sorted(times, reverse=True)
        assert times[0] < schedule.timesteps
        assert times[-1] >= 0
        theirs.set_timesteps(steps)
        assert times == [min(t, 999.0) for t in theirs.timesteps.tolist()][:steps]


def test_published_configs_leave_the_spacing_to_each_sampler() -> None:
    for config in PUBLISHED_SCHEDULERS.values():
        assert diffusion_schedule(config).spacing == {"dpmpp_2m": "linspace", "ddim": "leading", "euler": "linspace"}
    assert set(diffusion_schedule(OURS).spacing.values()) == {"leading"}


def test_an_unknown_spacing_is_refused() -> None:
    with pytest.raises(CorruptBase, match="timestep_spacing of leading, linspace, trailing"):
        diffusion_schedule(OURS | {"timestep_spacing": "logarithmic"})


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_schedule_that_ends_in_noise_alone_has_finite_steps(name: str) -> None:
    config = PUBLISHED_SCHEDULERS["sd-2.1"] | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    schedule = diffusion_schedule(config)
    assert schedule.alpha_bar[-1] == 0
    truth = row_noise([1], (4, 2, 2))[0]
    for x in run(SAMPLERS[name](schedule, 8), row_noise([2], (4, 2, 2))[0], lambda x, t: truth):
        assert x.isfinite().all()


@pytest.mark.parametrize("steps", [0, -1, 1000])
@pytest.mark.parametrize("name", SAMPLERS)
def test_impossible_step_counts_are_refused(name: str, steps: int) -> None:
    schedule = diffusion_schedule(dict(scheduler().config))
    with pytest.raises(UsageError, match="1 to 999"):
        SAMPLERS[name](schedule, steps)
