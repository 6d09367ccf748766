"""An auxiliary task while the U-Net trains: tell from its features which part of the figure each cell shows.

The renderer knows the parts exactly, so the coarse layers are told at every noise level what the picture should hold.
The head is not exported. In the manner of Yu et al. 2024, 'Representation Alignment for Generation' (REPA), with the
renderer's segmentation in place of another network's features.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .render.parts import PARTS


class PartsHead(nn.Module):
    """Features (B, W, 8, 8) of the first decoding block -> logits (B, len(PARTS), 16, 16)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tell = nn.Conv2d(width, 4 * len(PARTS), 1)

    def forward(self, features: Tensor) -> Tensor:
        return F.pixel_shuffle(self.tell(features), 2)


class Tap:
    """Holds what a module last gave out; `close` removes it."""

    def __init__(self, module: nn.Module) -> None:
        self.features = torch.zeros(0)
        self._handle = module.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self.features = output

    def close(self) -> None:
        self._handle.remove()


def parts_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy, a scalar, of logits (B, P, h, w) against shares (B, P, h, w) uint8 of 0..255."""
    wanted = shares.float() / 255
    return -(wanted * logits.float().log_softmax(1)).sum(1).mean()
