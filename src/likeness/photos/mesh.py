"""The 478 landmarks of a face: a network for the whole face, then one that refines lips and eyes.

The file's three operators between the two networks exist only inside MediaPipe, so the file is cut there and the
operators are the functions `region`, `looked_at` and `placed`.

Source: Grishchenko et al., 'Attention Mesh: High-fidelity face mesh prediction in real-time', 2020, sections 2 and 3.
The constants are those of MediaPipe's graphs `face_landmark_front` and `tensors_to_face_landmarks_with_attention`.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import models
from .blazeface import NEAR, Detection, detections
from .network import Network, Tensor, part_of, sampled

Points = NDArray[np.float64]

_SIDE_PX = 192
_FACE_CONTEXT = 1.5  # side of the network's view in boxes of the detector
_LEAST_FACE_SCORE, _LEAST_MESH_SCORE = 0.2, 0.5  # the caller's detector has found the face before
_CELLS = 48  # side of the features
_FEATURE_PX = _SIDE_PX / _CELLS
REGION_CELLS = 16
_MESH = 468
_EYELIDS = 16  # the first landmarks of an eye; their mean depth is the iris'


@dataclass(frozen=True, eq=False)
class Region:
    """Lips or an eye: the landmarks that the closer look replaces."""

    landmarks: tuple[int, ...]
    level: tuple[int, int]  # two of them that are level in the region's own view, the one on the image's left first
    context: float  # side of the view in extents of the landmarks


@dataclass(frozen=True, eq=False)
class Networks:
    face: Network  # (1, 192, 192, 3), 0..1 -> landmarks (1, 1, 1, 1404), score, features (1, 48, 48, 32)
    closer: Network  # three times (1, 16, 16, 32) -> lips (80, 2), eye (71, 2), iris (5, 2), other eye, other iris
    regions: tuple[Region, Region, Region]  # lips, the eye on the image's left, the other eye


def landmarks_of(window: NDArray[np.uint8]) -> Points | None:
    """The landmarks (478, 3) of the most certain face, as shares of the window's side; depth on the same scale.

    Args:
        window: (S, S, 3) RGB, 0..255, around a face.

    Raises:
        MissingPart: LiteRT or a model is not installed.
    """
    found = detections(window, NEAR, _LEAST_FACE_SCORE)
    if not found:
        return None
    centre, size_px, angle = view_of(found[0])
    tensor = sampled(window, centre, (size_px, size_px), side_px=_SIDE_PX, angle_rad=angle)
    mesh = _mesh(tensor)
    if mesh is None:
        return None
    cosine, sine = np.cos(angle), np.sin(angle)
    mesh *= size_px / _SIDE_PX
    flat = (mesh[:, :2] - size_px / 2) @ np.array([[cosine, sine], [-sine, cosine]]) + centre
    return np.column_stack([flat, mesh[:, 2]]) / window.shape[0]


def view_of(face: Detection) -> tuple[tuple[float, float], float, float]:
    """The square in which the eyes are level: its centre and side in pixels and its angle in radians, clockwise."""
    left, top, right, bottom = face.box_px
    across = face.points_px[1] - face.points_px[0]
    side = _FACE_CONTEXT * max(right - left, bottom - top)
    return ((left + right) / 2, (top + bottom) / 2), side, float(np.arctan2(across[1], across[0]))


def region(landmarks: Points, part: Region) -> NDArray[np.float64]:
    """The transform (2, 3) from the region's view, in cells, to the features' cells.

    The view is the box of the region's landmarks, rotated so that two of them are level, with `context` around it.

    Args:
        landmarks: (468, 2) in cells of the features.
    """
    first, last = landmarks[list(part.level)]
    angle = np.arctan2(*(last - first)[::-1])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])  # of the view into the features
    level = landmarks[list(part.landmarks)] @ turn
    low, high = level.min(axis=0), level.max(axis=0)
    linear = turn * (part.context * (high - low) / REGION_CELLS)
    centre = turn @ ((low + high) / 2)
    return np.column_stack([linear, centre - linear @ np.full(2, REGION_CELLS / 2)])


def looked_at(features: Tensor, transform: NDArray[np.float64]) -> Tensor:
    """The features in a region's view (1, 16, 16, C), bilinear between the cells' centres, 0 outside.

    Args:
        features: (1, 48, 48, C).
        transform: (2, 3) of `region`.
    """
    rows, columns = np.mgrid[0:REGION_CELLS, 0:REGION_CELLS] + 0.5
    x, y = np.tensordot(transform, np.stack([columns, rows, np.ones_like(rows)]), axes=1) - 0.5
    is_inside = (x >= 0) & (x <= _CELLS - 1) & (y >= 0) & (y <= _CELLS - 1)
    left, top = (np.clip(np.floor(axis), 0, _CELLS - 2).astype(int) for axis in (x, y))
    right_share, low_share = (x - left)[..., None], (y - top)[..., None]
    plane = features[0]
    upper = plane[top, left] * (1 - right_share) + plane[top, left + 1] * right_share
    lower = plane[top + 1, left] * (1 - right_share) + plane[top + 1, left + 1] * right_share
    mixed = upper * (1 - low_share) + lower * low_share
    return np.where(is_inside[..., None], mixed, 0).astype(np.float32)[None]


def placed(points: Points, transform: NDArray[np.float64]) -> Points:
    """Landmarks (N, 2) of a region's view, in pixels of 4 to a cell, in the pixels of the face's view."""
    return points @ transform[:, :2].T + transform[:, 2] * _FEATURE_PX


def _mesh(tensor: Tensor) -> Points | None:
    """(478, 3) in pixels of the network's view, or None where it sees no face."""
    networks = _networks()
    flat, logit, features = networks.face(tensor)
    if 1 / (1 + np.exp(-float(logit.reshape(())))) <= _LEAST_MESH_SCORE:
        return None
    mesh = np.zeros((_MESH + 10, 3))
    mesh[:_MESH] = flat.reshape(_MESH, 3)
    transforms = [region(mesh[:_MESH, :2] / _FEATURE_PX, part) for part in networks.regions]
    lips, *eyes = networks.closer(*(looked_at(features, transform) for transform in transforms))
    for part, points, transform in zip(networks.regions, (lips, eyes[0], eyes[2]), transforms, strict=True):
        mesh[list(part.landmarks), :2] = placed(points.reshape(-1, 2).astype(np.float64), transform)
    for place, points, number in ((1, eyes[1], _MESH), (2, eyes[3], _MESH + 5)):
        mesh[number : number + 5, :2] = placed(points.reshape(5, 2).astype(np.float64), transforms[place])
        mesh[number : number + 5, 2] = mesh[list(networks.regions[place].landmarks[:_EYELIDS]), 2].mean()
    return mesh


@functools.cache
def _networks() -> Networks:
    from ai_edge_litert.schema_py_generated import ModelT
    from flatbuffers import flexbuffers

    model = ModelT.InitFromPackedBuf(bytearray(models.read(models.FACE_MESH)), 0)
    views = [f"transform_tensor_bilinear_v2{number}" for number in ("", "_1", "_2")]
    closer = ["conv_lips", "conv_left_eye", "conv_left_iris", "conv_right_eye", "conv_right_iris"]
    names = [code.customCode for code in model.operatorCodes]
    cuts = [one for one in model.subgraphs[0].operators if names[one.opcodeIndex] == b"Landmarks2TransformMatrix"]
    lips, left, right = (_region_of(flexbuffers.Loads(bytes(one.customOptions))) for one in cuts)
    return Networks(
        Network(part_of(model, ["input_1"], ["output_mesh", "conv_faceflag", "p_re_lu_3"])),
        Network(part_of(model, views, closer)),
        (lips, left, right),
    )


def _region_of(options: dict[str, object]) -> Region:
    """A region as the file's operator describes it."""
    landmarks, context = options["subset_idxs"], options["scale_x"]
    left, right = options["left_rotation_idx"], options["right_rotation_idx"]
    assert isinstance(landmarks, list) and isinstance(context, float)
    assert isinstance(left, int) and isinstance(right, int)
    return Region(tuple(landmarks), (left, right), context)
