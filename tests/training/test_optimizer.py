"""Each row is torch.optim.AdamW with a learning rate and a step count of its own."""

import torch
from torch import Tensor

from likeness.training.optimizer import BETAS, EPSILON, RowAdamW, clip_rows


def gradients(seed: int, steps: int, columns: int) -> Tensor:
    return torch.randn(steps, columns, generator=torch.Generator().manual_seed(seed))


def by_torch(start: Tensor, each: Tensor, *, rates: tuple[float, float], weight_decay: float) -> Tensor:
    """Two groups: the first half of the columns and the second."""
    halves = [half.clone().requires_grad_() for half in start.chunk(2)]
    groups = [{"params": [half], "lr": rate} for half, rate in zip(halves, rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, betas=BETAS, eps=EPSILON, weight_decay=weight_decay)
    for gradient in each:
        for half, g in zip(halves, gradient.chunk(2), strict=True):
            half.grad = g
        optimizer.step()
    return torch.cat([half.detach() for half in halves])


def test_one_row() -> None:
    start, each = torch.linspace(-1, 1, 8), gradients(0, 5, 8)
    flat = torch.stack([torch.zeros(8), start])
    rows = RowAdamW.like(flat)
    for i, gradient in enumerate(each):
        both = torch.stack([torch.ones(8), gradient])
        rows.step(flat, both, 1, count=i + 1, rates=[(slice(0, 8), 0.1)], weight_decay=0.05)
    torch.testing.assert_close(flat[1], by_torch(start, each, rates=(0.1, 0.1), weight_decay=0.05))
    assert flat[0].count_nonzero() == 0


def test_many_rows_that_start_at_different_times() -> None:
    starts = torch.stack([torch.linspace(-1, 1, 8) * k for k in (1, 2, 3)])
    each = torch.stack([gradients(k, 9, 8) for k in range(3)])  # (rows, steps, columns)
    settings = [((0.1, 0.01), 0.0), ((0.02, 0.0), 0.1), ((0.3, 0.3), 0.5)]
    joins = [0, 2, 5]
    flat = starts.clone()
    rows = RowAdamW.like(flat)
    for now in range(9):
        for k, (rates, weight_decay) in enumerate(settings):
            if now >= joins[k]:
                columns = [(slice(0, 4), rates[0]), (slice(4, 8), rates[1])]
                rows.step(flat, each[:, now], k, count=now - joins[k] + 1, rates=columns, weight_decay=weight_decay)
    for k, (rates, weight_decay) in enumerate(settings):
        expected = by_torch(starts[k], each[k, joins[k] :], rates=rates, weight_decay=weight_decay)
        torch.testing.assert_close(flat[k], expected)


def test_a_cleared_row_starts_afresh() -> None:
    flat, gradient, rates = torch.ones(2, 4), torch.ones(2, 4), [(slice(0, 4), 0.1)]
    rows = RowAdamW.like(flat)
    rows.step(flat, gradient, 0, count=1, rates=rates, weight_decay=0)
    rows.step(flat, gradient, 1, count=1, rates=rates, weight_decay=0)
    rows.clear(0)
    assert rows.mean[0].count_nonzero() == rows.variance[0].count_nonzero() == 0
    assert rows.mean[1].count_nonzero() == 4


def test_rows_are_clipped_as_torch_clips_each() -> None:
    gradient = gradients(3, 4, 50) * torch.tensor([[10.0], [0.01], [1.0], [0.0]])
    limits = torch.tensor([1.0, 1.0, 0.5, 1.0])
    expected = []
    for row, limit in zip(gradient, limits, strict=True):
        parameter = torch.zeros(50, requires_grad=True)
        parameter.grad = row.clone()
        torch.nn.utils.clip_grad_norm_([parameter], limit.item())
        expected.append(parameter.grad)
    clipped = gradient.clone()
    norms = clip_rows(clipped, limits)
    torch.testing.assert_close(norms, gradient.norm(dim=1))
    torch.testing.assert_close(clipped, torch.stack(expected), rtol=1e-5, atol=1e-7)


def test_a_row_without_a_number_leaves_the_others_alone() -> None:
    gradient = torch.stack([torch.full((4,), torch.nan), torch.ones(4)])
    norms = clip_rows(gradient, torch.ones(2))
    assert norms[0].isnan()
    torch.testing.assert_close(gradient[1], torch.full((4,), 0.5))
