"""Colours and light, one pixel at a time: deferred shading over the rasteriser's buffers, in linear RGB.

A photographer's light: one large soft key light with a blurred shadow map, a fill on the other side, a slight rim from
behind, and the place's own colours from above, below and both sides. Hollows are darkened by what surrounds a point in
the depth buffer. Skin: albedo by anatomical masks, two lobes of gloss, and its irradiance blurred per channel, as light
wanders under the skin. Hair: Kajiya-Kay highlights along the strands, cards blended by their alpha. Bronze and marble
replace the material of the whole figure before any light falls on it.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from recipes.base_model.render import anatomy
from recipes.base_model.render.compiled import compiled
from recipes.base_model.render.figure import BROW, CLOTH, EYE, FRAME, HAIR, LASH, LENS, SKIN, TEETH
from recipes.base_model.render.raster import Buffers, texel

Array = NDArray[np.float32]
# Small vectors are tuples: kernels count references to an array each time they take it out of a named tuple.
Vector = tuple[float, float, float]
FLESH, BRONZE, MARBLE = 0, 1, 2
SHADOW_PX = 160
SHADOW_WIDTH_DM = 4.4
SHADOW_DEPTH_DM = 6.0
SHADOW_BIAS_DM = 0.05
SHADOW_SOFT_DM = 0.06  # depth over which a blocker's edge fades in
PENUMBRA_TEXELS = 6
REFERENCE_PX = 256  # picture size of the lengths in pixels below
OPENNESS_REACH_DM = 0.6
OPENNESS_STEPS_PX = (3.0, 8.0, 17.0, 34.0)
SCATTER_PX = (3.2, 1.5, 0.9)  # red light wanders furthest under the skin

# Column numbers as plain globals: kernels cannot look into modules that may change.
_LIPS, _SCALP, _BLUSH, _NOSE = anatomy.LIPS, anatomy.SCALP, anatomy.BLUSH, anatomy.NOSE
_EYES, _EARS, _FULL_BEARD, _FIELDS = anatomy.EYES, anatomy.EARS, anatomy.FULL_BEARD, anatomy.FIELDS


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


class Look(NamedTuple):
    """Colours (linear RGB) and amounts."""

    substance: int  # FLESH, BRONZE or MARBLE
    tone: Vector
    lips: Vector
    hair: Vector
    brow: Vector
    cloth: Vector
    frame: Vector
    lip_amount: float
    beard_field: int  # column of the fields
    beard_amount: float
    scalp_amount: float
    blush: float
    blotches: float
    age: float
    freckles: float
    brown_eyes: float
    two_tone: float  # 1: bright texels of the clothes stay white
    dark_lenses: float  # 1: sunglasses
    phase: Vector  # of the skin noise


class Light(NamedTuple):
    direction: Vector  # unit, towards the light
    frame: tuple[Vector, Vector, Vector]  # the light's right, up and direction
    key: Vector  # RGB
    around: tuple[Vector, Vector, Vector, Vector, Vector]  # RGB from the place: above, below, left, right, front
    shadow: Array  # (SHADOW_PX, SHADOW_PX) distance map
    centre: Vector  # of the head
    eye: Vector  # the camera


@compiled
def _noise_at(noise, f, frequency, offset, phase):  # type: ignore[no-untyped-def]
    # Slanted and mirrored: projected straight along an axis, skin that runs along that axis would show stripes.
    side = abs(f[0])
    row = int(((0.8 * side - 0.6 * f[2]) * frequency + phase[0] + offset) * 64) % 512
    column = int(((f[1] + 0.31 * f[2] + 0.23 * side) * frequency + phase[1]) * 64) % 512
    return noise[row, column]


@compiled
def _strands_at(noise, f, look):  # type: ignore[no-untyped-def]
    """Noise drawn out downwards: short hair on skin, about two pixels of a 256 px portrait across."""
    side = abs(f[0])
    row = int(((side - 0.55 * f[2]) * 3.4 + look.phase[0] + 0.25 * f[1]) * 64) % 512
    column = int((f[1] * 1.1 + look.phase[1]) * 64) % 512
    return noise[row, column]


@compiled
def _mix(c, amount, red, green, blue):  # type: ignore[no-untyped-def]
    amount = min(1.0, max(0.0, amount))
    c[0] += (red - c[0]) * amount
    c[1] += (green - c[1]) * amount
    c[2] += (blue - c[2]) * amount


@compiled
def _skin_albedo(c, f, look, noise):  # type: ignore[no-untyped-def]
    t = look.tone
    grain = 1 + look.blotches * (
        0.024 * _noise_at(noise, f, 0.4, 0, look.phase) + 0.03 * _noise_at(noise, f, 2.4, 0, look.phase)
    )
    for k in range(3):
        c[k] = t[k] * grain
    ruddy = f[_BLUSH] * look.blush + f[_NOSE] * 0.35 + f[_EARS] * 0.35
    _mix(c, ruddy, t[0] * 1.02, t[1] * 0.68, t[2] * 0.66)
    _mix(c, f[_EYES] * (0.06 + 0.2 * look.age), t[0] * 0.78, t[1] * 0.64, t[2] * 0.66)
    if look.freckles > 0:
        spot = min(1.0, max(0.0, (_noise_at(noise, f, 2.6, 0, look.phase) - 0.9) * 1.6))
        _mix(c, min(1.0, f[_BLUSH] + f[_NOSE]) * 0.45 * spot, t[0] * 0.62, t[1] * 0.42, t[2] * 0.33)
    _mix(c, f[_LIPS] * look.lip_amount, look.lips[0], look.lips[1], look.lips[2])
    if look.age > 0.35:
        spots = min(2.0, max(0.0, _noise_at(noise, f, 1.5, 7, look.phase)))
        for k in range(3):
            c[k] *= 1 - 0.05 * (look.age - 0.35) * spots * (1 - f[_SCALP])
    beard, scalp = f[look.beard_field] * look.beard_amount, f[_SCALP] * look.scalp_amount
    beard, scalp = beard * (2 - beard), scalp * (2 - scalp)  # amounts are as seen, the mixture is linear
    if beard > 0.01 or scalp > 0.01:
        strand = _strands_at(noise, f, look)
        tint = min(1.5, max(0.6, 1 + 0.16 * strand))
        h = look.hair
        _mix(c, beard * (1 + 0.06 * strand), h[0] * tint, h[1] * tint, h[2] * tint)
        _mix(c, scalp * (1 + 0.06 * strand), h[0] * tint, h[1] * tint, h[2] * tint)


@compiled
def _thing_albedo(c, material, r, g, b, look):  # type: ignore[no-untyped-def]
    """Everything but skin; r, g, b is the texel as stored, in display values."""
    light = (r + g + b) / 3
    if material == EYE:
        high, low = max(r, max(g, b)), min(r, min(g, b))
        white = min(1.0, max(0.0, (low - 0.42) * 4))  # the white of the eye, whatever its texture's tint
        tint = look.brown_eyes * min(1.0, 4 * (high - low)) * (1 - white)
        c[0], c[1], c[2] = r * (1.06 - 0.40 * tint), g * (1.06 - 0.46 * tint), b * (1.08 - 0.48 * tint)
        for k in range(3):
            c[k] *= c[k] * (1 + (0.1 + 0.6 * look.brown_eyes) * (1 - white))
        _mix(c, 0.75 * white, 0.70, 0.665, 0.64)
    elif material == BROW:
        c[0], c[1], c[2] = look.brow[0], look.brow[1], look.brow[2]
    elif material == HAIR:
        strand = 0.5 + 1.1 * light
        for k in range(3):
            c[k] = look.hair[k] * strand * strand
    elif material == CLOTH:
        tone = 0.8 if look.two_tone > 0 else 0.92 + 0.4 * (light - 0.45)
        for k in range(3):
            c[k] = look.cloth[k] * tone * tone
        _mix(c, look.two_tone * (light - 0.40) * 10, 0.74, 0.74, 0.74)
    elif material == TEETH:
        white = min(1.0, max(0.0, 1.6 - 4 * (r - b)))  # gums stay red
        c[0], c[1], c[2] = r * r, g * g, b * b
        _mix(c, white, 0.74, 0.70, 0.61)
    elif material == FRAME:
        c[0], c[1], c[2] = look.frame[0], look.frame[1], look.frame[2]
    elif material == LENS:
        dark = look.dark_lenses
        c[0], c[1], c[2] = (
            0.006 * dark + 0.5 * (1 - dark),
            0.006 * dark + 0.5 * (1 - dark),
            0.008 * dark + 0.55 * (1 - dark),
        )
    else:
        c[0] = c[1] = c[2] = 0.012


@compiled
def _statue_albedo(c, material, f, light, look, noise):  # type: ignore[no-untyped-def]
    """Relief of one material: what was colour becomes a slight difference of depth. Display values."""
    depth = 1.0
    if material == SKIN:
        beard = f[look.beard_field] * look.beard_amount * (1 + 0.3 * _strands_at(noise, f, look))
        scalp = f[_SCALP] * look.scalp_amount
        depth = 1 - 0.3 * min(1.0, max(beard, scalp)) - 0.06 * f[_LIPS]
    elif material == HAIR:
        depth = 0.45 + 1.0 * min(0.6, light)
    elif material == EYE:
        depth = 0.55 + 0.45 * min(1.0, light * 1.3)
    elif material in (BROW, FRAME):
        depth = 0.62
    elif material in (LASH, LENS):
        depth = 0.35
    if look.substance == BRONZE:
        c[0], c[1], c[2] = 0.80 * depth, 0.49 * depth, 0.20 * depth
    else:
        c[0], c[1], c[2] = 1.00 * depth, 0.99 * depth, 0.96 * depth


@compiled
def _shadow_at(p, n, light, shadow, step):  # type: ignore[no-untyped-def]
    """Share of the light that reaches a point, [0, 1]: weighted taps of the distance map, `step` texels apart."""
    # Looked up a little above the surface, and each tap against the plane of the surface, or grazing light would
    # strike its own skin in stripes.
    d0 = p[0] - light.centre[0] + SHADOW_BIAS_DM * n[0]
    d1 = p[1] - light.centre[1] + SHADOW_BIAS_DM * n[1]
    d2 = p[2] - light.centre[2] + SHADOW_BIAS_DM * n[2]
    m = light.frame
    x = ((m[0][0] * d0 + m[0][1] * d1 + m[0][2] * d2) / SHADOW_WIDTH_DM + 0.5) * SHADOW_PX
    y = (0.5 - (m[1][0] * d0 + m[1][1] * d1 + m[1][2] * d2) / SHADOW_WIDTH_DM) * SHADOW_PX
    distance = SHADOW_DEPTH_DM - (m[2][0] * d0 + m[2][1] * d1 + m[2][2] * d2)
    n0 = m[0][0] * n[0] + m[0][1] * n[1] + m[0][2] * n[2]
    n1 = m[1][0] * n[0] + m[1][1] * n[1] + m[1][2] * n[2]
    n2 = max(0.35, m[2][0] * n[0] + m[2][1] * n[1] + m[2][2] * n[2])
    texel_dm = SHADOW_WIDTH_DM / SHADOW_PX
    slope_x, slope_y = n0 / n2 * texel_dm, -n1 / n2 * texel_dm
    lit, total = 0.0, 0.0
    for dy in range(-PENUMBRA_TEXELS, PENUMBRA_TEXELS + 1, step):
        for dx in range(-PENUMBRA_TEXELS, PENUMBRA_TEXELS + 1, step):
            weight = 1 - (dx * dx + dy * dy) / (PENUMBRA_TEXELS * PENUMBRA_TEXELS + 1.0)
            if weight <= 0:
                continue
            total += weight
            row, column = int(y) + dy, int(x) + dx
            if column < 0 or row < 0 or column >= SHADOW_PX or row >= SHADOW_PX:
                lit += weight
                continue
            here = distance + dx * slope_x + dy * slope_y
            lit += weight * min(1.0, max(0.0, (shadow[row, column] - here) / SHADOW_SOFT_DM + 1))
    return lit / total


@compiled
def _normalise(a):  # type: ignore[no-untyped-def]
    length = math.sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2]) + 1e-9
    for k in range(3):
        a[k] /= length


@compiled
def _around(light, n, k):  # type: ignore[no-untyped-def]
    """Channel k of the light that comes from the place along the normal (an ambient cube)."""
    side = light.around[3][k] if n[0] > 0 else light.around[2][k]
    level = light.around[0][k] if n[1] > 0 else light.around[1][k]
    return n[0] * n[0] * side + n[1] * n[1] * level + n[2] * n[2] * light.around[4][k]


@compiled
def _lit(d, g, n, v, f, material, lit, openness, look, light):  # type: ignore[no-untyped-def]
    """Irradiance d and gloss g, both RGB, of a point."""
    sun = light.direction
    nl = n[0] * sun[0] + n[1] * sun[1] + n[2] * sun[2]
    nv = max(0.0, n[0] * v[0] + n[1] * v[1] + n[2] * v[2])
    h0, h1, h2 = v[0] + sun[0], v[1] + sun[1], v[2] + sun[2]
    hl = math.sqrt(h0 * h0 + h1 * h1 + h2 * h2) + 1e-9
    nh = min(1.0, max(0.0, (n[0] * h0 + n[1] * h1 + n[2] * h2) / hl))
    gloss, mirror, hair_gloss = 0.0, 0.0, 0.0
    wrap = 0.12
    if look.substance != FLESH:
        wrap = 0.25
    elif material == SKIN:
        gloss = (0.04 * nh**9 + 0.05 * nh**32) * (1 + 0.8 * f[_NOSE]) + 0.07 * f[_LIPS] * nh**40
        mirror = 0.10
        wrap = 0.22
    elif material == EYE:
        c0, c1, c2 = 0.45 * sun[0], 0.30 + 0.2 * sun[1], 0.9  # a catch-light, wherever the main light is
        cl = math.sqrt(c0 * c0 + c1 * c1 + c2 * c2)
        nc = max(0.0, (n[0] * c0 + n[1] * c1 + n[2] * c2) / cl)
        gloss = 1.6 * nc**260
        wrap = 0.4
        lid = min(1.0, max(0.0, (n[1] - 0.05) * 2.2))
        openness *= 1 - 0.5 * lid
        lit = 0.4 + 0.6 * lit
    elif material == HAIR:
        up = n[1]
        t0, t1, t2 = -n[0] * up, 1 - n[1] * up, -n[2] * up
        tl = math.sqrt(t0 * t0 + t1 * t1 + t2 * t2) + 1e-6
        th = (t0 * h0 + t1 * h1 + t2 * h2) / (tl * hl)
        band = max(0.0, 1 - th * th)
        lit, openness = 0.3 + 0.7 * lit, 0.5 + 0.5 * openness  # hair lets light through
        gloss = (0.03 * band**24 + 0.015 * band**5) * max(0.0, nl + 0.2)
        hair_gloss = 0.3 * band**7 * max(0.0, nl + 0.2)
        wrap = 0.35
    elif material == FRAME:
        gloss, mirror = 0.25 * nh**24, 0.05
        lit, openness = 0.8, 0.8  # frames are thinner than the grid on which both are sampled
    elif material == LENS:
        gloss, mirror = 0.10 * nh**40, 0.06
    elif material == TEETH:
        gloss = 0.12 * nh**24
        lit, openness = 0.5 + 0.5 * lit, 0.25 + 0.75 * openness  # or a smile would show a dark hole
    facing = max(0.0, (nl + wrap) / (1 + wrap))
    fill = 0.10 * max(0.0, -0.75 * sun[0] * n[0] + 0.1 * n[1] + 0.65 * n[2])
    rim = 0.35 * max(0.0, -0.6 * sun[0] * n[0] + 0.45 * n[1] - 0.66 * n[2] + 0.25) * (1 - nv)
    edge = (1 - nv) ** 4 * mirror
    for k in range(3):
        around = _around(light, n, k)
        d[k] = facing * lit * light.key[k] + (around + fill + rim) * openness
        g[k] = (
            gloss * lit * light.key[k]
            + edge * openness * (around + rim)
            + hair_gloss * lit * light.key[k] * look.hair[k]
        )


@compiled
def _lit_statue(c, d, g, n, v, f, material, lit, openness, look, light, noise):  # type: ignore[no-untyped-def]
    """Radiance in g, with c and d left 0: bronze mirrors a made-up sky and grows green in its hollows; marble is white
    stone with veins."""
    sun = light.direction
    nv = n[0] * v[0] + n[1] * v[1] + n[2] * v[2]
    r0, r1, r2 = 2 * nv * n[0] - v[0], 2 * nv * n[1] - v[1], 2 * nv * n[2] - v[2]
    rl = max(0.0, r0 * sun[0] + r1 * sun[1] + r2 * sun[2])
    if look.substance == MARBLE:
        if material in (SKIN, CLOTH):
            vein = abs(_noise_at(noise, f, 0.45, 3, look.phase) + 0.4 * _noise_at(noise, f, 1.3, 1, look.phase))
            if vein < 0.16:
                _mix(c, 0.25 * (1 - vein / 0.16), 0.55, 0.56, 0.58)
        _lit(d, g, n, v, f, CLOTH, lit, openness * openness, look, light)
        for k in range(3):
            g[k] = 0.8 * c[k] * c[k] * d[k] + 0.06 * rl**24 * lit
            c[k] = d[k] = 0.0
        return
    sky = min(1.0, max(0.0, 0.5 + 0.5 * r1))
    mirror = 0.15 + 0.75 * sky * sky * (3 - 2 * sky) * (0.45 + 0.55 * lit)
    diffuse = max(0.0, n[0] * sun[0] + n[1] * sun[1] + n[2] * sun[2]) * lit
    patina = min(1.0, max(0.0, (1 - openness) * 1.4))
    _mix(c, 0.5 * patina, 0.16, 0.30, 0.24)
    for k in range(3):
        shown = (
            c[k] * (0.30 * diffuse + mirror * 0.8) * openness
            + (0.55 if k == 0 else 0.42 if k == 1 else 0.26) * (0.5 * rl**10 + 0.6 * rl**40) * lit
        )
        g[k] = 1.2 * shown * shown
        c[k] = d[k] = 0.0


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
    _normalise(outward)
    for k in range(3):
        n[k] = 0.3 * n[k] + 0.7 * outward[k]
    _normalise(n)


@compiled
def _place_and_normal(p, n, v, t, b1, b2, triangles, vertices, normals, eye):  # type: ignore[no-untyped-def]
    """Position, normal turned to the viewer and direction to the viewer of a point of triangle t."""
    b0 = 1 - b1 - b2
    i0, i1, i2 = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    _blend(n, normals, 3, i0, i1, i2, b0, b1, b2)
    _blend(p, vertices, 3, i0, i1, i2, b0, b1, b2)
    for k in range(3):
        v[k] = eye[k] - p[k]
    _normalise(n)
    _normalise(v)
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
        _statue_albedo(c, material, f, (r + g_ + b) / 3, look, noise)
        _lit_statue(c, d, g, n, v, f, material, lit, openness, look, light, noise)
        return
    if material == SKIN:
        _skin_albedo(c, f, look, noise)
    else:
        _thing_albedo(c, material, r, g_, b, look)
    _lit(d, g, n, v, f, material, lit, openness, look, light)


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
            out[i, j, 0] = _shadow_at(p, n, light, shadow, 2)
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
            _normalise(v)
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
                lit = _shadow_at(p, n, light, shadow, 4)
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
