"""A row's numbers must not depend on how many other rows share its forward, to the last bit.

Forwards keep that on a CPU with any number of threads that was tried (1 and 2); gradients keep it on one thread.

Nearly all layers keep that by themselves on a CPU. Two kinds do not, because the library picks another kernel for
another number of rows: linear layers whose input is a matrix (the timestep's embedding; measured at 2 against 16 rows,
and at 10 against 80 with two threads) and convolutions of one cell (on one thread below 16 rows). They are told to
compute row by row; both are small. Rounding alone would be harmless, but a training amplifies it: Adam turns the sign
of a gradient that is almost zero into a whole step, and twenty steps later two adapters are a tenth apart.

A single row takes other kernels in every convolution, so it is computed twice: `paired`. On accelerators all
of this would cost more than it brings: there rows agree to rounding.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def make_batch_invariant(network: nn.Module) -> None:
    """Make the forward of the layers named above independent of the batch; weights and names stay as they are."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.forward = partial(_linear, layer)  # type: ignore[method-assign]
        elif isinstance(layer, nn.Conv2d) and layer.kernel_size == layer.stride == (1, 1) and layer.groups == 1:
            layer.forward = partial(_convolution_of_one_cell, layer)  # type: ignore[method-assign]


def paired(x: Tensor) -> Tensor:
    """`x` (B, ...), but a single row on a CPU twice, without a copy."""
    return x.expand(2, *x.shape[1:]) if len(x) == 1 and x.device.type == "cpu" else x


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    if x.ndim != 2:
        return F.linear(x, layer.weight, layer.bias)
    y = torch.bmm(x[:, None], layer.weight.mT.expand(len(x), -1, -1)).squeeze(1)  # (B, d_out)
    return y if layer.bias is None else y + layer.bias


def _convolution_of_one_cell(layer: nn.Conv2d, x: Tensor) -> Tensor:
    y = torch.bmm(layer.weight.flatten(1).expand(len(x), -1, -1), x.flatten(2))  # (B, C_out, h * w)
    return (y if layer.bias is None else y + layer.bias[:, None]).unflatten(2, x.shape[2:])
