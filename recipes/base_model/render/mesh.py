"""Small mesh mathematics: normals, curvature, fitting, tubes and rotations. Knows neither anatomy nor colours."""

import math

import numpy as np
from numpy.typing import NDArray

from recipes.base_model.render.compiled import compiled

Array = NDArray[np.float32]


def vertex_normals(vertices: Array, triangles: NDArray[np.int32]) -> Array:
    """Area-weighted unit normals, (V, 3)."""
    normals = np.zeros_like(vertices)
    _add_normals(vertices, triangles, normals)
    return normals


@compiled
def _add_normals(v, triangles, normals):  # type: ignore[no-untyped-def]
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        e0, e1, e2 = v[b, 0] - v[a, 0], v[b, 1] - v[a, 1], v[b, 2] - v[a, 2]
        f0, f1, f2 = v[c, 0] - v[a, 0], v[c, 1] - v[a, 1], v[c, 2] - v[a, 2]
        n0, n1, n2 = e1 * f2 - e2 * f1, e2 * f0 - e0 * f2, e0 * f1 - e1 * f0
        for k in (a, b, c):
            normals[k, 0] += n0
            normals[k, 1] += n1
            normals[k, 2] += n2
    for i in range(v.shape[0]):
        length = math.sqrt(normals[i, 0] ** 2 + normals[i, 1] ** 2 + normals[i, 2] ** 2) + 1e-12
        for k in range(3):
            normals[i, k] /= length


@compiled
def crevices(v, triangles, normals):  # type: ignore[no-untyped-def]
    """Umbrella Laplacian along the normal, (V,): positive where the surface is hollow. A cheap ambient occlusion."""
    count = np.zeros(v.shape[0], np.float32)
    total = np.zeros((v.shape[0], 3), np.float32)
    for t in range(triangles.shape[0]):
        for k in range(3):
            a, b = triangles[t, k], triangles[t, (k + 1) % 3]
            count[a] += 1
            count[b] += 1
            for d in range(3):
                total[a, d] += v[b, d]
                total[b, d] += v[a, d]
    hollow = np.zeros(v.shape[0], np.float32)
    for i in range(v.shape[0]):
        if count[i] > 0:
            for d in range(3):
                hollow[i] += (total[i, d] / count[i] - v[i, d]) * normals[i, d]
    return hollow


def fit(proxy_index: NDArray[np.int32], weights: Array, offset: Array, scale: Array, *, host: Array) -> Array:
    """Barycentric fitting as in .mhclo: sum_k w_k host[index_k] + offset * scale, (N, 3)."""
    return ((host[proxy_index] * weights[:, :, None]).sum(1) + offset * scale).astype(np.float32)


def tube(path: NDArray, radius: float, closed: bool) -> tuple[Array, NDArray[np.int32]]:
    """A hexagonal tube around a path (M, 3): vertices (6 M, 3) and triangles."""
    sides = 6
    path = np.asarray(path, np.float32)
    count = len(path)
    along = np.roll(path, -1, 0) - np.roll(path, 1, 0)
    if not closed:
        along[0], along[-1] = path[1] - path[0], path[-1] - path[-2]
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    up = np.array([0, 0, 1.0]) if abs(along[:, 2]).mean() < 0.7 else np.array([0, 1.0, 0])
    first = np.cross(along, up)
    first /= np.linalg.norm(first, axis=1, keepdims=True) + 1e-9
    second = np.cross(along, first)
    angle = np.arange(sides) * 2 * np.pi / sides
    ring = first[:, None] * np.cos(angle)[None, :, None] + second[:, None] * np.sin(angle)[None, :, None]
    vertices = (path[:, None] + radius * ring).reshape(-1, 3).astype(np.float32)
    i, k = np.meshgrid(np.arange(count if closed else count - 1), np.arange(sides), indexing="ij")
    j, n = (i + 1) % count, (k + 1) % sides
    corners = [i * sides + k, j * sides + k, j * sides + n, i * sides + k, j * sides + n, i * sides + n]
    return vertices, np.stack(corners, -1).reshape(-1, 3).astype(np.int32)


def rotation(yaw_deg: float, pitch_deg: float, roll_deg: float) -> Array:
    """Rotation matrix (3, 3): roll, then pitch (down is positive), then yaw (to the viewer's right is positive)."""
    yaw, pitch, roll = (math.radians(angle) for angle in (yaw_deg, pitch_deg, roll_deg))
    cy, sy, cp, sp, cr, sr = *_cs(yaw), *_cs(pitch), *_cs(roll)
    around_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    around_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    around_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (around_y @ around_x @ around_z).astype(np.float32)


def _cs(angle: float) -> tuple[float, float]:
    return math.cos(angle), math.sin(angle)
