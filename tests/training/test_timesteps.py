"""Which timesteps a step's rows get."""

import torch

from likeness.training.timesteps import middle_timesteps, uniform_timesteps


def test_uniform_ones_are_one_of_each_share_and_each_row_is_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([uniform_timesteps(4, 1000, generator) for _ in range(4000)])  # (4000, 4)
    assert torch.equal(drawn.sort(1).values // 250, torch.arange(4).expand(4000, -1))
    for column in drawn.T:  # whichever row: no row is always the noisy one
        assert torch.histc(column.float(), 10, 0, 1000).sub(400).abs().max() < 100  # five standard deviations
    assert len(uniform_timesteps(0, 1000, generator)) == 0


def test_timesteps_cover_the_schedule_evenly_and_the_middle_most() -> None:
    t = middle_timesteps(2000, 1000, torch.Generator().manual_seed(3))
    assert t.tolist() != sorted(t.tolist())
    assert t.min() < 3 and t.max() > 996
    counts = torch.histc(t.float(), bins=10, min=0, max=1000)
    assert counts[2:5].min() > 3 * counts[[0, 9]].max()
    again = middle_timesteps(2000, 1000, torch.Generator().manual_seed(4))
    assert (counts - torch.histc(again.float(), bins=10, min=0, max=1000)).abs().max() <= 3  # free draws: about 40
