"""A software rasteriser: z-buffer, perspective-correct, layers for transparency. Knows triangles, not people."""

import math

import numpy as np
from numpy.typing import NDArray

from recipes.base_model.render.assets import TEXTURE_PX
from recipes.base_model.render.compiled import compiled

Array = NDArray[np.float32]
OPAQUE = -1
FAR = 1e9
LAYERS = 4  # sheer fragments kept per pixel, the nearest ones
_FAINTEST, _HALF, _SOLID = 12.0, 110.0, 235.0  # alpha out of 255


class Buffers:
    """What the rasteriser writes.

    Each (S, S): depth, triangle index (-1: nothing) and two barycentric weights of the nearest solid fragment. Each
    (S, S, LAYERS), or (S, S, 0) where no layers were asked for: the same and alpha in [0, 1] of the sheer fragments in
    front of it, nearest first.
    """

    def __init__(self, size_px: int, layers: int) -> None:
        self.depth: Array = np.full((size_px, size_px), FAR, np.float32)
        self.triangle: NDArray[np.int32] = np.full((size_px, size_px), -1, np.int32)
        self.second: Array = np.zeros((size_px, size_px), np.float32)
        self.third: Array = np.zeros((size_px, size_px), np.float32)
        shape = (size_px, size_px, layers)
        self.sheer_depth: Array = np.full(shape, FAR, np.float32)
        self.sheer_triangle: NDArray[np.int32] = np.full(shape, -1, np.int32)
        self.sheer_rest: Array = np.zeros((*shape, 3), np.float32)  # second, third, alpha

    def shown(self) -> NDArray[np.int32]:
        """Triangle that each pixel mostly shows, (S, S): the first that brings the opacity to a half; -1: none."""
        covered = 1 - np.cumprod(1 - self.sheer_rest[..., 2], axis=-1) >= 0.5
        first = np.take_along_axis(self.sheer_triangle, covered.argmax(-1)[..., None], -1)[..., 0]
        return np.where(covered.any(-1), first, self.triangle)


def rasterise(
    screen: Array,
    triangles: NDArray[np.int32],
    texture_uv: Array,
    *,
    alpha_texture: NDArray[np.int32],
    textures: NDArray[np.uint8],
    size_px: int,
    layers: int = LAYERS,
) -> Buffers:
    """Draws triangles (T, 3) over screen points (V, 3: x px, y px, distance).

    texture_uv (T, 3, 3) holds u, v and an opacity factor per corner. alpha_texture (T,) is OPAQUE, where back faces
    are culled, or a texture whose alpha counts, drawn from both sides. With layers=0 a fragment of half that alpha is
    solid and a fainter one is not there.
    """
    out = Buffers(size_px, layers)
    solid = _SOLID if layers else _HALF
    _draw(screen, triangles, texture_uv, alpha_texture, textures, solid, out.depth, out.triangle, out.second, out.third)
    if layers:
        _draw_sheer(
            screen,
            triangles,
            texture_uv,
            alpha_texture,
            textures,
            out.depth,
            out.sheer_depth,
            out.sheer_triangle,
            out.sheer_rest,
        )
    return out


@compiled
def _texel_alpha(textures, layer, uvo, t, p1, p2):  # type: ignore[no-untyped-def]
    """Alpha from 0 to 255 of a point of triangle t, opacity factor included."""
    p0 = 1 - p1 - p2
    u = uvo[t, 0, 0] * p0 + uvo[t, 1, 0] * p1 + uvo[t, 2, 0] * p2
    v = uvo[t, 0, 1] * p0 + uvo[t, 1, 1] * p1 + uvo[t, 2, 1] * p2
    opacity = uvo[t, 0, 2] * p0 + uvo[t, 1, 2] * p1 + uvo[t, 2, 2] * p2
    return textures[layer, texel(1 - v), texel(u), 3] * opacity


@compiled
def _draw(screen, triangles, uvo, alpha_texture, textures, solid, depth, triangle, second, third):  # type: ignore[no-untyped-def]
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
                if layer >= 0 and _texel_alpha(textures, layer, uvo, t, p1, p2) < solid:
                    continue
                depth[row, column] = z
                triangle[row, column] = t
                second[row, column] = p1
                third[row, column] = p2


@compiled
def _draw_sheer(screen, triangles, uvo, alpha_texture, textures, depth, sheer_depth, sheer_triangle, sheer_rest):  # type: ignore[no-untyped-def]
    """Keeps, per pixel, the nearest sheer fragments before the solid one, sorted by insertion."""
    height, width, layers = sheer_depth.shape
    for t in range(triangles.shape[0]):
        layer = alpha_texture[t]
        if layer < 0:
            continue
        i0, i1, i2 = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0, z0 = screen[i0, 0], screen[i0, 1], screen[i0, 2]
        x1, y1, z1 = screen[i1, 0], screen[i1, 1], screen[i1, 2]
        x2, y2, z2 = screen[i2, 0], screen[i2, 1], screen[i2, 2]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if min(z0, z1, z2) <= 0.1 or abs(area) < 1e-9:
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
                if z >= depth[row, column] or z >= sheer_depth[row, column, layers - 1]:
                    continue
                p1, p2 = w1 / z1 * z, w2 / z2 * z
                alpha = _texel_alpha(textures, layer, uvo, t, p1, p2)
                if alpha < _FAINTEST or alpha >= _SOLID:
                    continue
                k = layers - 1
                while k > 0 and sheer_depth[row, column, k - 1] > z:
                    sheer_depth[row, column, k] = sheer_depth[row, column, k - 1]
                    sheer_triangle[row, column, k] = sheer_triangle[row, column, k - 1]
                    for j in range(3):
                        sheer_rest[row, column, k, j] = sheer_rest[row, column, k - 1, j]
                    k -= 1
                sheer_depth[row, column, k] = z
                sheer_triangle[row, column, k] = t
                sheer_rest[row, column, k, 0] = p1
                sheer_rest[row, column, k, 1] = p2
                sheer_rest[row, column, k, 2] = alpha / 255.0


@compiled
def texel(coordinate):  # type: ignore[no-untyped-def]
    """Row or column of a wrapped texture coordinate."""
    return min(TEXTURE_PX - 1, max(0, int((coordinate - math.floor(coordinate)) * TEXTURE_PX)))
