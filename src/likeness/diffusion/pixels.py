"""Converts between images (H, W, 3) uint8 and the networks' form (B, 3, H, W) in [-1, 1]."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


def to_pixels(images: Sequence[NDArray[np.uint8]], size_px: int | tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 each, all of one size -> (B, 3, height, width) in [-1, 1].

    Args:
        size_px: height and width, or the side of squares.
    """
    size = (size_px, size_px) if isinstance(size_px, int) else size_px
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    if pixels.shape[-1] >= size[1]:
        return F.interpolate(pixels, size, mode="area")
    return F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(-1, 1)


def to_images(pixels: Tensor) -> list[NDArray[np.uint8]]:
    """(B, 3, H, W) in [-1, 1] -> (H, W, 3) RGB of 0..255 each."""
    levels = pixels.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return list(levels.permute(0, 2, 3, 1).cpu().numpy())
