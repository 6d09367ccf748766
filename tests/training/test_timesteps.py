"""Which noise levels a step's rows get."""

import math

import pytest
import torch

from likeness.diffusion.schedule import schedule_from_config
from likeness.training.timesteps import middle_places, shift_for, uniform_places

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 6.0}


def test_uniform_ones_are_one_of_each_share_and_each_row_is_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([uniform_places(4, generator) for _ in range(4000)])  # (4000, 4)
    assert torch.equal((drawn.sort(1).values * 4).long(), torch.arange(4).expand(4000, -1))
    for column in drawn.T:  # whichever row: no row is always the noisy one
        assert torch.histc(column, 10, 0, 1).sub(400).abs().max() < 100  # five standard deviations
    assert len(uniform_places(0, generator)) == 0


def test_places_cover_the_schedule_evenly_and_the_middle_most() -> None:
    places = middle_places(2000, torch.Generator().manual_seed(3))
    assert places.tolist() != sorted(places.tolist())
    assert places.min() < 0.003 and places.max() > 0.997
    counts = torch.histc(places, bins=10, min=0, max=1)
    assert counts[2:5].min() > 3 * counts[[0, 9]].max()
    again = middle_places(2000, torch.Generator().manual_seed(4))
    assert (counts - torch.histc(again, bins=10, min=0, max=1)).abs().max() <= 3  # free draws: about 40


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_the_shift_is_that_of_a_flow(shift: float) -> None:
    """As trainers of flows draw: the sigmoid of a normal number, then shifted."""
    plain, shifted = (
        middle_places(500, torch.Generator().manual_seed(1), uniform_share=0.0, spread=1.0, shift=one)
        for one in (1.0, shift)
    )
    assert torch.allclose(shifted, shift * plain / (1 + (shift - 1) * plain), atol=1e-5)
    logits = torch.logit(plain.double())
    assert logits.mean().abs() < 0.01 and logits.std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("uniform_share", [0.0, 1.0])
def test_all_or_none_of_the_places_may_be_uniform(uniform_share: float) -> None:
    places = middle_places(400, torch.Generator().manual_seed(2), uniform_share=uniform_share, spread=0.1)
    assert (places.min() < 0.01) == (places.max() > 0.99) == (uniform_share == 1)
    assert places.isfinite().all() and places.min() >= 0 and places.max() <= 1


def test_the_shift_of_an_images_size() -> None:
    assert [shift_for(side**2) for side in (16, 32, 64)] == pytest.approx([math.exp(0.5), 1.878, math.exp(1.15)], 1e-3)


def test_a_place_on_a_flow_is_its_noise_whatever_the_shift_of_sampling() -> None:
    places = torch.tensor([0.0, 0.25, 0.9])
    flow = schedule_from_config(FLOW)
    assert torch.allclose(flow.sigma(flow.timestep_at(places)), places)
    diffusion = schedule_from_config({"_class_name": "DDIMScheduler", "num_train_timesteps": 1000})
    assert diffusion.timestep_at(torch.tensor([0.0, 0.5, 1.0])).tolist() == [0, 500, 999]
