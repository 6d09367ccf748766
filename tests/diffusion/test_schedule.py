"""Identities that hold for every parameterisation, and the per-row noise."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

from fixtures.tiny import scheduler
from likeness.diffusion.noise import row_noise
from likeness.diffusion.schedule import FlowSchedule, Schedule, flux2_shift, schedule_from_config
from likeness.errors import CorruptBase

TYPES = ("sample", "epsilon", "v_prediction", "flow")
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
T = torch.tensor([0, 1, 250, 999])


def a_schedule(prediction_type: str) -> Schedule:
    return schedule_from_config(FLOW if prediction_type == "flow" else dict(scheduler(prediction_type).config))


@pytest.mark.parametrize("prediction_type", TYPES)
def test_the_target_denoises_to_the_clean_latent(prediction_type: str) -> None:
    schedule = a_schedule(prediction_type)
    x0, noise = row_noise(range(8), (4, 3, 3)).double().chunk(2)
    x_t = schedule.add_noise(x0, noise, T)
    torch.testing.assert_close(schedule.denoised(x_t, schedule.target(x0, noise, T), T), x0, rtol=1e-9, atol=1e-9)


def test_noising_and_velocity_are_those_of_diffusers() -> None:
    schedule = a_schedule("v_prediction")
    theirs = DDPMScheduler.from_config(scheduler().config)
    x0, noise = row_noise(range(8), (4, 3, 3)).chunk(2)
    torch.testing.assert_close(schedule.add_noise(x0, noise, T), theirs.add_noise(x0, noise, T), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(schedule.target(x0, noise, T), theirs.get_velocity(x0, noise, T), rtol=1e-5, atol=1e-6)


def test_snr_is_signal_squared_over_sigma_squared_and_falls() -> None:
    schedule = a_schedule("sample")
    every = torch.arange(schedule.timesteps)
    snr = schedule.snr(every)
    torch.testing.assert_close(snr, (schedule.signal(every) / schedule.sigma(every)).square())
    assert bool((snr.diff() < 0).all())


def test_the_levels_of_a_flow_are_those_of_diffusers() -> None:
    """Shifted for training and for sampling; a fraction is a level of 1000."""
    schedule = a_schedule("flow")
    assert isinstance(schedule, FlowSchedule)
    theirs = FlowMatchEulerDiscreteScheduler.from_config(FLOW)
    assert torch.equal(schedule.sigma(torch.arange(1000)).float(), theirs.sigmas.flip(0))
    theirs.set_timesteps(sigmas=np.linspace(1, 1 / 7, 7))
    assert schedule.sampling_sigmas(7, 64) == theirs.sigmas.tolist()
    assert schedule.sigma(torch.tensor([250.0])).item() == schedule.signal(torch.tensor([750.0])).item() == 0.25


@pytest.mark.parametrize("tokens", [64, 1024, 4096, 4300, 4301, 16384])
@pytest.mark.parametrize("steps", [4, 10, 50, 200])
def test_the_dynamic_shift_is_that_of_diffusers(tokens: int, steps: int) -> None:
    assert flux2_shift(tokens, steps) == pytest.approx(compute_empirical_mu(tokens, steps), rel=1e-12)


@pytest.mark.parametrize("change", [{"invert_sigmas": True}, {"stochastic_sampling": True}])
def test_other_flows_are_refused(change: dict[str, bool]) -> None:
    with pytest.raises(CorruptBase, match="without inverted sigmas"):
        schedule_from_config(FLOW | change)


def test_an_unknown_prediction_type_is_refused() -> None:
    config = dict(scheduler().config) | {"prediction_type": "flow"}
    with pytest.raises(CorruptBase, match="prediction type"):
        schedule_from_config(config)


def test_noise_of_a_row_depends_on_its_seed_alone() -> None:
    together = row_noise([5, 6, 7], (4, 2, 2))
    assert torch.equal(together[1], row_noise([6], (4, 2, 2))[0])
    assert torch.equal(together[2], row_noise([7, 5], (4, 2, 2))[0])
    assert not torch.equal(together[0], together[1])
    assert abs(row_noise([1], (100_000,)).std().item() - 1) < 0.02
