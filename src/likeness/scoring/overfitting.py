"""Memorisation: photographs or backgrounds that portraits reproduce.

Copies are found like near-duplicates in `photos.quality`: by the correlation of small grey images.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ..photos.quality import NEAR_CORRELATION, grey, thumbnail
from ..types import PreparedPhoto

_SIDE = 32  # side of the small images
BACKGROUND_CORRELATION = 0.9
_LEAST_CELLS = 100  # of background; with fewer, no comparison is made
_LEAST_CONTRAST = 4.0  # grey levels; plain walls all look alike

Image = NDArray[np.uint8]  # (H, W, 3) RGB


def copies(portraits: Sequence[Image], photos: Sequence[PreparedPhoto]) -> int:
    """Number of portraits that nearly equal a photograph or its mirror image."""
    known = [thumbnail(grey(image)) for photo in photos for image in (photo.image, mirrored(photo.image))]
    return sum(
        any(float((thumbnail(grey(portrait)) * one).sum()) >= NEAR_CORRELATION for one in known)
        for portrait in portraits
    )


def copied_backgrounds(portraits: Sequence[Image], photos: Sequence[PreparedPhoto]) -> int:
    """Number of portraits with the background of a photograph."""
    grounds = [
        (_small(grey(turn(photo.image))), _small(turn(photo.matte)) < 0.1 * 255)
        for photo in photos
        if photo.framing in ("portrait", "aligned")
        for turn in (np.asarray, mirrored)
    ]
    return sum(any(_alike(_small(grey(portrait)), *ground) for ground in grounds) for portrait in portraits)


def mirrored(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mirror image."""
    return np.ascontiguousarray(image[:, ::-1])


def _alike(portrait: NDArray[np.float64], photo: NDArray[np.float64], ground: NDArray[np.bool_]) -> bool:
    if np.count_nonzero(ground) < _LEAST_CELLS:
        return False
    one, other = portrait[ground], photo[ground]
    if min(one.std(), other.std()) < _LEAST_CONTRAST:
        return False
    return float(np.corrcoef(one, other)[0, 1]) >= BACKGROUND_CORRELATION


def _small(plane: NDArray[np.uint8]) -> NDArray[np.float64]:
    return cv2.resize(plane, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)
