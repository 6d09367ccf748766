"""A row's numbers do not depend on its companions, to the last bit."""

import pytest
import torch
from torch import Tensor, nn

from likeness.diffusion.base import BaseModel
from likeness.diffusion.batch_invariance import make_batch_invariant
from likeness.diffusion.conditioning import Conditioning


def route(base: BaseModel, rows: slice) -> tuple[Tensor, ...]:
    """Output of both networks, and gradients, of some of 24 fixed rows."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(24, *base.latent_shape, generator=g)[rows].requires_grad_()
    t = torch.randint(1000, (24,), generator=g)[rows]
    ids = torch.randint(3, (24, 48), generator=g)[rows]
    states = base.encode_prompt(ids).states.detach().requires_grad_()
    output = base.denoise(x, t, Conditioning(states))
    gradients = torch.autograd.grad(output.square().sum(), [x, states])
    return states.detach(), output.detach(), *gradients


@pytest.mark.parametrize("rows", [slice(0, 2), slice(5, 8), slice(4, 14), slice(17, 24)])
def test_any_number_of_companions(tiny_base: BaseModel, rows: slice) -> None:
    for mine, all_rows in zip(route(tiny_base, rows), route(tiny_base, slice(0, 24)), strict=True):
        assert torch.equal(mine, all_rows[rows])


def test_the_same_numbers_up_to_rounding_and_the_same_names() -> None:
    torch.manual_seed(0)
    network = nn.ModuleDict(
        {
            "linear": nn.Linear(6, 5),
            "bare": nn.Linear(6, 5, bias=False),
            "one": nn.Conv2d(6, 5, 1),
            "three": nn.Conv2d(6, 5, 3),
            "strided": nn.Conv2d(6, 5, 1, stride=2),
        }
    )
    inputs = [torch.randn(4, 6), torch.randn(4, 3, 6), torch.randn(4, 6, 7, 8)]
    pairs = [("linear", 0), ("linear", 1), ("bare", 0), ("one", 2), ("three", 2), ("strided", 2)]
    before = [network[name](inputs[which]) for name, which in pairs]
    names = list(network.state_dict())
    make_batch_invariant(network)
    for (name, which), expected in zip(pairs, before, strict=True):
        torch.testing.assert_close(network[name](inputs[which]), expected)
    assert list(network.state_dict()) == names
