"""Glasses as tubes and discs, fitted to a face. Geometry only."""

import numpy as np
from numpy.typing import NDArray

from recipes.base_model.render import anatomy
from recipes.base_model.render.assets import Assets
from recipes.base_model.render.mesh import Array, tube

Mesh = tuple[Array, NDArray[np.int32]]
RIM_POINTS = 28
RIM_RADIUS_DM = 0.023
LEFT_EYE = slice(13606, 13614)  # the joint marker of the left eye in the base mesh
# kind -> half width, half height (decimetres), exponent of the superellipse
RIMS = {
    "round glasses": (0.25, 0.23, 2.0),
    "rectangular glasses": (0.28, 0.19, 3.5),
    "sunglasses": (0.29, 0.22, 2.8),
}


def glasses(kind: str, vertices: Array, assets: Assets) -> tuple[Mesh, Mesh]:
    """Frame and lenses for neutral or posed-by-expression base vertices (V, 3)."""
    half_width, half_height, exponent = RIMS[kind]
    eye = vertices[LEFT_EYE].mean(0)
    front = _bridge_z(vertices, assets)
    ear = vertices[assets.fields[:, anatomy.EARS] > 0.5]
    ear_x, ear_y, ear_z = np.abs(ear[:, 0]).min() + 0.02, eye[1] + 0.05, ear[:, 2].mean() + 0.1
    frames: list[Mesh] = []
    lenses: list[Mesh] = []
    for side in (1.0, -1.0):
        rim = _rim(side * eye[0] * 1.03, eye[1] - 0.03, front, size=(half_width, half_height, exponent))
        frames.append(tube(rim, RIM_RADIUS_DM, True))
        hinge, back = abs(eye[0]) * 1.03 + half_width, rim[:, 2].min()
        temple_x = max(ear_x, hinge + 0.05)
        temple = [
            [side * hinge, ear_y, back],
            [side * temple_x, ear_y, back - 0.15],
            [side * (ear_x + 0.02), ear_y, ear_z],
        ]
        frames.append(tube(np.array(temple), RIM_RADIUS_DM, False))
        lenses.append(_disc(rim))
    inner = abs(eye[0]) * 1.03 - half_width
    bridge = [
        [-inner, eye[1] + 0.03, front - 0.06],
        [0, eye[1] + 0.07, front - 0.02],
        [inner, eye[1] + 0.03, front - 0.06],
    ]
    frames.append(tube(np.array(bridge), 0.02, False))
    return _join(frames), _join(lenses)


def _bridge_z(vertices: Array, assets: Assets) -> float:
    x, y, z = assets.vertices.T
    nose = (y > 7.0) & (y < 7.3) & (np.abs(x) < 0.06) & (z > 1.3)
    return float(vertices[nose][:, 2].max()) + 0.02


def _rim(x: float, y: float, front: float, *, size: tuple[float, float, float]) -> Array:
    half_width, half_height, exponent = size
    angle = np.arange(RIM_POINTS) * 2 * np.pi / RIM_POINTS
    across = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** (2 / exponent) * half_width
    up = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** (2 / exponent) * half_height
    xs = x + across
    wrap = 0.35 * np.maximum(0, np.abs(xs) - 0.25) ** 1.5  # frames bend back towards the temples
    return np.stack([xs, y + up, front - 0.06 - wrap], 1).astype(np.float32)


def _disc(rim: Array) -> Mesh:
    count = len(rim)
    i = np.arange(count)
    j = (i + 1) % count
    centre = np.full(count, count)
    middle = rim.mean(0, keepdims=True)
    edge = middle + 0.97 * (rim - middle) - np.array([0, 0, RIM_RADIUS_DM / 2], np.float32)  # within the frame
    points = np.concatenate([edge, middle])
    return points.astype(np.float32), np.stack([i, j, centre], 1).astype(np.int32)


def _join(meshes: list[Mesh]) -> Mesh:
    starts = np.cumsum([0] + [len(vertices) for vertices, _ in meshes[:-1]])
    triangles = [faces + start for (_, faces), start in zip(meshes, starts, strict=True)]
    return np.concatenate([vertices for vertices, _ in meshes]), np.concatenate(triangles).astype(np.int32)
