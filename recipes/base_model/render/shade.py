"""Colours and light, one pixel at a time: deferred shading over the rasteriser's buffers, in linear RGB.

Studio lighting: one large soft key light with a blurred shadow map, a fill on the other side, a slight rim from
behind, and the place's own colours from above, below and both sides. Ambient occlusion comes from the
depth buffer. Skin: albedo by anatomical masks, two specular lobes, and irradiance blurred per channel, for subsurface
scattering. Hair: Kajiya-Kay highlights along the strands, cards blended by their alpha. Bronze and marble
replace the material of the whole figure before shading.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from recipes.base_model.render import anatomy
from recipes.base_model.render.albedo import (
    FLESH,
    Array,
    Look,
    skin_albedo,
    statue_albedo,
    thing_albedo,
)
from recipes.base_model.render.compiled import compiled
from recipes.base_model.render.figure import HAIR, LENS, SKIN
from recipes.base_model.render.lighting import (
    Light,
    light_flesh,
    light_statue,
    normalise,
    shadow_at,
)
from recipes.base_model.render.raster import Buffers, texel

REFERENCE_PX = 256  # picture size of the lengths in pixels below
OPENNESS_REACH_DM = 0.6
OPENNESS_STEPS_PX = (3.0, 8.0, 17.0, 34.0)
SCATTER_PX = (3.2, 1.5, 0.9)  # red light wanders furthest under the skin

# Column numbers as plain globals: kernels cannot look into modules that may change.
_SCALP, _FIELDS = anatomy.SCALP, anatomy.FIELDS


class Surface(NamedTuple):
    """The posed mesh as the kernel reads it."""

    vertices: Array  # (V, 3)
    normals: Array  # (V, 3)
    triangles: NDArray[np.int32]  # (T, 3)
    uv: Array  # (T, 3, 3)
    material: NDArray[np.int32]  # (T,)
    color_texture: NDArray[np.int32]  # (T,)
    hollow: Array  # (V,)
    fields: Array  # (V0, anatomy.FIELDS) of the base mesh, which comes first
    textures: NDArray[np.uint8]  # (N, 512, 512, 4)
    noise: Array  # (512, 512)


@compiled
def _blend(out, rows, count, i0, i1, i2, b0, b1, b2):  # type: ignore[no-untyped-def]
    """Barycentric interpolation of the first columns of vertex rows."""
    for k in range(count):
        out[k] = rows[i0, k] * b0 + rows[i1, k] * b1 + rows[i2, k] * b2


@compiled
def _round_hair(n, p, outward, light):  # type: ignore[no-untyped-def]
    """Bends the normal outwards from the head: hair is shaded as a body, not as single cards."""
    for k in range(3):
        outward[k] = p[k] - light.centre[k] + (0.5 if k == 2 else 0.0)
    normalise(outward)
    for k in range(3):
        n[k] = 0.3 * n[k] + 0.7 * outward[k]
    normalise(n)


@compiled
def _place_and_normal(p, n, v, t, b1, b2, triangles, vertices, normals, eye):  # type: ignore[no-untyped-def]
    """Position, normal turned to the viewer and direction to the viewer of a point of triangle t."""
    b0 = 1 - b1 - b2
    i0, i1, i2 = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    _blend(n, normals, 3, i0, i1, i2, b0, b1, b2)
    _blend(p, vertices, 3, i0, i1, i2, b0, b1, b2)
    for k in range(3):
        v[k] = eye[k] - p[k]
    normalise(n)
    normalise(v)
    if n[0] * v[0] + n[1] * v[1] + n[2] * v[2] < 0:
        for k in range(3):
            n[k] = -n[k]


@compiled
def _colors(  # type: ignore[no-untyped-def]
    c,
    d,
    g,
    n,
    v,
    p,
    f,
    t,
    b1,
    b2,
    lit,
    openness,
    look,
    light,
    triangles,
    uv,
    materials,
    color_texture,
    hollows,
    fields,
    textures,
    noise,
):
    """Albedo c, irradiance d and gloss g of a point of triangle t."""
    b0 = 1 - b1 - b2
    i0, i1, i2 = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    material = materials[t]
    texel_row = texel(1 - (uv[t, 0, 1] * b0 + uv[t, 1, 1] * b1 + uv[t, 2, 1] * b2))
    texel_column = texel(uv[t, 0, 0] * b0 + uv[t, 1, 0] * b1 + uv[t, 2, 0] * b2)
    color = textures[color_texture[t], texel_row, texel_column]
    r, g_, b = color[0] / 255.0, color[1] / 255.0, color[2] / 255.0
    if material == SKIN:
        _blend(f, fields, _FIELDS, i0, i1, i2, b0, b1, b2)
        hollow = hollows[i0] * b0 + hollows[i1] * b1 + hollows[i2] * b2
        openness *= min(1.02, max(0.75, 1 - 4 * min(0.06, max(-0.004, hollow))))
        haired = 0.6 * f[_SCALP] * look.scalp_amount  # or hair would cast a dark seam on the hair painted below it
        lit, openness = lit + (1 - lit) * haired, openness + (1 - openness) * haired
    else:
        for k in range(3):
            f[k] = p[k]
        for k in range(3, _FIELDS):
            f[k] = 0.0
    if material == HAIR:
        _round_hair(n, p, c, light)
    if look.substance != FLESH:
        statue_albedo(c, material, f, (r + g_ + b) / 3, look, noise)
        light_statue(c, d, g, n, v, f, material, lit, openness, look, light, noise)
        return
    if material == SKIN:
        skin_albedo(c, f, look, noise)
    else:
        thing_albedo(c, material, r, g_, b, look)
    light_flesh(d, g, n, v, f, material, lit, openness, look, light)


@compiled
def _geometry(triangle, second, third, surface, light, position, normal):  # type: ignore[no-untyped-def]
    """Positions and normals (S, S, 3) of the solid fragments."""
    p, n, v = np.zeros(3), np.zeros(3), np.zeros(3)
    triangles, vertices, normals, eye = surface.triangles, surface.vertices, surface.normals, light.eye
    for row in range(triangle.shape[0]):
        for column in range(triangle.shape[1]):
            t = triangle[row, column]
            if t < 0:
                continue
            _place_and_normal(p, n, v, t, second[row, column], third[row, column], triangles, vertices, normals, eye)
            for k in range(3):
                position[row, column, k] = p[k]
                normal[row, column, k] = n[k]


@compiled
def _shelter(triangle, position, normal, light, steps_px, out):  # type: ignore[no-untyped-def]
    """Share of the key light, and openness to the light from all around, of every second pixel, into out (h, w, 2)."""
    size, shadow = triangle.shape[0], light.shadow
    p, n = np.zeros(3), np.zeros(3)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            row, column = 2 * i, 2 * j
            if triangle[row, column] < 0:
                continue
            for k in range(3):
                p[k] = position[row, column, k]
                n[k] = normal[row, column, k]
            out[i, j, 0] = shadow_at(p, n, light, shadow, 2)
            hidden = 0.0
            for direction in range(8):
                angle = (direction + 0.5 * ((i + j) % 2)) * math.pi / 4
                across, down = math.cos(angle), math.sin(angle)
                highest = 0.0
                for step in steps_px:
                    y, x = int(row + down * step), int(column + across * step)
                    if y < 0 or x < 0 or y >= size or x >= size or triangle[y, x] < 0:
                        continue
                    d0, d1, d2 = position[y, x, 0] - p[0], position[y, x, 1] - p[1], position[y, x, 2] - p[2]
                    length = math.sqrt(d0 * d0 + d1 * d1 + d2 * d2) + 1e-6
                    rise = (n[0] * d0 + n[1] * d1 + n[2] * d2) / length - 0.12
                    highest = max(highest, rise * max(0.0, 1 - length / OPENNESS_REACH_DM))
                hidden += highest
            out[i, j, 1] = max(0.15, 1 - 1.9 * hidden / 8)


@compiled
def _paint(triangle, second, third, position, normal, shelter, surface, look, light, albedo, irradiance, gloss, skin):  # type: ignore[no-untyped-def]
    """Albedo, irradiance and gloss (S, S, 3) of the solid fragments, and where skin is (S, S)."""
    n, v, p, c, d, g = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
    f, eye = np.zeros(_FIELDS), light.eye
    triangles, uv, materials, color_texture = surface.triangles, surface.uv, surface.material, surface.color_texture
    hollows, fields, textures, noise = surface.hollow, surface.fields, surface.textures, surface.noise
    for row in range(triangle.shape[0]):
        for column in range(triangle.shape[1]):
            t = triangle[row, column]
            if t < 0:
                continue
            b1, b2 = second[row, column], third[row, column]
            for k in range(3):
                p[k] = position[row, column, k]
                n[k] = normal[row, column, k]
                v[k] = eye[k] - p[k]
            normalise(v)
            lit, openness = shelter[row, column, 0], shelter[row, column, 1]
            _colors(
                c,
                d,
                g,
                n,
                v,
                p,
                f,
                t,
                b1,
                b2,
                lit,
                openness,
                look,
                light,
                triangles,
                uv,
                materials,
                color_texture,
                hollows,
                fields,
                textures,
                noise,
            )
            for k in range(3):
                albedo[row, column, k] = c[k]
                irradiance[row, column, k] = d[k]
                gloss[row, column, k] = g[k]
            skin[row, column] = 1.0 if materials[t] == SKIN else 0.0


@compiled
def _layer(radiance, coverage, triangle, sheer_triangle, sheer_rest, surface, look, light):  # type: ignore[no-untyped-def]
    """Blends the sheer fragments over what is there, nearest first."""
    n, v, p, c, d, g = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
    f, total = np.zeros(_FIELDS), np.zeros(3)
    triangles, vertices, normals, eye = surface.triangles, surface.vertices, surface.normals, light.eye
    uv, materials, color_texture, shadow = surface.uv, surface.material, surface.color_texture, light.shadow
    hollows, fields, textures, noise = surface.hollow, surface.fields, surface.textures, surface.noise
    for row in range(triangle.shape[0]):
        for column in range(triangle.shape[1]):
            if sheer_triangle[row, column, 0] < 0:
                continue
            left = 1.0
            total[:] = 0
            for layer in range(sheer_triangle.shape[2]):
                t = sheer_triangle[row, column, layer]
                if t < 0:
                    break
                b1, b2 = sheer_rest[row, column, layer, 0], sheer_rest[row, column, layer, 1]
                alpha = sheer_rest[row, column, layer, 2]
                _place_and_normal(p, n, v, t, b1, b2, triangles, vertices, normals, eye)
                lit = shadow_at(p, n, light, shadow, 4)
                _colors(
                    c,
                    d,
                    g,
                    n,
                    v,
                    p,
                    f,
                    t,
                    b1,
                    b2,
                    lit,
                    0.9,
                    look,
                    light,
                    triangles,
                    uv,
                    materials,
                    color_texture,
                    hollows,
                    fields,
                    textures,
                    noise,
                )
                for k in range(3):
                    total[k] += left * (alpha * c[k] * d[k] + (g[k] if materials[t] == LENS else alpha * g[k]))
                left *= 1 - alpha
            solid = 1.0 if triangle[row, column] >= 0 else 0.0
            cover = 1 - left * (1 - solid)
            for k in range(3):
                radiance[row, column, k] = (total[k] + left * solid * radiance[row, column, k]) / cover
            coverage[row, column] = cover


def shade(buffers: Buffers, surface: Surface, look: Look, light: Light) -> tuple[Array, Array]:
    """Radiance (S, S, 3), linear, and coverage (S, S) in [0, 1] of the figure."""
    triangle, second, third = buffers.triangle, buffers.second, buffers.third
    size, unit = triangle.shape[0], triangle.shape[0] / REFERENCE_PX
    position, normal, albedo, irradiance, gloss = (np.zeros((size, size, 3), np.float32) for _ in range(5))
    skin, coverage = np.zeros((size, size), np.float32), (triangle >= 0).astype(np.float32)
    _geometry(triangle, second, third, surface, light, position, normal)
    half = np.ones((-(-size // 2), -(-size // 2), 2), np.float32)
    _shelter(triangle, position, normal, light, np.array(OPENNESS_STEPS_PX, np.float32) * unit, half)
    shelter = _smooth_within(half, coverage[::2, ::2], 1.2 * unit, size)
    _paint(triangle, second, third, position, normal, shelter, surface, look, light, albedo, irradiance, gloss, skin)
    radiance = albedo * _scattered(irradiance, skin, unit) + gloss
    _layer(radiance, coverage, triangle, buffers.sheer_triangle, buffers.sheer_rest, surface, look, light)
    return radiance, coverage


def _smooth_within(value: Array, mask: Array, sigma_px: float, size_px: int) -> Array:
    """Blurs `value` (h, w, C) over the mask (h, w) only, and enlarges it to (size_px, size_px, C)."""
    weighted = np.concatenate([value * mask[..., None], mask[..., None]], 2)
    soft = cv2.resize(cv2.GaussianBlur(weighted, (0, 0), sigma_px), (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(soft[..., :-1] / np.maximum(soft[..., -1:], 1e-4), np.float32)


def _scattered(irradiance: Array, skin: Array, unit: float) -> Array:
    """Irradiance (S, S, 3) blurred within the skin, each channel by its own width."""
    out = irradiance.copy()
    for k, sigma in enumerate(SCATTER_PX):
        stack = cv2.GaussianBlur(np.dstack([irradiance[..., k] * skin, skin]), (0, 0), sigma * unit)
        out[..., k] += (stack[..., 0] / np.maximum(stack[..., 1], 1e-4) - irradiance[..., k]) * skin
    return out
