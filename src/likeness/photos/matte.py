"""The matte of a person: a coarse segmentation, refined along the edges of the image.

Sources: the model card of MediaPipe's selfie segmentation; He, Sun, Tang, 'Guided image filtering', TPAMI 2013,
equations 11 to 13.
"""

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from . import models
from .network import Network, sampled

Plane = NDArray[np.float32]  # (H, W), 0..1

_CELLS = 256  # side of the segmenter's input and output
_RADIUS_SHARE = 1 / 64  # of the side; a cell of the segmenter is 1/256
_EDGE = 1e-4  # variance below which the filter smooths
# The network is never fully certain, so its probabilities are stretched; more at the low end, to avoid a halo of the
# old background.
_LOW, _HIGH = 0.3, 0.9
LEAST_OF_FACE = 0.8  # share of the face mask; 0.98 and more in photographs with a correct matte


def person_probability(image: NDArray[np.uint8]) -> Plane:
    """The segmenter's probability (H, W), 0..1, with a resolution of about 1/256 of the side.

    Args:
        image: (H, W, 3) RGB; works best if the person fills a third of it or more.
    """
    height, width = image.shape[:2]
    tensor = sampled(image, (width / 2, height / 2), (width, height), side_px=_CELLS, border=cv2.BORDER_CONSTANT)
    mask = _segmenter()(tensor)[0].reshape(_CELLS, _CELLS)
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def refine(probability: Plane, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The matte (H, W), 0..255: the probability aligned with the image's edges, soft at hair."""
    side = max(image.shape[:2])
    radius = max(int(side * _RADIUS_SHARE), 2)
    guide = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255)
    alpha = guided_filter(guide, probability, radius)
    stretched = np.clip((alpha - _LOW) / (_HIGH - _LOW), 0.0, 1.0)
    return np.asarray(np.rint(stretched * 255), dtype=np.uint8)


def covering(matte: NDArray[np.uint8], face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The matte, or all 255 if it does not cover the face, so that an undetected person does not become background.

    Args:
        matte, face: (H, W), 255 = the person, the face; `face` may be all 0.
    """
    inside = face > 127
    if not inside.any() or matte[inside].mean() >= LEAST_OF_FACE * 255:
        return matte
    return np.full_like(matte, 255)


def guided_filter(guide: Plane, plane: Plane, radius_px: int) -> Plane:
    """`plane` as a local linear function of `guide`: smooth where the guide is flat, sharp at its edges."""
    window = (2 * radius_px + 1,) * 2
    mean_guide, mean_plane = cv2.blur(guide, window), cv2.blur(plane, window)
    variance = cv2.blur(guide * guide, window) - mean_guide * mean_guide
    covariance = cv2.blur(guide * plane, window) - mean_guide * mean_plane
    slope = covariance / (variance + _EDGE)
    offset = mean_plane - slope * mean_guide
    return np.asarray(cv2.blur(slope, window) * guide + cv2.blur(offset, window), dtype=np.float32)


def only_at(probability: Plane, point_px: tuple[float, float]) -> Plane:
    """Keep the person at a point and remove others who are separated by a gap."""
    count, labels = cv2.connectedComponents((probability > 0.5).astype(np.uint8))
    height, width = probability.shape
    column, row = (
        int(np.clip(round(value), 0, limit - 1)) for value, limit in zip(point_px, (width, height), strict=True)
    )
    label = int(labels[row, column])
    if label == 0 or count <= 2:  # no person at the point, or only one person
        return probability
    own = (labels == label).astype(np.uint8)
    reach = max(int(max(height, width) * _RADIUS_SHARE), 2)
    near = cv2.dilate(own, np.ones((2 * reach + 1,) * 2, np.uint8))
    others = cv2.dilate(((labels > 0) & (own == 0)).astype(np.uint8), np.ones((reach, reach), np.uint8))
    return np.where((near > 0) & (others == 0), probability, np.float32(0))


@functools.cache
def _segmenter() -> Network:
    return Network(models.read(models.SELFIE))
