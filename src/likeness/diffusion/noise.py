"""One random generator per row, so that an image depends only on its own seed, not on the batch.

The numbers are drawn on the CPU: the same seed gives the same noise on every device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def row_noise(seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Standard normal (B, *shape) on the CPU, row i from `seeds[i]` alone (cf. EDM's per-row generators)."""
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows)
