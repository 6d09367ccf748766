"""Procedural images without faces, so that the autoencoder also reconstructs real photographs.

Dead leaves (Lee, Mumford & Huang 2001) have the edges and scale statistics of natural scenes; fractal noise has
their spectrum. Colour and gamma jitter extend both, and the renders, beyond the renderer's palette.
"""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def fractal(rng: np.random.Generator, size_px: int) -> NDArray[np.float32]:
    """Noise with a 1 / f^a spectrum, a in [0.8, 1.8], (H, W, 3) in [0, 1], channels correlated."""
    f = np.hypot(np.fft.fftfreq(size_px)[:, None], np.fft.rfftfreq(size_px)[None]) + 1 / size_px
    real, imaginary = rng.standard_normal((2, 3, size_px, size_px // 2 + 1))
    spectrum = real + 1j * imaginary
    noise = np.fft.irfft2(spectrum / f ** rng.uniform(0.8, 1.8), s=(size_px, size_px))  # (3, H, W)
    noise /= noise.std()
    mixed = np.tensordot(np.eye(3) * 0.4 + rng.dirichlet([1, 1, 1], 3), noise, 1)
    return np.clip(0.5 + 0.2 * mixed, 0, 1).transpose(1, 2, 0).astype(np.float32)


def dead_leaves(rng: np.random.Generator, size_px: int) -> NDArray[np.float32]:
    """Occluding ellipses with radii of a power law, some of them textured, (H, W, 3) in [0, 1]."""
    image = np.full((size_px, size_px, 3), rng.random(3), np.float32)
    texture = fractal(rng, size_px) - 0.5
    for _ in range(int(rng.integers(30, 300))):
        radius = min(size_px / 2, 2 / rng.random() ** 0.7)
        center = tuple(int(c) for c in rng.integers(0, size_px, 2))
        axes = (max(1, int(radius)), max(1, int(radius * rng.uniform(0.3, 1))))
        cv2.ellipse(image, center, axes, float(rng.uniform(0, 180)), 0, 360, rng.random(3).tolist(), -1, cv2.LINE_AA)
    return np.clip(image + rng.uniform(0, 0.8) * texture, 0, 1)


def texture_images(count: int, *, size_px: int, seed: int) -> Tensor:
    """(count, 3, H, W) uint8: two dead-leaves images per fractal image, some blurred."""
    rng = np.random.default_rng(seed)
    out = np.empty((count, size_px, size_px, 3), np.uint8)
    for i in range(count):
        image = fractal(rng, size_px) if i % 3 == 0 else dead_leaves(rng, size_px)
        if rng.random() < 0.5:
            image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.5))).astype(np.float32)
        out[i] = (image * 255).astype(np.uint8)
    return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()


def colour_jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random gain, offset and flip per image of a batch (B, 3, H, W) in [-1, 1]."""
    b = images.shape[0]
    device = images.device
    gain = 1 + 0.3 * (torch.rand(b, 3, 1, 1, generator=generator, device=device) - 0.5)
    offset = 0.3 * (torch.rand(b, 3, 1, 1, generator=generator, device=device) - 0.5)
    flip = torch.rand(b, 1, 1, 1, generator=generator, device=device) < 0.5
    return torch.where(flip, images.flip(3), images).mul(gain).add(offset).clamp(-1, 1)
