"""Places: procedural backgrounds, and the colour of their light.

Every painter takes a generator and a size in pixels and returns (S, S, 3) float32 in [0, 1].
They can be distinguished at 128 px. Lights may be brighter than 1, so that out of focus they become discs, as in a
photograph.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Color = tuple[float, float, float]
REFERENCE_PX = 256  # sizes of drawn things below are for this picture size


@dataclass(frozen=True)
class Place:
    phrase: str  # as captions say it
    paint: Callable[[np.random.Generator, int], Array]
    key: Color = (1.0, 1.0, 1.0)  # multiplies the main light
    ambient: Color = (1.0, 1.0, 1.0)  # multiplies the light from all around
    defocus: float = 6.0  # radius of the blur, pixels of a 256 px picture


def gradient(size_px: int, top: Color, bottom: Color) -> Array:
    t = np.linspace(0, 1, size_px, dtype=np.float32)[:, None, None]
    ramp = np.array(top, np.float32) * (1 - t) + np.array(bottom, np.float32) * t
    return np.ascontiguousarray(np.broadcast_to(ramp, (size_px, size_px, 3)), np.float32)


def noise(rng: np.random.Generator, size_px: int, sigma_px: float, stretch: float = 1.0) -> Array:
    """Blurred noise of standard deviation 1, made at a quarter of the size where it is coarse."""
    step = 4 if sigma_px > 6 else 1
    small = rng.standard_normal((size_px // step, size_px // step)).astype(np.float32)
    soft = cv2.GaussianBlur(small, (0, 0), sigmaX=stretch * sigma_px / step, sigmaY=sigma_px / step)
    field = cv2.resize(soft, (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), np.float32)


def _blur(image: Array, size_px: int, sigma_px: float) -> Array:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px * size_px / REFERENCE_PX), np.float32)


def defocused(image: Array, radius_px: float) -> Array:
    """(S, S, 3) blurred by a round aperture; radius for a picture of 256 px. At half the size, which is enough."""
    size = image.shape[0]
    radius = radius_px * size / REFERENCE_PX / 2
    if radius < 0.5:
        return image
    side = np.arange(-math.ceil(radius), math.ceil(radius) + 1)
    disc = np.clip(radius + 0.5 - np.hypot(side[:, None], side[None, :]), 0, 1).astype(np.float32)
    small = cv2.resize(image, (size // 2, size // 2), interpolation=cv2.INTER_AREA)
    soft = cv2.filter2D(small, -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT)
    return np.asarray(cv2.resize(soft, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def _clouds(image: Array, rng: np.random.Generator, bottom: float) -> None:
    """White veils in the sky above `bottom` (a share of the picture)."""
    size = image.shape[0]
    rows = int(bottom * size)
    veil = (
        np.clip(noise(rng, size, 9 * size / REFERENCE_PX, 3.0)[:rows] - rng.uniform(0.0, 0.9), 0, 1.2)[..., None] * 0.5
    )
    image[:rows] += (0.96 - image[:rows]) * veil


def _foliage(rng: np.random.Generator, size_px: int, green: Color, light: float) -> Array:
    """Leaves near and far: noise of two scales, with gaps where the sky shines through."""
    unit = size_px / REFERENCE_PX
    depth = 0.6 * noise(rng, size_px, 14 * unit) + 0.5 * noise(rng, size_px, 4 * unit)
    image = np.array(green, np.float32) * np.clip(1 + 0.42 * depth, 0.25, 2.2)[..., None]
    gaps = np.clip(noise(rng, size_px, 5 * unit) + 0.4 * depth - (2.1 - light), 0, 1)[..., None]
    return np.asarray(image + gaps * np.array([0.95, 1.0, 0.75], np.float32), np.float32)


def _dot(image: Array, rng: np.random.Generator, radius: tuple[float, float], color: Color | list[float]) -> None:
    size = image.shape[0]
    at = (int(rng.integers(size)), int(rng.integers(size)))
    cv2.circle(
        image, at, max(1, int(rng.uniform(*radius) * size / REFERENCE_PX)), [float(c) for c in color], -1, cv2.LINE_AA
    )


def _box(image: Array, left: float, top: float, right: float, bottom: float, *, color: NDArray | Color) -> None:
    cv2.rectangle(image, (int(left), int(top)), (int(right), int(bottom)), [float(c) for c in color], -1)


def _ridge(image: Array, rng: np.random.Generator, height: float, roughness: float, *, color: Color) -> None:
    """Fills everything below a random-walk horizon at `height` (a share of the picture)."""
    size = image.shape[0]
    walk = np.cumsum(rng.normal(0, roughness, REFERENCE_PX)).astype(np.float32)
    walk = cv2.GaussianBlur((walk - walk.mean())[None], (0, 0), 3)[0] / REFERENCE_PX
    xs = np.linspace(0, size, REFERENCE_PX)
    line = np.stack([xs, (height + walk) * size], 1)
    outline = np.concatenate([line, [[size, size], [0, size]]]).astype(np.int32)
    cv2.fillPoly(image, [outline], color)


def _studio(rng: np.random.Generator, size_px: int) -> Array:
    color = rng.uniform(0.2, 0.9, 3) * 0.4 + rng.uniform(0.15, 0.6) * 0.6
    image = gradient(size_px, tuple(color * 1.08), tuple(color * 0.8))
    rows, columns = np.mgrid[:size_px, :size_px] / size_px
    falloff = 1.12 - 0.6 * ((columns - 0.5) ** 2 + (rows - 0.4) ** 2)
    return (image * falloff[..., None]).astype(np.float32)


def _white(rng: np.random.Generator, size_px: int) -> Array:
    return gradient(size_px, (0.97,) * 3, (rng.uniform(0.88, 0.95),) * 3)


def _beach(rng: np.random.Generator, size_px: int) -> Array:
    sea, sand = int(size_px * rng.uniform(0.38, 0.52)), int(size_px * rng.uniform(0.62, 0.78))
    image = gradient(size_px, (0.40, 0.62, 0.86), (0.82, 0.89, 0.94))
    _clouds(image, rng, sea / size_px)
    image[sea:] = gradient(size_px, (0.08, 0.36, 0.53), (0.30, 0.64, 0.66))[sea:]
    image[sand:] = (0.88, 0.78, 0.57)
    image[sand : sand + max(1, size_px // 60)] = 0.95
    image[sea:] += 0.02 * noise(rng, size_px, 1.5, 3)[sea:, :, None]
    return _blur(image, size_px, 1.5)


def _forest(rng: np.random.Generator, size_px: int) -> Array:
    image = _foliage(rng, size_px, (0.20, 0.32, 0.13), 0.5) * gradient(size_px, (1.3, 1.3, 1.3), (0.65, 0.65, 0.65))
    for _ in range(7):
        left, width = rng.uniform(0, size_px), rng.uniform(5, 14) * size_px / REFERENCE_PX
        _box(image, left, 0, left + width, size_px, color=np.array([0.25, 0.17, 0.1]) * rng.uniform(0.6, 1.2))
    return image


def _skyline(rng: np.random.Generator, size_px: int, night: bool) -> Array:
    sky = ((0.03, 0.04, 0.12), (0.17, 0.11, 0.27)) if night else ((0.48, 0.63, 0.82), (0.84, 0.86, 0.88))
    image = gradient(size_px, *sky)
    if not night:
        _clouds(image, rng, 0.6)
    unit, left = size_px / REFERENCE_PX, 0.0
    while left < size_px:
        width, top = rng.uniform(22, 50) * unit, size_px * rng.uniform(0.12, 0.55)
        stone = (1.0, 1.0, 1.1) if night else (1.06, 1.0, 0.93) if rng.random() < 0.5 else (0.94, 1.0, 1.06)
        wall = np.array(stone) * (rng.uniform(0.04, 0.13) if night else rng.uniform(0.36, 0.68))
        _box(image, left, top, left + width, size_px, color=wall)
        for y in np.arange(top + 5 * unit, size_px, 12 * unit):
            for x in np.arange(left + 4 * unit, left + width - 5 * unit, 10 * unit):
                if rng.random() < 0.6:
                    window = np.array([2.2, 1.6, 0.75]) * rng.uniform(0.5, 1.3) if night else wall * 0.55
                    _box(image, x, y, x + 4 * unit, y + 5 * unit, color=window)
        left += width + rng.uniform(0, 5) * unit
    return _blur(image, size_px, 1.7)


def _city(rng: np.random.Generator, size_px: int) -> Array:
    return _skyline(rng, size_px, night=False)


def _city_at_night(rng: np.random.Generator, size_px: int) -> Array:
    return _skyline(rng, size_px, night=True)


def _mountains(rng: np.random.Generator, size_px: int) -> Array:
    image = gradient(size_px, (0.36, 0.56, 0.83), (0.84, 0.88, 0.93))
    _clouds(image, rng, 0.4)
    for k, color in enumerate(((0.60, 0.65, 0.73), (0.40, 0.46, 0.47), (0.24, 0.34, 0.20))):
        _ridge(image, rng, 0.33 + 0.19 * k, 2.2, color=color)
    return _blur(image, size_px, 1.3)


def _sunset(rng: np.random.Generator, size_px: int) -> Array:
    image = gradient(size_px, (0.32, 0.18, 0.45), (1.0, 0.58, 0.22))
    at = (int(rng.integers(size_px)), int(size_px * 0.6))
    cv2.circle(image, at, int(size_px * 0.09), (1.5, 1.3, 0.85), -1)
    image = _blur(image, size_px, 1) + 0.35 * _blur(np.clip(image - 0.9, 0, 1), size_px, 22)
    _ridge(image, rng, 0.74, 0.4, color=(0.22, 0.09, 0.14))
    return _blur(image, size_px, 2.5)


def _snow(rng: np.random.Generator, size_px: int) -> Array:
    image = gradient(size_px, (0.66, 0.74, 0.85), (0.88, 0.91, 0.96))
    _ridge(image, rng, 0.62, 0.4, color=(0.95, 0.97, 1.0))
    unit = size_px / REFERENCE_PX
    for _ in range(5):
        x, top = rng.uniform(0, size_px), size_px * rng.uniform(0.2, 0.4)
        half = rng.uniform(12, 22) * unit
        tree = np.array([[x, top], [x - half, size_px * 0.66], [x + half, size_px * 0.66]], np.int32)
        cv2.fillPoly(image, [tree], (0.35, 0.47, 0.5))
    image = _blur(image, size_px, 1.6)
    for _ in range(110):
        _dot(image, rng, (1, 3.4), (1.0, 1.0, 1.0))
    return _blur(image, size_px, 0.8)


BINDINGS = (
    *((0.42, 0.13, 0.11), (0.13, 0.22, 0.36), (0.15, 0.30, 0.20), (0.55, 0.40, 0.22), (0.70, 0.63, 0.48)),
    *((0.30, 0.19, 0.13), (0.62, 0.30, 0.14), (0.22, 0.22, 0.24), (0.45, 0.22, 0.30)),
)


def _library(rng: np.random.Generator, size_px: int) -> Array:
    image = np.full((size_px, size_px, 3), 0.25, np.float32) * np.array([1.1, 0.8, 0.5], np.float32)
    unit = size_px / REFERENCE_PX
    for shelf in np.arange(0, size_px, 52 * unit):
        left = 0.0
        while left < size_px:
            width, top = rng.uniform(6, 14) * unit, shelf + rng.uniform(4, 16) * unit
            binding = np.array(BINDINGS[int(rng.integers(len(BINDINGS)))]) * rng.uniform(0.7, 1.25)
            _box(image, left, top, left + width, shelf + 46 * unit, color=binding)
            left += width + unit
    return _blur(image, size_px, 1.8)


def _space(rng: np.random.Generator, size_px: int) -> Array:
    image = np.zeros((size_px, size_px, 3), np.float32) + np.array([0.03, 0.02, 0.08], np.float32)
    tint = np.array([[0.20, 0.08, 0.28], [0.06, 0.14, 0.32], [0.26, 0.09, 0.14]], np.float32)[rng.integers(3)]
    image += np.clip(noise(rng, size_px, 25 * size_px / REFERENCE_PX), 0, 2)[..., None] * tint
    for _ in range(140):
        _dot(image, rng, (0.6, 1.6), (rng.uniform(0.6, 1.0),) * 3)
    return _blur(image, size_px, 0.6)


def _desert(rng: np.random.Generator, size_px: int) -> Array:
    image = gradient(size_px, (0.48, 0.66, 0.83), (0.93, 0.87, 0.74))
    for k, color in enumerate(((0.85, 0.67, 0.45), (0.78, 0.57, 0.35), (0.70, 0.49, 0.29))):
        _ridge(image, rng, 0.46 + 0.15 * k, 0.9, color=color)
    return _blur(image, size_px, 1.8)


def _garden(rng: np.random.Generator, size_px: int) -> Array:
    image = _foliage(rng, size_px, (0.29, 0.44, 0.18), 0.2)
    blossoms = ((1.0, 0.42, 0.6), (1.1, 0.9, 0.35), (1.1, 1.1, 1.05), (0.75, 0.45, 0.9), (1.0, 0.3, 0.25))
    for _ in range(70):
        _dot(image, rng, (5, 10), blossoms[rng.integers(len(blossoms))])
    return _blur(image, size_px, 1.5)


def _office(rng: np.random.Generator, size_px: int) -> Array:
    image = gradient(size_px, (0.82, 0.84, 0.86), (0.66, 0.67, 0.7))
    offset = rng.uniform(-0.2, 0.2)
    for k in range(-1, 4):
        left = (offset + 0.4 * k) * size_px
        _box(image, left, 0.08 * size_px, left + 0.34 * size_px, 0.62 * size_px, color=(0.62, 0.78, 0.9))
        for y in np.arange(0.1, 0.62, 0.05):
            _box(image, left, y * size_px, left + 0.34 * size_px, (y + 0.02) * size_px, color=(0.93, 0.94, 0.95))
    _box(image, 0, 0.78 * size_px, size_px, size_px, color=(0.45, 0.33, 0.24))
    return _blur(image, size_px, 1.8)


def _underwater(rng: np.random.Generator, size_px: int) -> Array:
    image = gradient(size_px, (0.15, 0.62, 0.75), (0.01, 0.13, 0.32))
    rays = np.clip(noise(rng, size_px, 5, 1.0).mean(0), -0.5, 0.5)
    fade = np.linspace(1, 0, size_px, dtype=np.float32)[:, None]
    image += (rays[None] * fade * 0.5)[..., None].astype(np.float32)
    image = _blur(image, size_px, 2)
    for _ in range(35):
        radius, at = rng.uniform(2, 7) * size_px / REFERENCE_PX, rng.integers(0, size_px, 2)
        cv2.circle(image, (int(at[0]), int(at[1])), max(1, int(radius)), (0.6, 0.9, 0.97), 1, cv2.LINE_AA)
    return _blur(image, size_px, 0.7)


def _kitchen(rng: np.random.Generator, size_px: int) -> Array:
    image = np.full((size_px, size_px, 3), (0.86, 0.85, 0.8), np.float32)
    unit = size_px / REFERENCE_PX
    for line in np.arange(0, size_px, 22 * unit):
        _box(image, 0, line, size_px, line + 1.5 * unit, color=(0.68, 0.68, 0.66))
        _box(image, line, 0, line + 1.5 * unit, size_px, color=(0.68, 0.68, 0.66))
    wood = np.array([0.6, 0.4, 0.22]) * rng.uniform(0.8, 1.2)
    _box(image, 0, 0, size_px, 0.24 * size_px, color=wood)
    for x in np.arange(rng.uniform(0, 50), REFERENCE_PX, 62) * unit:
        _box(image, x, 0, x + 2 * unit, 0.24 * size_px, color=wood * 0.6)
    _box(image, 0, 0.74 * size_px, size_px, 0.8 * size_px, color=(0.3, 0.3, 0.32))
    _box(image, 0, 0.8 * size_px, size_px, size_px, color=wood)
    return _blur(image, size_px, 1.3)


def _brick_wall(rng: np.random.Generator, size_px: int) -> Array:
    image = np.full((size_px, size_px, 3), (0.72, 0.68, 0.62), np.float32)
    unit = size_px / REFERENCE_PX
    for row, top in enumerate(np.arange(0, size_px, 20 * unit)):
        for left in np.arange(-22 if row % 2 else 0, REFERENCE_PX, 44) * unit:
            brick = np.array([0.62, 0.28, 0.2]) * rng.uniform(0.75, 1.15)
            _box(image, left + 2 * unit, top + 2 * unit, left + 42 * unit, top + 18 * unit, color=brick)
    return _blur(image, size_px, 1.2)


def _plain_wall(rng: np.random.Generator, size_px: int) -> Array:
    color = 0.45 * rng.uniform(0.1, 1.0, 3) + 0.55 * rng.uniform(0.25, 0.9)  # paints, not signal colours
    image = gradient(size_px, tuple(color), tuple(color * rng.uniform(0.85, 1.0)))
    return np.asarray(image + 0.012 * noise(rng, size_px, 12)[..., None], np.float32)


PLACES = {
    "studio": Place("in a photo studio", _studio, defocus=0),
    "white background": Place("on a white background", _white, ambient=(1.06, 1.06, 1.06), defocus=0),
    "wall": Place("in front of a wall", _plain_wall, defocus=0),
    "brick wall": Place("in front of a brick wall", _brick_wall, ambient=(1.03, 0.98, 0.95), defocus=3.5),
    "beach": Place("on a beach", _beach, key=(1.08, 1.03, 0.95)),
    "forest": Place("in a forest", _forest, key=(1.0, 1.01, 0.93), ambient=(0.94, 1.01, 0.9)),
    "garden": Place("in a garden with flowers", _garden, key=(1.05, 1.03, 0.95)),
    "city": Place("in a city", _city),
    "city at night": Place(
        "in a city at night", _city_at_night, key=(1.0, 0.93, 0.82), ambient=(0.8, 0.84, 1.0), defocus=7
    ),
    "mountains": Place("in the mountains", _mountains),
    "desert": Place("in a desert", _desert, key=(1.1, 1.02, 0.88), ambient=(1.03, 0.98, 0.9)),
    "sunset": Place("at sunset", _sunset, key=(1.14, 0.94, 0.76), ambient=(1.0, 0.88, 0.88)),
    "snow": Place("in the snow", _snow, key=(0.98, 1.0, 1.03), ambient=(1.0, 1.02, 1.05), defocus=4),
    "library": Place("in a library", _library, key=(1.06, 1.0, 0.9), ambient=(1.0, 0.95, 0.88)),
    "office": Place("in an office", _office),
    "kitchen": Place("in a kitchen", _kitchen, key=(1.04, 1.0, 0.95)),
    "space": Place("in space", _space, key=(0.95, 0.98, 1.08), ambient=(0.9, 0.88, 1.0), defocus=2),
    "underwater": Place("under water", _underwater, key=(0.93, 1.01, 1.04), ambient=(0.78, 0.97, 1.05), defocus=3.5),
}
