"""Detail of images by frequency: the power spectrum of their luminance, for comparison with true renders.

A sharp decoder has the renders' power in every band. A sharpness measure alone would be misled by an unsharp mask,
which exceeds the middle bands, and by a pattern that alternates between pixels, which is measured separately.
"""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

WINDOW_PX = 64
BANDS: Mapping[str, tuple[int, int]] = MappingProxyType({
    "4-8": (4, 8), "8-16": (8, 16), "16-24": (16, 24), "24-33": (24, 33)
})  # fmt: skip  # radius in cycles per window, from and below
LAST_CYCLES = 31  # a pattern of period two has 32 cycles per window
LUMINANCE = (0.299, 0.587, 0.114)


def luminance(images: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, H, W) float, in the images' own range."""
    return torch.einsum("nchw,c->nhw", images.float(), torch.tensor(LUMINANCE, device=images.device))


def mean_power(images: Tensor) -> Tensor:
    """Power spectrum (64, 64) of the middle 64 px under a Hann window, mean over images (N, 3, H, W) of H, W >= 64."""
    height, width = images.shape[-2:]
    top, left = (height - WINDOW_PX) // 2, (width - WINDOW_PX) // 2
    middle = luminance(images)[:, top : top + WINDOW_PX, left : left + WINDOW_PX]
    hann = torch.hann_window(WINDOW_PX, device=images.device)
    middle = (middle - middle.mean((1, 2), keepdim=True)) * hann[:, None] * hann
    return torch.fft.fft2(middle).abs().square().mean(0)


def _cycles(device: torch.device) -> Tensor:
    return torch.fft.fftfreq(WINDOW_PX, 1 / WINDOW_PX, device=device)


def band_ratios(images: Tensor, true: Tensor) -> dict[str, float]:
    """Power in each of `BANDS` over that of true images; both (N, 3, H, W) in one range."""
    power, wanted, cycles = mean_power(images), mean_power(true), _cycles(images.device)
    radius = torch.hypot(cycles[:, None], cycles[None])
    return {
        name: float(power[inside].sum() / wanted[inside].sum())
        for name, (low, high) in BANDS.items()
        for inside in ((radius >= low) & (radius < high),)
    }


def period_two_ratio(images: Tensor, true: Tensor) -> float:
    """Power of patterns of period two over that of true images, the largest of: in rows, in columns, in both.

    images, true: (N, 3, H, W) in one range
    """
    power, wanted, cycles = mean_power(images), mean_power(true), _cycles(images.device)
    last = cycles.abs() >= LAST_CYCLES
    rows, columns = last[:, None].expand_as(power), last[None].expand_as(power)
    return max(float(power[part].sum() / wanted[part].sum()) for part in (rows, columns, rows & columns))
