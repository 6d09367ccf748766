"""Chooses bfloat16 or float32: a processor without bfloat16 instructions is up to 25 times slower with it."""

import time
from collections.abc import Callable

import torch

ROUNDS = 3


def mixed(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Autocast to `dtype`; float32 means no autocast."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def faster_dtype(
    step: Callable[[], object], device: torch.device, *, clock: Callable[[], float] = time.perf_counter
) -> torch.dtype:
    """The dtype under which `step` takes less time: `torch.bfloat16` by autocast, or `torch.float32`.

    Args:
        step: one forward and backward pass of the training, without an autocast of its own.
        clock: seconds.
    """

    def seconds(dtype: torch.dtype) -> float:
        started = clock()
        with mixed(device, dtype):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock() - started

    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        seconds(dtype)  # the first call chooses kernels and takes memory
        best[dtype] = min(seconds(dtype) for _ in range(ROUNDS))
    return min(best, key=best.__getitem__)
