"""Faces as boxes with six points: two networks, for faces near and far, their anchors and their suppression.

Sources: Bazarevsky et al., 'BlazeFace: Sub-millisecond neural face detection on mobile GPUs', 2019 (anchors, section
3.2; blending of overlapping boxes in place of suppression, section 3.3); Liu et al., 'SSD', 2016 (offsets from
anchors). The constants are those of MediaPipe's graphs `face_detection_short_range` and `face_detection_full_range`.
"""

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from . import models
from .network import Network, sampled

_SAME_FACE_OVERLAP = 0.3
_POINTS = 6


@dataclass(frozen=True)
class Detector:
    """One of the two networks."""

    file: models.ModelFile
    side_px: int
    anchors: tuple[tuple[int, int], ...]  # stride in pixels, anchors per cell


NEAR = Detector(models.FACES_NEAR, 128, ((8, 2), (16, 6)))  # faces within 2 m of the camera
FAR = Detector(models.FACES_FAR, 192, ((4, 1),))  # within 5 m


@dataclass(frozen=True, eq=False)
class Detection:
    """A face, in pixels of the image."""

    box_px: tuple[float, float, float, float]  # left, top, right, bottom
    points_px: NDArray[np.float64]  # (6, 2): the eye on the image's left, the other, nose, mouth, the two ears
    score: float  # 0..1


def detections(image: NDArray[np.uint8], detector: Detector, least_score: float) -> list[Detection]:
    """The faces of an image, the highest score first.

    Args:
        image: (H, W, 3) RGB, 0..255.
        least_score: boxes below it are ignored, also where boxes are blended.

    Raises:
        MissingPart: LiteRT or the model is not installed.
    """
    height, width = image.shape[:2]
    side = float(max(height, width))
    tensor = sampled(
        image, (width / 2, height / 2), (side, side),
        side_px=detector.side_px, span=(-1.0, 1.0), border=cv2.BORDER_CONSTANT,
    )  # fmt: skip
    offsets, logits = _network(detector)(tensor)
    scores = 1 / (1 + np.exp(-np.clip(logits.reshape(-1).astype(np.float64), -100, 100)))
    found = np.flatnonzero(scores >= least_score)
    centres = anchor_centres(detector)[found]
    rows = blended(decoded(offsets[0, found].astype(np.float64) / detector.side_px, centres), scores[found])
    result = []
    for shares, score in rows:
        points = (shares - 0.5) * side + (width / 2, height / 2)  # (8, 2): the square is centred on the image
        (left, top), (right, bottom) = points[:2].tolist()
        result.append(Detection((left, top, right, bottom), points[2:], score))
    return result


def anchor_centres(detector: Detector) -> NDArray[np.float64]:
    """(N, 2) x and y of the anchors as shares of the side; rows of cells first, then the anchors of one cell."""
    layers = []
    for stride, count in detector.anchors:
        cells = detector.side_px // stride
        rows, columns = np.mgrid[0:cells, 0:cells]
        middles = np.stack([columns, rows], axis=-1).reshape(-1, 2) + 0.5
        layers.append(np.repeat(middles / cells, count, axis=0))
    return np.concatenate(layers)


def decoded(offsets: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 8, 2): top left and bottom right of the boxes, then the six points, as shares of the side.

    Args:
        offsets: (N, 16) centre, size and the six points, relative to the anchor.
        centres: (N, 2) of the anchors.
    """
    pairs = offsets.reshape(-1, 2 + _POINTS, 2)
    middle, half = pairs[:, 0] + centres, pairs[:, 1] / 2
    return np.stack([middle - half, middle + half, *(pairs[:, 2 + i] + centres for i in range(_POINTS))], axis=1)


def blended(boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> list[tuple[NDArray[np.float64], float]]:
    """One box for each group of overlapping ones: their mean, weighted by score, and the group's highest score.

    Args:
        boxes: (N, 8, 2) as of `decoded`.
        scores: (N,).
    """
    left = np.argsort(-scores, kind="stable")
    groups = []
    while left.size:
        near = _overlaps(boxes[left[0]], boxes[left]) > _SAME_FACE_OVERLAP
        own = left[near]
        groups.append((np.average(boxes[own], axis=0, weights=scores[own]), float(scores[left[0]])))
        left = left[~near]
    return groups


def _overlaps(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) intersection over union."""
    common = np.clip(np.minimum(box[1], boxes[:, 1]) - np.maximum(box[0], boxes[:, 0]), 0, None).prod(axis=1)
    areas = (boxes[:, 1] - boxes[:, 0]).prod(axis=1)
    return np.asarray(common / np.maximum((box[1] - box[0]).prod() + areas - common, 1e-12), dtype=np.float64)


@functools.cache
def _network(detector: Detector) -> Network:
    return Network(models.read(detector.file))
