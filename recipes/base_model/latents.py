"""The latents: scaled principal components of 8 x 8 patches.

Four learned channels at f8 blur faces. 16 principal components of each 8 x 8 x 3 patch keep them, are linear, and
differ little between renders and photographs. Component k is scaled to the standard deviation (sd_k / sd_0) ** 0.5:
with full whitening, noise-like detail would have as much weight as shape; without scaling, detail would vanish in the
noise.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

PATCH_PX = 8
CHANNELS = 16


@dataclass(frozen=True, eq=False)
class PatchBasis:
    """z = patch @ axes + offset, with the scaling in the axes and the mean in the offset."""

    axes: Tensor  # (192, CHANNELS)
    offset: Tensor  # (CHANNELS,)

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, CHANNELS, H/8, W/8)."""
        kernel = self.axes.T.reshape(CHANNELS, 3, PATCH_PX, PATCH_PX).to(images)
        return F.conv2d(images, kernel, self.offset.to(images), stride=PATCH_PX)


def fit_patch_basis(images: Tensor) -> PatchBasis:
    """Principal components of the patches of `images` (B, 3, H, W) in [-1, 1]."""
    patches = F.unfold(images, PATCH_PX, stride=PATCH_PX).transpose(1, 2).reshape(-1, 3 * PATCH_PX**2)
    mean = patches.mean(0)
    covariance = torch.cov((patches - mean).T.double().cpu())
    variance, axes = torch.linalg.eigh(covariance)  # ascending
    variance, axes = variance.flip(0)[:CHANNELS], axes.flip(1)[:, :CHANNELS]
    axes = axes * torch.sign(axes.sum(0))  # the sign of an eigenvector is arbitrary; fixed, so that runs agree
    sd = variance.sqrt()
    scaled = (axes / sd * (sd / sd[0]).sqrt()).to(images)
    return PatchBasis(scaled, -mean @ scaled)
