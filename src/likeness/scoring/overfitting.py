"""Signs that a fine-tune kept photographs instead of a person: whole pictures or backgrounds that come out again.

Copies are found as `photos.checks` finds near duplicates: by the correlation of small grey pictures.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ..photos.checks import NEAR_CORRELATION
from ..photos.quality import grey, thumbnail
from ..types import PreparedPhoto

_SIDE = 32  # cells of the small pictures
BACKGROUND_CORRELATION = 0.9
_LEAST_CELLS = 100  # of background, or there is too little to say
_LEAST_CONTRAST = 4.0  # grey levels; every plain wall looks like every other

Image = NDArray[np.uint8]  # (H, W, 3) RGB


def copies(portraits: Sequence[Image], photos: Sequence[PreparedPhoto]) -> int:
    """How many portraits look almost the same as one photograph or as its mirror image."""
    known = [thumbnail(grey(image)) for photo in photos for image in (photo.image, mirrored(photo.image))]
    return sum(
        any(float((thumbnail(grey(portrait)) * one).sum()) >= NEAR_CORRELATION for one in known)
        for portrait in portraits
    )


def copied_backgrounds(portraits: Sequence[Image], photos: Sequence[PreparedPhoto]) -> int:
    """How many portraits have, where a photograph has no person, what that photograph has there."""
    grounds = [
        (_small(grey(turn(photo.image))), _small(turn(photo.matte)) < 0.1 * 255)
        for photo in photos
        if photo.framing in ("portrait", "aligned")
        for turn in (np.asarray, mirrored)
    ]
    return sum(any(_alike(_small(grey(portrait)), *ground) for ground in grounds) for portrait in portraits)


def mirrored(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Left and right exchanged."""
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
