"""Batch invariance on a CPU: the result of a row is bit-identical for every number of rows in the batch.

It holds for forward passes on the numbers of threads that were tried (1 and 2), and for gradients on one thread.

Most layers are batch-invariant on a CPU. Two kinds are not, because the library chooses its kernel by the number of
rows: linear layers with a matrix as input (the timestep embedding; observed for 2 against 16 rows, and for 10 against
80 on two threads) and 1 x 1 convolutions (on one thread below 16 rows). Both are small and are computed row by row
here. Rounding
differences would be harmless in one step, but training amplifies them: Adam turns the sign of a gradient near zero into
a full step, and after twenty steps two adapters differ by a tenth.

A single row uses other kernels in every convolution, so it is computed twice: `paired`. On accelerators this would cost
more than it is worth; there, rows agree to rounding.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def hold_rows_apart(network: nn.Module) -> None:
    """Make the layers named above batch-invariant by replacing their `forward`; weights and names do not change."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.forward = partial(_linear, layer)  # type: ignore[method-assign]
        elif isinstance(layer, nn.Conv2d) and layer.kernel_size == layer.stride == (1, 1) and layer.groups == 1:
            layer.forward = partial(_convolution_of_one_cell, layer)  # type: ignore[method-assign]


def paired(x: Tensor) -> Tensor:
    """`x` (B, ...); on a CPU a single row is repeated, without a copy."""
    return x.expand(2, *x.shape[1:]) if len(x) == 1 and x.device.type == "cpu" else x


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    if x.ndim != 2:
        return F.linear(x, layer.weight, layer.bias)
    y = torch.bmm(x[:, None], layer.weight.mT.expand(len(x), -1, -1)).squeeze(1)  # (B, d_out)
    return y if layer.bias is None else y + layer.bias


def _convolution_of_one_cell(layer: nn.Conv2d, x: Tensor) -> Tensor:
    y = torch.bmm(layer.weight.flatten(1).expand(len(x), -1, -1), x.flatten(2))  # (B, C_out, h * w)
    return (y if layer.bias is None else y + layer.bias[:, None]).unflatten(2, x.shape[2:])
