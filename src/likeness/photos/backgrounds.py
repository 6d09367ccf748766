"""Replaces the background of a person, so that the adapter learns the face and not the room.

Sources: Forte, 'Approximate fast foreground colour estimation', ICIP 2021 (the true colour of edge pixels).
"""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ..types import PreparedPhoto
from .matte import covering

Picture = NDArray[np.float32]  # (H, W, 3), 0..255


def vary_background(prepared: PreparedPhoto, rng: np.random.Generator) -> PreparedPhoto:
    """The same person with a random colour, gradient, soft texture or noise behind; deterministic for a generator
    state.

    Photographs without a usable matte (all 255, or not covering the face) are returned unchanged, without drawing from
    `rng`.
    """
    if covering(prepared.matte, prepared.face).min() == 255:
        return prepared
    painters = (_solid, _gradient, _texture, _noise)
    height, width = prepared.matte.shape
    background = painters[rng.integers(len(painters))](height, width, rng)
    alpha = prepared.matte.astype(np.float32)[..., None] / 255
    mixed = foreground(prepared.image, prepared.matte) * alpha + background * (1 - alpha)
    return replace(prepared, image=np.asarray(np.rint(mixed).clip(0, 255), dtype=np.uint8))


def foreground(image: NDArray[np.uint8], matte: NDArray[np.uint8]) -> Picture:
    """The person's colours, without the old background mixed in at the edge (Forte 2021, 'blur fusion')."""
    picture = image.astype(np.float32)
    alpha = matte.astype(np.float32)[..., None] / np.float32(255)
    inner = behind = picture
    side = max(matte.shape)
    for size in (side // 6, side // 80):
        window = (max(size, 3),) * 2
        inner, behind = _fuse(picture, inner, behind, alpha=alpha, window=window)
    return np.asarray(inner.clip(0, 255), dtype=np.float32)


def _fuse(
    picture: Picture, inner: Picture, behind: Picture, *, alpha: NDArray[np.float32], window: tuple[int, int]
) -> tuple[Picture, Picture]:
    share = cv2.blur(alpha, window)[..., None]
    mean_inner = cv2.blur(inner * alpha, window) / (share + 1e-5)
    mean_behind = cv2.blur(behind * (1 - alpha), window) / (1 - share + 1e-5)
    better = mean_inner + alpha * (picture - alpha * mean_inner - (1 - alpha) * mean_behind)
    return np.asarray(better), np.asarray(mean_behind)


def _solid(height: int, width: int, rng: np.random.Generator) -> Picture:
    return np.broadcast_to(_colour(rng), (height, width, 3))


def _gradient(height: int, width: int, rng: np.random.Generator) -> Picture:
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    ramp = np.cos(angle) * columns + np.sin(angle) * rows
    ramp = ((ramp - ramp.min()) / np.ptp(ramp))[..., None]
    return np.asarray(_colour(rng) * ramp + _colour(rng) * (1 - ramp), dtype=np.float32)


def _texture(height: int, width: int, rng: np.random.Generator) -> Picture:
    """Blurred noise at three scales, like a room out of focus; it varies brightness more than hue."""
    picture = np.broadcast_to(_colour(rng), (height, width, 3)).astype(np.float32)
    for cells, spread in ((3, 30), (6, 18), (12, 9)):
        coarse = rng.normal(0, spread, (cells, cells, 1)) + rng.normal(0, spread / 2, (cells, cells, 3))
        coarse = coarse.astype(np.float32)
        picture = picture + cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(picture.clip(0, 255), dtype=np.float32)


def _noise(height: int, width: int, rng: np.random.Generator) -> Picture:
    """Fine noise around one colour, like plaster or cloth."""
    grain = rng.normal(0, rng.uniform(10, 40), (height, width, 1)).astype(np.float32)
    soft = cv2.GaussianBlur(grain, (0, 0), max(height, width) / 300)
    return np.asarray((_colour(rng) + soft[..., None]).clip(0, 255), dtype=np.float32)


def _colour(rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.uniform(20, 235, 3).astype(np.float32)
