"""The losses of the decoder, as gradients with respect to its pixels.

Each loss is weighted by the norm of its gradient: a weight of 0.5 means half the norm of the pixel loss' gradient, for
every loss, batch and stage of the training (Esser et al. 2021, section 3.3, for the last layer). The decoder's own
backward pass runs only once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .classifier import AttributeNet

ABSOLUTE_SHARE = 0.1
MEANS_PX = 4


def pixel_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """Mean square and a tenth of the mean absolute error: a squared error alone prefers blur under uncertainty."""
    error = decoded - images
    return error.square().mean() + ABSOLUTE_SHARE * error.abs().mean()


def means_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """Mean square error of means of 4 x 4 pixels, for latents that match the image only approximately."""
    return F.avg_pool2d(decoded - images, MEANS_PX).square().mean()


def reconstruction_loss(decoded: Tensor, images: Tensor, is_exact: Tensor) -> Tensor:
    """`pixel_loss` of the rows whose latents are exact, `means_loss` of the others, each by its share of the rows.

    decoded, images: (B, 3, H, W) in [-1, 1]; is_exact: (B,) bool
    """
    share = is_exact.float().mean().item()
    loss = decoded.new_zeros(())
    if share > 0:
        loss = loss + share * pixel_loss(decoded[is_exact], images[is_exact])
    if share < 1:
        loss = loss + (1 - share) * means_loss(decoded[~is_exact], images[~is_exact])
    return loss


class FeatureLoss(nn.Module):
    """Distance of two batches (B, 3, H, W) in [-1, 1] in the features of the project's own classifier, a scalar.

    Mean over its convolutions of the mean absolute difference after each activation. Any size from 32 px: the flat
    layers behind the convolutions are left out.
    """

    def __init__(self, classifier: AttributeNet) -> None:
        super().__init__()
        layers = list(classifier.trunk.children())
        flat = next(k for k, layer in enumerate(layers) if isinstance(layer, nn.Flatten))
        self.layers = nn.ModuleList(layers[:flat]).eval().requires_grad_(False)

    def features(self, images: Tensor) -> list[Tensor]:
        found, x = [], images
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.SiLU):
                found.append(x.float())
        return found

    def forward(self, decoded: Tensor, images: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.features(images)
        distances = [(one - other).abs().mean() for one, other in zip(self.features(decoded), wanted, strict=True)]
        return torch.stack(distances).mean()


def combined_gradient(main: Tensor, others: Sequence[tuple[Tensor, float]]) -> Tensor:
    """`main` plus each of the others, scaled to its weight times the length of `main`; all of one shape."""
    length = main.norm()
    total = main.clone()
    for gradient, weight in others:
        total += weight * length / gradient.norm().clamp(min=1e-12) * gradient
    return total
