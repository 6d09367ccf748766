"""Face detection: position, importance and pose of each face.

Two BlazeFace detectors (near and far) propose boxes. A box counts as a face only if the face mesh finds its landmarks
in it, which removes most false positives. Verdicts are in `checks`.

Sources: Bazarevsky et al., 'BlazeFace', 2019; Kartynnik et al., 'Real-time facial surface geometry', 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from .blazeface import FAR, NEAR, detections
from .mesh import landmarks_of
from .pose import Expression, expression_of, pose_deg

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

_MESH_CONTEXT = 1.8  # side of the mesh's window in face boxes: leaves room for the chin and a turned head
_MESH_SIDE_PX = 384
_SAME_FACE_OVERLAP = 0.4
_DETECTORS = ((NEAR, 0.5), (FAR, 0.6))  # the least score of each, as in mediapipe

LYING_DEG = 45.0  # beyond this, the next quarter turn is closer to upright
# The mesh reads an upside-down face as upright. The detectors' score shows the difference: 0.79 to 0.95 upright, 0.53
# to 0.77 for the same 23 photographs upside down, at least 0.06 apart in each.
_SURE_SCORE, _CLEAR_GAIN = 0.85, 0.04


@dataclass(frozen=True, eq=False)
class Face:
    """One face of a photograph."""

    box_px: tuple[int, int, int, int]  # left, top, right, bottom of the landmarks; may be outside the image
    landmarks: NDArray[np.float32] = field(repr=False)  # (478, 3) x, y, depth in pixels
    yaw_deg: float  # see pose.pose_deg for the signs
    pitch_deg: float
    roll_deg: float
    expression: Expression
    score: float  # of the detector, 0..1; higher for an upright face, see `upright`

    @property
    def size_px(self) -> int:
        """The longer side of the box: the width shrinks when a head turns, the height when it nods."""
        left, top, right, bottom = self.box_px
        return max(right - left, bottom - top)


class FaceDetector(Protocol):
    """Finds faces, the most important one first."""

    def detect(self, image: NDArray[np.uint8]) -> list[Face]: ...


class MediaPipeFaces:
    """Face detection by MediaPipe's networks, on the CPU, about 20 ms for a photograph."""

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """All faces, most important first (large and central).

        Args:
            image: (H, W, 3) RGB, 0..255.

        Raises:
            MissingPart: LiteRT or a model is not installed.
        """
        faces = [face for box, score in _boxes(image) if (face := _meshed(image, box, score)) is not None]
        ranked = sorted(faces, key=lambda face: importance(face, image.shape[:2]), reverse=True)
        distinct: list[Face] = []
        for face in ranked:
            if all(overlap(face.box_px, other.box_px) < _SAME_FACE_OVERLAP for other in distinct):
                distinct.append(face)
        return distinct


def upright(image: NDArray[np.uint8], finder: FaceDetector) -> tuple[NDArray[np.uint8], list[Face], int]:
    """The image rotated by quarter turns so that its most important face is upright, and its faces.

    Args:
        image: (H, W, 3) RGB, 0..255.

    Returns:
        The image, its faces, and the number of quarter turns clockwise, 0..3. Without a face in any orientation the
        image is returned unchanged.
    """
    faces = finder.detect(image)
    if faces and abs(faces[0].roll_deg) <= LYING_DEG and faces[0].score >= _SURE_SCORE:
        return image, faces, 0
    best, best_score = (image, faces, 0), _upright_score(faces) + _CLEAR_GAIN
    for turns in (1, 2, 3):
        turned = np.ascontiguousarray(np.rot90(image, -turns))
        found = finder.detect(turned)
        if _upright_score(found) > best_score:
            best, best_score = (turned, found, turns), _upright_score(found)
    return best


def _upright_score(faces: Sequence[Face]) -> float:
    """The first face's score; 0 if there is none or it is not upright."""
    return faces[0].score if faces and abs(faces[0].roll_deg) <= LYING_DEG else 0.0


def importance(face: Face, shape: tuple[int, ...]) -> float:
    """Share of the image times closeness to its centre, so that a large face beside a small central one wins."""
    height, width = shape[:2]
    left, top, right, bottom = face.box_px
    offset = np.hypot((left + right) / 2 / width - 0.5, (top + bottom) / 2 / height - 0.5) / np.hypot(0.5, 0.5)
    return float((right - left) * (bottom - top) / (height * width) * (1.0 - 0.5 * min(offset, 1.0)))


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return common / (areas - common)


def square_window(image: NDArray[np.uint8], centre_px: tuple[float, float], side_px: float) -> NDArray[np.uint8]:
    """A square of the image (side, side, 3); beyond the edges the last row or column is repeated."""
    side = max(round(side_px), 1)
    left, top = (round(middle - side / 2) for middle in centre_px)
    height, width = image.shape[:2]
    inside = image[max(top, 0) : max(min(top + side, height), 0), max(left, 0) : max(min(left + side, width), 0)]
    pads = (max(-top, 0), max(top + side - height, 0), max(-left, 0), max(left + side - width, 0))
    return np.asarray(cv2.copyMakeBorder(inside, *pads, borderType=cv2.BORDER_REPLICATE), dtype=np.uint8)


def _boxes(image: NDArray[np.uint8]) -> list[tuple[Box, float]]:
    found: list[tuple[Box, float]] = []
    for detector, least_score in _DETECTORS:
        for detection in detections(image, detector, least_score):
            if all(overlap(detection.box_px, other) < _SAME_FACE_OVERLAP for other, _ in found):
                found.append((detection.box_px, detection.score))
    return found


def _meshed(image: NDArray[np.uint8], box: Box, score: float) -> Face | None:
    centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    side = round(_MESH_CONTEXT * max(box[2] - box[0], box[3] - box[1]))
    height, width = image.shape[:2]
    if side < 8 or not (0 <= centre[0] < width and 0 <= centre[1] < height):
        return None
    window = cv2.resize(
        square_window(image, centre, side), (_MESH_SIDE_PX, _MESH_SIDE_PX), interpolation=cv2.INTER_AREA
    )
    shares = landmarks_of(np.asarray(window, dtype=np.uint8))
    if shares is None:
        return None
    points = (shares * side).astype(np.float32)
    corner = [round(middle - side / 2) for middle in centre]
    points[:, :2] += corner
    left, top = points[:, :2].min(axis=0)
    right, bottom = points[:, :2].max(axis=0)
    yaw_deg, pitch_deg, roll_deg = pose_deg(points)
    return Face(
        box_px=(int(left), int(top), int(right), int(bottom)),
        landmarks=points,
        yaw_deg=yaw_deg,
        pitch_deg=pitch_deg,
        roll_deg=roll_deg,
        expression=expression_of(points),
        score=score,
    )
