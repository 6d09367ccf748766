"""Is a face well formed: what its mesh and its eyes say, to be held against true renders'.

That a face is found says nothing: smears are found too. A broken face has a mesh that true faces do not have, eyes
without contrast, and points that go elsewhere when the same picture is turned a little.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from likeness.photos import Face

FAR = 1.6  # distance of a broken face; 3 % of true renders are as far
COMPONENTS = 30
LEAST_FACES = 2 * COMPONENTS  # to fit them
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
    """The shapes of true faces: mean, principal components and how far they reach."""

    mean: Points  # (1404,)
    axes: Points  # (1404, COMPONENTS)
    deviations: Points  # (COMPONENTS,)

    @classmethod
    def of(cls, faces: Sequence[Face]) -> "FaceShapes":
        """Raises ValueError for fewer faces than `LEAST_FACES`."""
        if len(faces) < LEAST_FACES:
            raise ValueError(f"expected at least {LEAST_FACES} faces of true renders, got {len(faces)}: render more")
        points = np.stack([normalised(face) for face in faces])
        _, strengths, axes = np.linalg.svd(points - points.mean(0), full_matrices=False)
        deviations = strengths[:COMPONENTS] / np.sqrt(len(faces) - 1)
        return cls(points.mean(0), axes[:COMPONENTS].T, deviations)

    def distance(self, face: Face) -> float:
        """Root mean square over the components, in their standard deviations: about 1 for true faces."""
        return float(np.sqrt(np.square((normalised(face) - self.mean) @ self.axes / self.deviations).mean()))


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
    """How far the mesh moves when `picture` (H, W, 3) is turned, shrunk and moved, in distances of the eyes.

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
