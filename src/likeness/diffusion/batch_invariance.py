"""Batch invariance: on a CPU, a row's result does not depend on the other rows of its forward, bit for bit.

Forward passes are invariant at each thread count that was tried (1 and 2); gradients are invariant on one thread.

Nearly all layers are invariant on a CPU. Two kinds are not, because the library selects another kernel for another
number of rows: linear layers whose input is a matrix (the timestep's embedding; measured at 2 against 16 rows, and at
10 against 80 with two threads) and 1x1 convolutions (on one thread below 16 rows). These are computed row by row; both
are small. The rounding itself would be harmless, but training amplifies it: Adam turns the sign of a gradient close to
zero into a whole step, and after twenty steps two adapters differ by a tenth.

A single row uses other kernels in every convolution, so it is computed twice: see `paired`. On accelerators this would
cost more than it is worth: there rows agree to rounding.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def make_batch_invariant(network: nn.Module) -> None:
    """Replace the `forward` of the layers named above by one that computes row by row; weights and names are kept."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.forward = partial(_linear, layer)  # type: ignore[method-assign]
        elif isinstance(layer, nn.Conv2d) and layer.kernel_size == layer.stride == (1, 1) and layer.groups == 1:
            layer.forward = partial(_convolution_of_one_cell, layer)  # type: ignore[method-assign]


def paired(x: Tensor) -> Tensor:
    """`x` (B, ...); a single row on a CPU twice, without a copy."""
    return x.expand(2, *x.shape[1:]) if len(x) == 1 and x.device.type == "cpu" else x


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    if x.ndim != 2:
        return F.linear(x, layer.weight, layer.bias)
    y = torch.bmm(x[:, None], layer.weight.mT.expand(len(x), -1, -1)).squeeze(1)  # (B, d_out)
    return y if layer.bias is None else y + layer.bias


def _convolution_of_one_cell(layer: nn.Conv2d, x: Tensor) -> Tensor:
    y = torch.bmm(layer.weight.flatten(1).expand(len(x), -1, -1), x.flatten(2))  # (B, C_out, h * w)
    return (y if layer.bias is None else y + layer.bias[:, None]).unflatten(2, x.shape[2:])
