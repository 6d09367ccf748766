"""Masks of lips, beard, scalp, eyes and so on, on the MakeHuman base mesh.

Every mask is a smooth function of the canonical vertex position (decimetres, y up, z towards the viewer), so one
(V, FIELDS) table serves every person: morph targets move vertices but never renumber them.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Columns of the table. Plain integers, because compiled kernels index with them.
X, Y, Z, LIPS, FULL_BEARD, GOATEE, MOUSTACHE, SCALP, BLUSH, NOSE, EYES, EARS = range(12)
FIELDS = 12

BEARD_LINE = ((0.0, 6.46), (0.2, 6.44), (0.33, 6.58), (0.5, 6.72), (0.66, 6.95), (0.8, 7.25))  # (|x|, y)
HAIR_LINE = ((-0.6, 6.35), (-0.2, 6.4), (0.1, 6.75), (0.3, 7.35), (0.55, 7.35), (0.8, 7.6), (1.2, 7.9), (1.5, 7.95))


def smoothstep(start: float, end: float, value: NDArray) -> NDArray:
    """0 before `start`, 1 after `end`, a cubic between; `start > end` gives a falling step."""
    t = np.clip((value - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def _curve(points: tuple[tuple[float, float], ...], at: NDArray) -> NDArray:
    xs, ys = zip(*points, strict=True)
    return np.interp(at, xs, ys)


def field_table(vertices: NDArray, lips: NDArray) -> Array:
    """Anatomical masks in [0, 1] per base vertex, (V, FIELDS); the first three columns are the position."""
    x, y, z = vertices.T
    side = np.abs(x)
    front = smoothstep(0.2, 0.6, z)
    ears = smoothstep(0.76, 0.82, side) * smoothstep(6.6, 6.8, y) * smoothstep(7.6, 7.4, y)
    hairless = 1 - ears * smoothstep(-0.3, -0.15, z)
    lips = np.clip(lips, 0, 1)

    cheek_beard = smoothstep(0.06, -0.06, y - _curve(BEARD_LINE, side)) * smoothstep(5.78, 6.0, y)
    cheek_beard *= smoothstep(-0.05, 0.15, z) * (1 - smoothstep(0.78, 0.9, side)) * hairless
    moustache = smoothstep(6.62, 6.68, y) * smoothstep(6.86, 6.80, y)
    moustache *= smoothstep(0.36, 0.28, side) * smoothstep(1.2, 1.35, z)
    chin = smoothstep(0.38, 0.30, side) * smoothstep(6.66, 6.6, y) * smoothstep(5.98, 6.1, y) * smoothstep(1.0, 1.2, z)

    columns = {
        X: x,
        Y: y,
        Z: z,
        LIPS: lips,
        FULL_BEARD: np.maximum(cheek_beard, moustache) * (1 - lips),
        GOATEE: np.maximum(moustache, chin) * (1 - lips),
        MOUSTACHE: moustache * (1 - lips),
        SCALP: smoothstep(-0.07, 0.07, y - _curve(HAIR_LINE, z)) * hairless,
        BLUSH: np.exp(-(((side - 0.42) / 0.17) ** 2 + ((y - 6.95) / 0.16) ** 2)) * front,
        NOSE: np.exp(-((x / 0.14) ** 2 + ((y - 6.95) / 0.14) ** 2 + ((z - 1.65) / 0.15) ** 2)),
        EYES: np.exp(-(((side - 0.31) / 0.17) ** 2 + ((y - 7.25) / 0.10) ** 2)) * front,
        EARS: ears,
    }
    return np.stack([columns[i] for i in range(FIELDS)], 1).astype(np.float32)


def head_weight(vertices: NDArray) -> Array:
    """How far each base vertex follows the head's rotation (1) rather than the shoulders' (0), (V,)."""
    return smoothstep(5.7, 6.25, vertices[:, 1] + 0.25 * vertices[:, 2] - 0.1).astype(np.float32)
