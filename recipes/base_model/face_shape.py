"""Measures whether a face is well formed, from its mesh and eyes, for comparison with true renders.

Detection alone is not enough, because smeared faces are detected too. A broken face has a mesh unlike true faces, eyes
without contrast, and landmarks that move when the image is rotated slightly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from likeness.photos import Face

FAR = 1.6  # faces beyond this distance count as broken; 3 % of true renders exceed it
COMPONENTS = 30
TURN_SPREAD_DEG = 8.0  # of the weight of true faces by how much further, or less far, they are turned
LEAST_FACES = 2 * COMPONENTS  # for fitting
_MESH_POINTS = 468  # the rest are irises
_EYES = ((33, 133, 159, 145), (362, 263, 386, 374))  # two corners, upper and lower lid
_EYE_WIDTH, _EYE_HEIGHT = 1.3, 0.7  # of its box, in distances of the corners
_CHANGES = ((8.0, 1.0, 3.0, -2.0), (-8.0, 0.9, -2.0, 3.0), (0.0, 0.85, 4.0, 4.0))  # degrees, scale, pixels right, down

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]


def normalised(face: Face) -> Points:
    """The mesh (1404,): 468 points, centred, upright, of unit size."""
    points = face.landmarks[:_MESH_POINTS].astype(np.float64)
    points -= points.mean(0)
    cosine, sine = np.cos(np.radians(face.roll_deg)), np.sin(np.radians(face.roll_deg))
    points[:, :2] = points[:, :2] @ np.array([[cosine, -sine], [sine, cosine]])
    return (points / np.sqrt(np.square(points).sum(1).mean())).ravel()


@dataclass(frozen=True, eq=False)
class FaceShapes:
    """The shapes of true faces: mean, principal components, and their spread as a function of the head's turn.

    Meshes of heads that are turned by more than 30 degrees vary most: without regard to that, nearly all true renders
    beyond `FAR` were such ones, and a sampler that turns heads less passed for one that draws them better.
    """

    mean: Points  # (1404,)
    axes: Points  # (1404, COMPONENTS)
    deviations: Points  # (COMPONENTS,)
    turns_deg: Points  # (N,) of the fitted faces
    distances: Points  # (N,) of the fitted faces, in standard deviations

    @classmethod
    def of(cls, faces: Sequence[Face]) -> "FaceShapes":
        """Raises ValueError for fewer faces than `LEAST_FACES`."""
        if len(faces) < LEAST_FACES:
            raise ValueError(f"expected at least {LEAST_FACES} faces of true renders, got {len(faces)}: render more")
        points = np.stack([normalised(face) for face in faces])
        mean = points.mean(0)
        _, strengths, axes = np.linalg.svd(points - mean, full_matrices=False)
        axes, deviations = axes[:COMPONENTS].T, strengths[:COMPONENTS] / np.sqrt(len(faces) - 1)
        distances = np.sqrt(np.square((points - mean) @ axes / deviations).mean(1))
        return cls(mean, axes, deviations, np.abs([face.yaw_deg for face in faces]), distances)

    def distance(self, face: Face) -> float:
        """Root mean square over the components, relative to true faces with a similar turn: about 1 for true faces."""
        distance = np.sqrt(np.square((normalised(face) - self.mean) @ self.axes / self.deviations).mean())
        nearness = np.exp(-np.square((abs(face.yaw_deg) - self.turns_deg) / TURN_SPREAD_DEG) / 2)
        return float(distance / np.sqrt(np.average(np.square(self.distances), weights=nearness)))


def eye_contrast(picture: Pixels, face: Face) -> float:
    """Standard deviation of the luminance around each eye of `face` in `picture` (H, W, 3), mean of both; 0..128."""
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    found = []
    for eye in _EYES:
        points = face.landmarks[list(eye), :2]
        middle, width = points.mean(0), float(np.linalg.norm(points[0] - points[1]))
        reach = np.maximum([_EYE_WIDTH * width / 2, _EYE_HEIGHT * width / 2], 1)
        left, top = np.maximum(np.rint(middle - reach), 0).astype(int)
        right, bottom = np.maximum(np.rint(middle + reach), 0).astype(int)
        if (box := gray[top:bottom, left:right]).size:
            found.append(float(box.std()))
    return float(np.mean(found)) if found else 0.0


def jitter(picture: Pixels, face: Face, find: Callable[[Pixels], Face | None]) -> float:
    """Movement of the mesh when `picture` (H, W, 3) is rotated, scaled and shifted, in distances of the eyes.

    Mean over the points and over the changed pictures in which `find` sees a face; NaN where it sees none.
    """
    height, width = picture.shape[:2]
    eyes = np.linalg.norm(face.landmarks[_EYES[0][0], :2] - face.landmarks[_EYES[1][1], :2])
    moved = []
    for degrees, scale, right, down in _CHANGES:
        change = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale), np.float64)
        change[:, 2] += right, down
        other = find(np.asarray(cv2.warpAffine(picture, change, (width, height), borderMode=cv2.BORDER_REPLICATE)))
        if other is not None:
            back = cv2.invertAffineTransform(change)
            points = other.landmarks[:_MESH_POINTS, :2] @ back[:, :2].T + back[:, 2]
            moved.append(float(np.linalg.norm(points - face.landmarks[:_MESH_POINTS, :2], axis=1).mean() / eyes))
    return float(np.mean(moved)) if moved else float("nan")
