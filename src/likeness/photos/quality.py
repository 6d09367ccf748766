"""Measurements on pixels: blur, light, colour, similarity of two files.

Pure functions; `checks` has the limits and the messages.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]  # (H, W)

# Copies that are re-encoded, scaled or cropped by 2 % per side differ in 0 to 6 of 64 bits and correlate by 0.93 to
# 1.0; different photographs differ in 6 bits or more and correlate by at most 0.943.
NEAR_BITS, NEAR_CORRELATION = 6, 0.955

# Faces are brought to these sizes; blur that is invisible at 512 px does not count. -> the least step of luma
# that counts: a strong blur leaves slopes of less than one level a pixel, of which rounding makes false edges.
_BLUR_SIDES_PX = {192: 0.0, 96: 0.5}
_BLUR_TAPS = 9
_TONE_SIDE_PX, _TONE_STEPS = 96, 16
_WELL_LIT, _MOST_GAIN = 0.75, 4.0  # the brightest channel of an image that is not brightened; more shows its noise


class Print(NamedTuple):
    """Perceptual hash and thumbnail of an image."""

    bits: NDArray[np.bool_]  # (64,)
    thumbnail: NDArray[np.float32]  # (32, 32), see `thumbnail`


def grey(image: NDArray[np.uint8]) -> Grey:
    """Luma (H, W) of an RGB image."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def blur_effect(luma: Grey) -> float:
    """0 sharp .. 1 blurred: how little an image changes when it is blurred again, at the worse of two scales.

    Source: Crete et al., 'The blur effect', SPIE 6492, 2007.
    """
    effects = []
    for longest, least in _BLUR_SIDES_PX.items():
        scale = min(1.0, longest / max(luma.shape))
        height, width = (max(round(side * scale), 1) for side in luma.shape)
        picture = cv2.resize(luma.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        for axis, window in ((0, (1, _BLUR_TAPS)), (1, (_BLUR_TAPS, 1))):
            steps = np.abs(np.diff(picture, axis=axis))
            steps_blurred = np.abs(np.diff(cv2.blur(picture, window), axis=axis))
            lost = np.maximum(steps - steps_blurred - least, 0).sum()
            effects.append(1.0 - lost / steps.sum() if steps.sum() > 0 else 1.0)
    return float(max(effects))


def brightest(luma: Grey) -> float:
    """The 95th percentile of luma, 0..255: a dark photograph, unlike dark skin at a dark wall, has no lit areas."""
    return float(np.percentile(luma, 95))


def blown_share(luma: Grey) -> float:
    """Share of overexposed pixels, 0..1."""
    return float((luma >= 250).mean())


def colourfulness(image: NDArray[np.uint8]) -> float:
    """Variation of colour: 96th percentile of the distance in Lab to the typical colour at the same lightness.

    0 for grey photographs and for those in one tone, such as sepia, where the lightness determines the colour. A dark
    image is brightened first, because all distances are smaller in it; otherwise dark skin in dim light would be grey.

    Args:
        image: (H, W, 3) RGB, 0..255.
    """
    small = cv2.resize(image, (_TONE_SIDE_PX,) * 2, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    brightest = max(float(np.percentile(small.max(axis=2), 99)), 1 / 255)
    small *= min(max(_WELL_LIT / brightest, 1.0), _MOST_GAIN)
    lab = np.asarray(cv2.cvtColor(small.clip(0, 1), cv2.COLOR_RGB2LAB), dtype=np.float32).reshape(-1, 3)
    lightness, colour = lab[:, 0], lab[:, 1:].copy()
    step = np.digitize(lightness, np.quantile(lightness, np.linspace(0, 1, _TONE_STEPS + 1)[1:-1]))
    for one in np.unique(step):
        colour[step == one] -= np.median(colour[step == one], axis=0)
    return float(np.percentile(np.linalg.norm(colour, axis=1), 96))


def fingerprint(luma: Grey) -> Print:
    """The print of an image: copies of an image have similar prints.

    The bits are signs of the lowest 8 x 8 cosine frequencies of a 32 x 32 copy, against their median.

    Source: Zauner, 'Implementation and benchmarking of perceptual image hash functions', 2010, section 3.2.1.
    """
    small = cv2.resize(luma, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    return Print(np.asarray(low > np.median(low[1:])), thumbnail(luma))  # the first coefficient is the mean brightness


def is_near(one: Print, other: Print) -> bool:
    """Whether two images are nearly the same; bits and thumbnails must both agree."""
    bits = int(np.count_nonzero(one.bits != other.bits))
    return bits <= NEAR_BITS and float((one.thumbnail * other.thumbnail).sum()) >= NEAR_CORRELATION


def thumbnail(luma: Grey) -> NDArray[np.float32]:
    """A 32 x 32 copy with mean 0 and length 1: the dot product of two is their correlation."""
    small = cv2.resize(luma, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-6))
