"""Latents like those that sampling produces: one-step denoisings of the base's U-Net at low noise.

A decoder trained on exact latents only would never see such latents. They are correct in position and colour and softer
in detail; the missing detail cannot be learned pixel by pixel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from likeness.diffusion.base import BaseModel

from .data import to_float
from .render.captions import compose

LEAST_ALPHA_BAR = 0.8
BATCH = 64
SAME_LATENTS = 0.02  # of their standard deviation: an exported base has its encoder in half precision


def check_same_latents(base: BaseModel, autoencoder: AutoencoderTiny, images: Tensor) -> None:
    """Raises ValueError if base and autoencoder have different latents for images (B, 3, H, W) uint8."""
    pixels = to_float(images)
    with torch.no_grad():
        own = autoencoder.encode(pixels.to(autoencoder.device)).latents.float() * autoencoder.config["scaling_factor"]
    difference = (base.encode_photo(pixels).to(own) - own).square().mean().sqrt() / own.std()
    if difference > SAME_LATENTS:
        raise ValueError(
            f"expected a base with the autoencoder's own latents, got some that are {difference:.2f} of their standard "
            "deviation apart: give --unet the base that was trained on this autoencoder"
        )


@torch.no_grad()
def near_latents(base: BaseModel, images: Tensor, attributes: Sequence[dict[str, Any]], *, seed: int) -> Tensor:
    """The U-Net's unguided one-step estimates of the clean latents, at noise of alpha_bar above 0.8.

    Args:
        images: (N, 3, H, W) uint8.
        attributes: of each, from which its caption is composed.
        seed: of captions, timesteps and noise.

    Returns:
        (N, C, h, w) float16 on the host, as the decoder takes them (not scaled).
    """
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    alpha_bar = base.schedule.signal(torch.arange(base.schedule.timesteps)).square()
    levels = int((alpha_bar > LEAST_ALPHA_BAR).sum())
    parts = []
    for start in range(0, len(images), BATCH):
        x = base.encode_photo(to_float(images[start : start + BATCH]))
        t = torch.randint(levels, (len(x),), generator=generator)
        noise = torch.randn(x.shape, generator=generator)
        noisy = base.schedule.add_noise(x, noise.to(x), t)
        captions = [compose(row, rng) for row in attributes[start : start + len(x)]]
        states = base.encode_prompt(base.tokenize(captions))
        clean = base.schedule.denoised(noisy, base.denoise(noisy, t, states), t)
        parts.append((clean / base.parts["vae"].config["scaling_factor"]).half().cpu())
    return torch.cat(parts)
