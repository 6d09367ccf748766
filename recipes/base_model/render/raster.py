"""A software rasteriser: z-buffer, perspective-correct, alpha test by dithering. Knows triangles, not people."""

import math

import numpy as np
from numpy.typing import NDArray

from recipes.base_model.render.assets import TEXTURE_PX
from recipes.base_model.render.compiled import compiled

Array = NDArray[np.float32]
OPAQUE = -1
FAR = 1e9


class Buffers:
    """What the rasteriser writes, each (S, S): depth, triangle index (-1: nothing) and two barycentric weights."""

    def __init__(self, size_px: int) -> None:
        self.depth: Array = np.full((size_px, size_px), FAR, np.float32)
        self.triangle: NDArray[np.int32] = np.full((size_px, size_px), -1, np.int32)
        self.second: Array = np.zeros((size_px, size_px), np.float32)
        self.third: Array = np.zeros((size_px, size_px), np.float32)


def rasterise(
    screen: Array,
    triangles: NDArray[np.int32],
    texture_uv: Array,
    *,
    alpha_texture: NDArray[np.int32],
    textures: NDArray[np.uint8],
    size_px: int,
) -> Buffers:
    """Draws triangles (T, 3) over screen points (V, 3: x px, y px, distance).

    texture_uv (T, 3, 3) holds u, v and an opacity factor per corner. alpha_texture (T,) is OPAQUE, where back faces
    are culled, or a texture whose alpha decides by a hash of pixel and triangle, drawn from both sides.
    """
    out = Buffers(size_px)
    _draw(screen, triangles, texture_uv, alpha_texture, textures, out.depth, out.triangle, out.second, out.third)
    return out


@compiled
def _draw(screen, triangles, uvo, alpha_texture, textures, depth, triangle, second, third):  # type: ignore[no-untyped-def]
    height, width = depth.shape
    for t in range(triangles.shape[0]):
        i0, i1, i2 = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0, z0 = screen[i0, 0], screen[i0, 1], screen[i0, 2]
        x1, y1, z1 = screen[i1, 0], screen[i1, 1], screen[i1, 2]
        x2, y2, z2 = screen[i2, 0], screen[i2, 1], screen[i2, 2]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        layer = alpha_texture[t]
        if min(z0, z1, z2) <= 0.1 or abs(area) < 1e-9 or (layer < 0 and area > 0):
            continue
        left, right = max(0, math.floor(min(x0, x1, x2))), min(width - 1, math.ceil(max(x0, x1, x2)))
        top, bottom = max(0, math.floor(min(y0, y1, y2))), min(height - 1, math.ceil(max(y0, y1, y2)))
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                px, py = column + 0.5, row + 0.5
                w1 = ((px - x0) * (y2 - y0) - (x2 - x0) * (py - y0)) / area
                w2 = ((x1 - x0) * (py - y0) - (px - x0) * (y1 - y0)) / area
                w0 = 1 - w1 - w2
                if w0 < 0 or w1 < 0 or w2 < 0:
                    continue
                z = 1.0 / (w0 / z0 + w1 / z1 + w2 / z2)
                if z >= depth[row, column]:
                    continue
                p1, p2 = w1 / z1 * z, w2 / z2 * z
                if layer >= 0:
                    p0 = 1 - p1 - p2
                    u = uvo[t, 0, 0] * p0 + uvo[t, 1, 0] * p1 + uvo[t, 2, 0] * p2
                    v = uvo[t, 0, 1] * p0 + uvo[t, 1, 1] * p1 + uvo[t, 2, 1] * p2
                    opacity = uvo[t, 0, 2] * p0 + uvo[t, 1, 2] * p1 + uvo[t, 2, 2] * p2
                    alpha = textures[layer, texel(1 - v), texel(u), 3] * opacity
                    dither = _hash(column * 73856093 ^ row * 19349663 ^ t * 83492791)
                    if alpha <= 24 or alpha * 4 < dither * 0.8 + 60:
                        continue
                depth[row, column] = z
                triangle[row, column] = t
                second[row, column] = p1
                third[row, column] = p2


@compiled
def _hash(value):  # type: ignore[no-untyped-def]
    """Ten well-mixed bits, so that the dither shows no pattern."""
    value = (value ^ (value >> 13)) * 1540483477
    return ((value ^ (value >> 15)) >> 5) & 1023


@compiled
def texel(coordinate):  # type: ignore[no-untyped-def]
    """Row or column of a wrapped texture coordinate."""
    return min(TEXTURE_PX - 1, max(0, int((coordinate - math.floor(coordinate)) * TEXTURE_PX)))
