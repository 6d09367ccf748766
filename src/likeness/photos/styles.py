"""Styles: filters that turn a photograph into a sketch, a painting, pixel art and so on.

The built-in base has learned these styles from filtered renders (`recipes/base_model/render`), so filtered photographs
show an adapter what the subject looks like in each of them.

A filter takes the image (S, S, 3) uint8, the figure's mask (S, S) bool and a generator, and returns an image of the
same size. Bronze and marble are materials: for renders, which have them, the filter only finishes the image; for
photographs it imitates them. Lengths are for 256 px and scale with the image. Faces must remain recognisable at 128 px.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from ..types import PreparedPhoto

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Array = NDArray[np.float32]
REFERENCE_PX = 256
PIXEL_ART_CELL_PX = 6  # 3 px at 128


def _unit(image: Image) -> float:
    return image.shape[0] / REFERENCE_PX


def _gray(image: Image) -> Array:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255)


def _bytes(image: NDArray) -> Image:
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _saturated(image: Image, factor: float, brighter: float = 1.0) -> Image:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 1] *= factor
    hsv[..., 2] *= brighter
    return np.asarray(cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB), np.uint8)


def _smooth(image: Image, rounds: int, sigma_color: float) -> Image:
    """Repeated bilateral filtering: flat areas, sharp borders."""
    for _ in range(rounds):
        image = np.asarray(cv2.bilateralFilter(image, 7, sigma_color, 7), np.uint8)
    return image


def _ink(image: Image, sigma_px: float, threshold: float) -> Array:
    """Dark lines by extended differences of Gaussians, 1 on paper, 0 in ink (Winnemoeller et al., 2012)."""
    gray = _gray(image)
    sigma = sigma_px * _unit(image)
    inner, outer = cv2.GaussianBlur(gray, (0, 0), sigma), cv2.GaussianBlur(gray, (0, 0), 1.6 * sigma)
    return np.clip(1 + (inner - outer + threshold) * 45, 0, 1)


def _paper(rng: np.random.Generator, image: Image, sigma_px: float, stretch: float = 1.0) -> Array:
    size, sigma = image.shape[0], sigma_px * _unit(image)
    grain = rng.standard_normal((size, size)).astype(np.float32)
    blurred = cv2.GaussianBlur(grain, (0, 0), sigmaX=sigma * stretch, sigmaY=sigma)
    return np.asarray(blurred / blurred.std(), np.float32)


def _photo(image: Image, mask: Mask, rng: np.random.Generator) -> Image:
    """What a camera adds: a lens that is a little soft and darker towards the corners, and a sensor's noise."""
    unit, size = _unit(image), image.shape[0]
    soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 0.9) * unit).astype(np.float32)
    at = np.linspace(-1, 1, size, dtype=np.float32) ** 2
    corners = 1 - rng.uniform(0.03, 0.10) * (at[:, None] + at[None, :]) ** 1.5 / 2
    grain = cv2.GaussianBlur(rng.standard_normal((size, size, 3), np.float32), (0, 0), 0.7 * unit)
    strength = rng.uniform(1.5, 4.0)
    return np.clip(soft * corners[..., None] + strength * grain, 0, 255).astype(np.uint8)


def _black_and_white(image: Image, mask: Mask, rng: np.random.Generator) -> Image:
    gray = cv2.createCLAHE(1.8, (4, 4)).apply(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).astype(np.float32)
    grain = 2.5 * _paper(rng, image, 0.8)
    return np.repeat(np.clip(gray + grain, 0, 255).astype(np.uint8)[..., None], 3, 2)


def _pencil(image: Image, mask: Mask, rng: np.random.Generator) -> Image:
    """Colour dodge for the tones, ink for the lines, slanted hatching in the shadows; the place is only hinted at."""
    gray = _gray(image)
    dodge = np.clip(gray / (0.02 + cv2.GaussianBlur(gray, (0, 0), 7 * _unit(image))), 0, 1)
    tone = np.where(mask, 0.62 + 0.38 * np.clip(gray * 1.5, 0, 1), 0.85 + 0.15 * gray)
    hatch = cv2.warpAffine(
        _paper(rng, image, 0.7, 9), cv2.getRotationMatrix2D((image.shape[0] / 2,) * 2, 50, 1.5), image.shape[:2]
    )
    dark = np.clip(0.75 - gray, 0, 1) * np.where(mask, 1.0, 0.5)
    sketch = tone * (0.25 + 0.75 * dodge) * (0.35 + 0.65 * _ink(image, 1.1, 0.015)) + 0.16 * hatch * dark
    return np.repeat(_bytes(np.clip(0.97 * sketch + 0.015 * _paper(rng, image, 0.6), 0, 0.97))[..., None], 3, 2)


def _kuwahara(image: Image, radius_px: int) -> Array:
    """Each pixel takes the mean of its least varied quadrant (Kuwahara, 1976), (S, S, 3) in [0, 1]."""
    value = image.astype(np.float32) / 255
    gray = _gray(image)
    side = radius_px + 1
    mean = cv2.boxFilter(value, -1, (side, side))
    spread = cv2.boxFilter(gray * gray, -1, (side, side)) - cv2.boxFilter(gray, -1, (side, side)) ** 2
    best, out = np.full(gray.shape, np.inf, np.float32), value
    half = side // 2
    for dy in (-half, half):
        for dx in (-half, half):
            shift = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
            moved = cv2.warpAffine(spread, shift, gray.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
            colors = cv2.warpAffine(mean, shift, gray.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
            better = moved < best
            best = np.where(better, moved, best)
            out = np.where(better[..., None], colors, out)
    return np.asarray(out, dtype=np.float32)


def _oil(image: Image, mask: Mask, rng: np.random.Generator) -> Image:
    """Kuwahara patches, rich colour, and bristle strokes that follow the forms; finer on the figure."""
    unit = _unit(image)
    rich = _saturated(image, 1.35, 1.03)
    fine, coarse = _kuwahara(rich, max(2, round(3 * unit))), _kuwahara(rich, max(4, round(8 * unit)))
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.5 * unit)[..., None]
    painted = fine * soft + coarse * (1 - soft)
    gray = cv2.GaussianBlur(_gray(image), (0, 0), 4 * unit)
    across = np.arctan2(cv2.Sobel(gray, cv2.CV_32F, 0, 1), cv2.Sobel(gray, cv2.CV_32F, 1, 0)) % np.pi
    along = ((across / np.pi * 4 + 2.5).astype(int)) % 4
    strokes = np.zeros(gray.shape, np.float32)
    for k in range(4):
        turn = cv2.getRotationMatrix2D((image.shape[0] / 2,) * 2, -45.0 * k, 1.5)
        layer = cv2.warpAffine(_paper(rng, image, 0.9, 7), turn, gray.shape[::-1], borderMode=cv2.BORDER_REFLECT)
        strokes = np.where(along == k, layer, strokes)
    relief = strokes * (0.030 + 0.035 * (1 - soft[..., 0]))
    warm = painted * np.array([1.03, 0.99, 0.90], np.float32)
    return _bytes(warm + relief[..., None])


def _watercolor(image: Image, mask: Mask, rng: np.random.Generator) -> Image:
    """Thin, clear washes on white paper: darker at their borders, bleeding out towards the margins, a little pencil."""
    unit, size = _unit(image), image.shape[0]
    washes = _kuwahara(_saturated(image, 1.35, 1.1), max(2, round(4 * unit)))
    levels = cv2.GaussianBlur(np.floor(washes * 7 + 0.5) / 7, (0, 0), 0.8 * unit)
    washes = 0.5 * washes + 0.5 * levels
    bloom = cv2.resize(_paper(rng, image[::4, ::4], 26), (size, size), interpolation=cv2.INTER_LINEAR)
    gray = cv2.cvtColor(washes.astype(np.float32), cv2.COLOR_RGB2GRAY)
    border = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size
    margin = np.minimum.reduce([columns, rows, 1 - columns, 1 - rows]) + 0.03 * bloom
    figure = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 2 * unit)
    wet = np.clip((margin - 0.02) / 0.05, 0, 1)
    pigment = (0.80 + 0.12 * bloom) * (0.55 * (1 - figure) + 0.95 * figure) * wet
    pigment = pigment + 0.35 * np.clip(border, 0, 1) * wet
    ink = 0.45 + 0.55 * _ink(image, 0.9, 0.02)
    painted = (1 - (1 - washes) * np.clip(pigment, 0, 1.1)[..., None]) * np.where(mask, ink, 1)[..., None]
    return _bytes(painted * 0.985 + 0.012 * _paper(rng, image, 0.7)[..., None])


def _comic(image: Image, mask: Mask, rng: np.random.Generator) -> Image:
    """Flat, saturated colours in four tones, dots in the shadows, thick black lines."""
    unit = _unit(image)
    flat = _saturated(_smooth(image, 2, 45), 1.7, 1.15)
    hsv = cv2.cvtColor(flat, cv2.COLOR_RGB2HSV).astype(np.float32)
    level = cv2.GaussianBlur(hsv[..., 2], (0, 0), 1.0 * unit)
    hsv[..., 2] = np.clip(np.floor(level / 56) * 56 + 44, 0, 255)
    toned = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] / unit
    dots = np.sin((columns + rows) * 0.9) * np.sin((columns - rows) * 0.9) > 0.35
    shaded = toned * np.where(dots & (level < 130), 0.72, 1.0)[..., None]
    outline = 1 - cv2.GaussianBlur(_border(mask, 3 * unit), (0, 0), 0.7 * unit)
    lines = np.minimum(_ink(_smooth(image, 1, 35), 1.5, 0.006), outline)
    return (shaded * lines[..., None]).astype(np.uint8)


def _border(mask: Mask, width_px: float) -> Array:
    kernel = np.ones((max(2, round(width_px)),) * 2, np.uint8)
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, kernel).astype(np.float32)


def _anime(image: Image, mask: Mask, rng: np.random.Generator) -> Image:
    """Cel shading: pale clean colours in two tones with a hard edge, thin dark-violet lines, a soft bright place."""
    unit = _unit(image)
    flat = _smooth(image, 3, 60).astype(np.float32) / 255
    light = flat.mean(-1, keepdims=True)
    local = light / (cv2.GaussianBlur(light[..., 0], (0, 0), 22 * unit)[..., None] + 0.05)
    cel = 0.86 + 0.26 / (1 + np.exp(-(local - 0.86) * 40))
    chroma = flat / np.maximum(light, 0.06)
    tone = np.clip(light * 0.75 + 0.25, 0, 1) ** 0.8
    figure = chroma * tone * cel
    figure = _saturated(_bytes(figure), 1.25, 1.05).astype(np.float32) / 255
    place = cv2.GaussianBlur(_saturated(image, 1.35, 1.12).astype(np.float32) / 255, (0, 0), 1.5 * unit) * 0.8 + 0.22
    out = np.where(mask[..., None], figure, place)
    lines = np.minimum(_ink(_smooth(image, 1, 40), 0.9, 0.012), 1 - 0.8 * _border(mask, 2 * unit))[..., None]
    return _bytes(out * lines + (1 - lines) * np.array([0.16, 0.10, 0.22]))


def _pixel_art(image: Image, mask: Mask, rng: np.random.Generator) -> Image:
    """Cells of one colour from a palette of twenty, with the contrast of small things raised first."""
    size = image.shape[0]
    cell = max(2, round(PIXEL_ART_CELL_PX * _unit(image)))
    count = -(-size // cell)
    crisp = _saturated(image, 1.35, 1.05).astype(np.float32)
    crisp = np.clip(crisp + 1.0 * (crisp - cv2.GaussianBlur(crisp, (0, 0), cell)), 0, 255)
    padded = cv2.copyMakeBorder(crisp, 0, count * cell - size, 0, count * cell - size, cv2.BORDER_REPLICATE)
    small = cv2.resize(padded, (count, count), interpolation=cv2.INTER_AREA)
    pixels = np.ascontiguousarray(small.reshape(-1, 3), np.float32)
    cv2.setRNGSeed(int(rng.integers(1 << 30)))
    _, labels, palette = cv2.kmeans(pixels, 20, None, (3, 6, 1.0), 1, cv2.KMEANS_PP_CENTERS)  # type: ignore[call-overload]
    cells = palette[labels.ravel()].reshape(count, count, 3)
    return np.clip(np.kron(cells, np.ones((cell, cell, 1))), 0, 255).astype(np.uint8)[:size, :size]


NEON_RAMPS = (
    ((0.03, 0.0, 0.10), (0.28, 0.02, 0.42), (0.85, 0.08, 0.62), (1.0, 0.62, 0.75)),
    ((0.02, 0.01, 0.12), (0.05, 0.10, 0.45), (0.05, 0.55, 0.85), (0.65, 1.0, 1.0)),
)


def _neon(image: Image, mask: Mask, rng: np.random.Generator) -> Image:
    """Night: magenta light from one side and cyan from the other, glowing outlines; the face keeps its tones."""
    unit, size = _unit(image), image.shape[0]
    gray = _evened(image, mask)
    stops = [0.0, 0.33, 0.7, 1.0]
    first, second = (
        np.stack([np.interp(gray, stops, [stop[k] for stop in ramp]) for k in range(3)], -1) for ramp in NEON_RAMPS
    )
    soft = cv2.GaussianBlur(_gray(image), (0, 0), 3 * unit)
    slope = cv2.GaussianBlur(cv2.Sobel(soft, cv2.CV_32F, 1, 0), (0, 0), 3 * unit) * 14
    side = 1 if rng.random() < 0.5 else -1
    ramp = np.linspace(-1.4, 1.4, size, dtype=np.float32)[None] * side
    blend = 1 / (1 + np.exp(-(2.2 * ramp + 2 * side * slope)))
    toned = first * blend[..., None] + second * (1 - blend[..., None])
    toned = toned * np.where(mask, 0.92, 0.5)[..., None]
    outline = _border(mask, 2 * unit)
    glow = cv2.GaussianBlur(outline, (0, 0), 6 * unit)
    tint = np.array([0.2, 1.0, 1.0]) * blend[..., None] + np.array([1.0, 0.25, 0.85]) * (1 - blend[..., None])
    inside = toned * (1 - 0.75 * ((1 - _ink(image, 1.2, 0.012)) * mask)[..., None])
    return _bytes(inside + tint * (0.9 * outline + 1.1 * glow)[..., None])


def _evened(image: Image, mask: Mask) -> Array:
    """Brightness stretched so that the figure's own dark and light ends fill [0, 1] for any skin."""
    gray = _gray(image)
    low, high = np.percentile(gray[mask], (4, 97)) if mask.any() else (0.0, 1.0)
    return np.clip((gray - low) / max(0.1, high - low), 0, 1)


POP_PALETTES = (
    ((40, 20, 110), (235, 50, 120), (255, 160, 60), (255, 240, 150), (40, 190, 210)),
    ((20, 40, 90), (210, 40, 50), (250, 130, 160), (255, 225, 200), (250, 210, 40)),
    ((60, 10, 80), (30, 110, 190), (90, 210, 190), (240, 250, 200), (245, 80, 150)),
    ((30, 30, 30), (190, 60, 30), (250, 170, 40), (255, 240, 190), (110, 80, 200)),
)


def _pop_art(image: Image, mask: Mask, rng: np.random.Generator) -> Image:
    """A screen print: four flat inks for the figure, one saturated ink with dots behind it."""
    unit = _unit(image)
    palette = np.array(POP_PALETTES[int(rng.integers(len(POP_PALETTES)))], np.float32)
    tone = cv2.GaussianBlur(_evened(_smooth(image, 2, 40), mask), (0, 0), 0.8 * unit)
    printed = palette[np.digitize(tone, (0.22, 0.48, 0.72))]
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] / unit
    dots = np.hypot((columns + rows) % 16 - 8, (columns - rows) % 16 - 8) < 4.6
    behind = np.where(dots[..., None], palette[4] * 0.78, palette[4])
    lines = np.minimum(_ink(_smooth(image, 1, 40), 1.3, 0.008), 1 - _border(mask, 3 * unit))[..., None]
    out = np.where(mask[..., None], printed, behind) * lines + palette[0] * 0.5 * (1 - lines)
    return cv2.GaussianBlur(np.clip(out, 0, 255), (0, 0), 0.5 * unit).astype(np.uint8)


def _statue(image: Image, mask: Mask, rng: np.random.Generator) -> Image:
    """For renders, which have the material: smooths the place behind it and adds a little local contrast."""
    unit = _unit(image)
    value = image.astype(np.float32) / 255
    sharp = value + 0.5 * (value - cv2.GaussianBlur(value, (0, 0), 3 * unit))
    place = cv2.GaussianBlur(value, (0, 0), 1.5 * unit) * 0.9
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7 * unit)[..., None]
    return _bytes(sharp * soft + place * (1 - soft))


STYLES: dict[str, Callable[[Image, Mask, np.random.Generator], Image]] = {
    "photo": _photo,
    "pencil sketch": _pencil,
    "oil painting": _oil,
    "watercolor painting": _watercolor,
    "comic book": _comic,
    "anime": _anime,
    "pixel art": _pixel_art,
    "neon cyberpunk": _neon,
    "bronze statue": _statue,
    "marble statue": _statue,
    "pop art": _pop_art,
    "black and white photo": _black_and_white,
}


# Twelve tones from dark to light, (12, 3) each: the means of equal shares of the figure's pixels in true renders.
BRONZE = (
    (19, 12, 5), (40, 24, 10), (53, 32, 13), (67, 41, 16), (82, 50, 20), (98, 59, 23), (114, 69, 28), (132, 81, 33),
    (151, 94, 39), (174, 111, 44), (196, 131, 54), (216, 173, 102),
)  # fmt: skip
MARBLE = (
    (72, 71, 69), (111, 109, 106), (133, 130, 124), (150, 149, 144), (166, 164, 158), (178, 176, 169),
    (188, 185, 178), (196, 193, 187), (203, 201, 194), (209, 207, 200), (215, 213, 207), (224, 223, 218),
)  # fmt: skip


def _cast(image: Image, mask: Mask, rng: np.random.Generator, *, tones: tuple[tuple[int, int, int], ...]) -> Image:
    """A photograph's figure as if made of one material: brightness relative to its surroundings, in the tones given.

    Dividing by the local mean takes out most of the difference between skin, hair and clothes (a retinex, Jobson et
    al. 1997).
    """
    tone = 0.15 + 0.85 * _evened(_smooth(image, 2, 30), mask)
    relief = tone / (cv2.GaussianBlur(tone, (0, 0), 18 * _unit(image)) + 0.04)
    low, high = np.percentile(relief[mask], (2, 98)) if mask.any() else (0.0, 1.0)
    relief = np.clip((relief - low) / max(0.01, high - low), 0, 1)
    level = np.clip(0.88 * relief + 0.12 * tone, 0, 1)
    ramp, places = np.array(tones, np.float32), np.linspace(0, 1, len(tones))
    cast = np.stack([np.interp(level, places, ramp[:, k]) for k in range(3)], -1)
    return _statue(np.where(mask[..., None], cast, image).astype(np.uint8), mask, rng)


# As STYLES, for photographs: their figures have no material.
OF_PHOTOGRAPHS = STYLES | {"bronze statue": partial(_cast, tones=BRONZE), "marble statue": partial(_cast, tones=MARBLE)}


def styled(prepared: PreparedPhoto, style: str, rng: np.random.Generator) -> PreparedPhoto:
    """A prepared photograph in one of the styles; deterministic for a generator state."""
    image = OF_PHOTOGRAPHS[style](prepared.image, prepared.matte >= 128, rng)
    return replace(prepared, image=np.ascontiguousarray(image, np.uint8))
