"""Distinguishes true images from decoded ones, patch by patch (Isola et al. 2017), with the hinge loss and R1.

The decoder lacks fine detail, so the input includes high-pass bands of the image: from pixels alone a short training
learns nothing. The first layers have full resolution and the pooling windows overlap, because the gradient of a plain
stride of two has period two, which the decoder then reproduces along edges. There is no spectral normalisation: with it
the loss did not decrease.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 32
BANDS = ((1, 3, 4.0), (3, 7, 2.0))  # sides of two box means in pixels, and the gain of their difference
R1_GAMMA = 1.0


def box_mean(images: Tensor, side: int) -> Tensor:
    """Mean of `side` x `side` pixels (odd) around each, with edges repeated; (B, C, H, W) -> the same shape."""
    if side == 1:
        return images
    return F.avg_pool2d(F.pad(images, (side // 2,) * 4, mode="replicate"), side, stride=1)


def with_bands(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> (B, 9, H, W): the picture and its high-pass bands at two scales."""
    bands = [gain * (box_mean(images, fine) - box_mean(images, coarse)) for fine, coarse, gain in BANDS]
    return torch.cat([images, *bands], 1)


class PatchDiscriminator(nn.Module):
    """About 0.2 M parameters: (B, 3, H, W) in [-1, 1] -> one logit for each patch, (B, 1, H/4, W/4)."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3 * (1 + len(BANDS))
        for wide, is_pooled in ((width, False), (width, True), (2 * width, False), (2 * width, True)):
            layers += [nn.Conv2d(before, wide, 3, padding=1), nn.LeakyReLU(0.2)]
            if is_pooled:
                layers.append(nn.AvgPool2d(4, stride=2, padding=1, count_include_pad=False))
            before = wide
        layers += [nn.Conv2d(before, 4 * width, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(4 * width, 1, 3, padding=1)]
        self.layers = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=0.2)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(with_bands(images))


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's hinge loss, for logits of any shape; 2 for logits of 0, 0 for confident correct ones."""
    return F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()


def deceiving_loss(fake: Tensor) -> Tensor:
    """The decoder's loss, from the logits of its output."""
    return -fake.float().mean()


def r1_penalty(discriminator: nn.Module, real: Tensor) -> Tensor:
    """R1_GAMMA / 2 times the squared gradient of each picture's mean logit by its pixels (Mescheder et al. 2018).

    real: (B, 3, H, W) float32. Call it outside autocast.
    """
    real = real.detach().requires_grad_()
    logits = discriminator(real).flatten(1).mean(1)
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return R1_GAMMA / 2 * gradient.square().flatten(1).sum(1).mean()


def same_windows(pictures: Sequence[Tensor], side: int, generator: torch.Generator) -> list[Tensor]:
    """One random square window, the same in all (B, C, H, W): so that the decoder's cells cannot be seen."""
    room = pictures[0].shape[-1] - side
    y, x = torch.randint(room + 1, (2,), generator=generator, device=generator.device).tolist()
    return [picture[..., y : y + side, x : x + side] for picture in pictures]
