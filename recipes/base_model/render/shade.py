"""Colours and light, one pixel at a time: a deferred-shading kernel over the rasteriser's buffers.

Skin: albedo by anatomical masks, wrapped diffuse per channel (a cheap stand-in for scattering under the skin), two
lobes of gloss, shadows that bleed red. Hair: Kajiya-Kay highlights along the strands. Bronze and marble replace the
material of the whole figure before any light falls on it.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recipes.base_model.render import anatomy
from recipes.base_model.render.compiled import compiled
from recipes.base_model.render.figure import BROW, CLOTH, EYE, FRAME, HAIR, LASH, LENS, SKIN, TEETH
from recipes.base_model.render.raster import texel

Array = NDArray[np.float32]
FLESH, BRONZE, MARBLE = 0, 1, 2
SHADOW_PX = 160
SHADOW_WIDTH_DM = 4.4
SHADOW_DEPTH_DM = 6.0
SHADOW_BIAS_DM = 0.06

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
    """Colours (linear RGB, (3,)) and amounts."""

    substance: int  # FLESH, BRONZE or MARBLE
    tone: Array
    lips: Array
    hair: Array
    brow: Array
    cloth: Array
    frame: Array
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
    phase: Array  # of the skin noise


class Light(NamedTuple):
    direction: Array  # (3,) unit, towards the light
    frame: Array  # (3, 3) rows: the light's right, up and direction
    key: Array  # RGB
    ambient: Array  # RGB
    shadow: Array  # (SHADOW_PX, SHADOW_PX) distance map
    centre: Array  # (3,) of the head
    eye: Array  # (3,) the camera


@compiled
def _noise_at(noise, f, frequency, offset, phase):  # type: ignore[no-untyped-def]
    # Slanted and mirrored: projected straight along an axis, skin that runs along that axis would show stripes.
    side = abs(f[0])
    row = int(((0.8 * side - 0.6 * f[2]) * frequency + phase[0] + offset) * 64) % 512
    column = int(((f[1] + 0.31 * f[2] + 0.23 * side) * frequency + phase[1]) * 64) % 512
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
        0.022 * _noise_at(noise, f, 1.0, 0, look.phase) + 0.016 * _noise_at(noise, f, 3.1, 0, look.phase)
    )
    for k in range(3):
        c[k] = t[k] * grain
    _mix(c, f[_BLUSH] * look.blush * 0.5 + f[_NOSE] * 0.25 + f[_EARS] * 0.25, t[0] * 1.02, t[1] * 0.78, t[2] * 0.76)
    _mix(c, f[_EYES] * (0.16 + 0.16 * look.age), t[0] * 0.74, t[1] * 0.63, t[2] * 0.62)
    if look.freckles > 0 and _noise_at(noise, f, 7.0, 0, look.phase) > 1.5:
        _mix(c, min(1.0, f[_BLUSH] + f[_NOSE]) * 0.5, t[0] * 0.75, t[1] * 0.6, t[2] * 0.5)
    _mix(c, f[_LIPS] * look.lip_amount, look.lips[0], look.lips[1], look.lips[2])
    speck = min(1.6, max(0.5, 1 + 0.2 * _noise_at(noise, f, 9.0, 0, look.phase)))
    h = look.hair
    beard = f[look.beard_field] * (1 + 0.3 * _noise_at(noise, f, 5.0, 0, look.phase)) * look.beard_amount
    _mix(c, beard, h[0] * speck, h[1] * speck, h[2] * speck)
    scalp = f[_SCALP] * (1 + 0.2 * _noise_at(noise, f, 6.0, 0, look.phase)) * look.scalp_amount
    _mix(c, scalp, h[0] * speck, h[1] * speck, h[2] * speck)
    if look.age > 0.35:
        spots = min(2.0, max(0.0, _noise_at(noise, f, 2.3, 7, look.phase)))
        for k in range(3):
            c[k] *= 1 - 0.09 * (look.age - 0.35) * spots * (1 - f[_SCALP])


@compiled
def _thing_albedo(c, material, r, g, b, look):  # type: ignore[no-untyped-def]
    """Everything but skin; r, g, b is the texel."""
    light = (r + g + b) / 3
    if material == EYE:
        saturation = min(1.0, 4 * (max(r, g, b) - min(r, g, b)))
        tint = look.brown_eyes * saturation
        c[0], c[1], c[2] = r * (1.06 - 0.40 * tint), g * (1.06 - 0.46 * tint), b * (1.08 - 0.48 * tint)
    elif material == BROW:
        c[0], c[1], c[2] = look.brow[0], look.brow[1], look.brow[2]
    elif material == HAIR:
        for k in range(3):
            c[k] = look.hair[k] * (0.1 + 2.0 * light)
    elif material == CLOTH:
        if look.two_tone > 0 and light > 0.45:
            c[0], c[1], c[2] = 0.86, 0.86, 0.86
        else:
            for k in range(3):
                c[k] = look.cloth[k] * (0.92 + 0.4 * (light - 0.45) if look.two_tone == 0 else 0.8)
    elif material == TEETH:
        white = min(1.0, max(0.0, 1.6 - 4 * (r - b)))  # gums stay red
        c[0], c[1], c[2] = r + (0.90 - r) * white, g + (0.88 - g) * white, b + (0.83 - b) * white
    elif material == FRAME:
        c[0], c[1], c[2] = look.frame[0], look.frame[1], look.frame[2]
    else:
        c[0] = c[1] = c[2] = 0.03


@compiled
def _statue_albedo(c, material, f, light, look, noise):  # type: ignore[no-untyped-def]
    """Relief of one material: what was colour becomes a slight difference of depth."""
    depth = 1.0
    if material == SKIN:
        beard = f[look.beard_field] * look.beard_amount * (1 + 0.5 * _noise_at(noise, f, 7.0, 0, look.phase))
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
def _shadow_at(p, n, light):  # type: ignore[no-untyped-def]
    """Share of 25 taps of the distance map that see the light (percentage-closer filtering)."""
    # Looked up a little above the surface, or grazing light would strike its own skin in stripes.
    d0 = p[0] - light.centre[0] + SHADOW_BIAS_DM * n[0]
    d1 = p[1] - light.centre[1] + SHADOW_BIAS_DM * n[1]
    d2 = p[2] - light.centre[2] + SHADOW_BIAS_DM * n[2]
    m = light.frame
    column = int(((m[0, 0] * d0 + m[0, 1] * d1 + m[0, 2] * d2) / SHADOW_WIDTH_DM + 0.5) * SHADOW_PX)
    row = int((0.5 - (m[1, 0] * d0 + m[1, 1] * d1 + m[1, 2] * d2) / SHADOW_WIDTH_DM) * SHADOW_PX)
    distance = SHADOW_DEPTH_DM - (m[2, 0] * d0 + m[2, 1] * d1 + m[2, 2] * d2) - SHADOW_BIAS_DM
    lit = 0
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            y, x = row + dy, column + dx
            if x < 0 or y < 0 or x >= SHADOW_PX or y >= SHADOW_PX or light.shadow[y, x] > distance:
                lit += 1
    return lit / 25.0


@compiled
def _normalise(a):  # type: ignore[no-untyped-def]
    length = math.sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2]) + 1e-9
    for k in range(3):
        a[k] /= length


@compiled
def _lit(c, n, v, f, material, lit, occlusion, look, light):  # type: ignore[no-untyped-def]
    """Turns the albedo c into radiance, in place."""
    sun = light.direction
    nl = n[0] * sun[0] + n[1] * sun[1] + n[2] * sun[2]
    nv = max(0.0, n[0] * v[0] + n[1] * v[1] + n[2] * v[2])
    h0, h1, h2 = v[0] + sun[0], v[1] + sun[1], v[2] + sun[2]
    hl = math.sqrt(h0 * h0 + h1 * h1 + h2 * h2) + 1e-9
    nh = min(1.0, max(0.0, (n[0] * h0 + n[1] * h1 + n[2] * h2) / hl))
    gloss = 0.0
    if look.substance != FLESH:
        gloss = 0.0
    elif material == SKIN:
        gloss = 0.07 * nh**16 + 0.05 * nh**60 + 0.10 * f[_LIPS] * nh**30
    elif material == EYE:
        nc = max(0.0, 0.25 * n[0] + 0.42 * n[1] + 0.87 * n[2])  # a catchlight, wherever the main light is
        gloss = 0.9 * nh**120 + 0.5 * nc**160
    elif material == HAIR:
        up = n[1]
        t0, t1, t2 = -n[0] * up, 1 - n[1] * up, -n[2] * up
        tl = math.sqrt(t0 * t0 + t1 * t1 + t2 * t2) + 1e-6
        th = (t0 * h0 + t1 * h1 + t2 * h2) / (tl * hl)
        gloss = 0.16 * max(0.0, 1 - th * th) ** 10 * max(0.0, nl + 0.2)
    elif material in (FRAME, LENS, TEETH):
        gloss = 0.5 * nh**30
    hemisphere = 0.68 + 0.32 * n[1]
    fill = 0.30 * max(0.0, -0.8 * sun[0] * n[0] + 0.1 * n[1] + 0.6 * n[2])
    rim = 0.10 * (1 - nv) ** 4 * occlusion
    for k in range(3):
        wrap, bleed = 0.05, 1.0
        if look.substance == MARBLE:
            wrap = 0.25
        elif material == SKIN:
            wrap = 0.30 if k == 0 else 0.15 if k == 1 else 0.11
            bleed = 0.62 if k == 0 else 1.0 if k == 1 else 1.1
        elif material == HAIR:
            wrap = 0.3
        diffuse = min(1.0, max(0.0, (nl + wrap) / (1 + wrap))) * (lit**bleed if 0 < lit < 1 else lit)
        ambient = (light.ambient[k] * hemisphere + fill) * occlusion
        c[k] = c[k] * (diffuse * light.key[k] + ambient) + gloss * lit * light.key[k] + 2 * rim * light.ambient[k]


@compiled
def _lit_statue(c, n, v, f, material, lit, occlusion, look, light, noise):  # type: ignore[no-untyped-def]
    """Bronze mirrors a made-up sky and grows green in its hollows; marble is white stone with veins."""
    sun = light.direction
    nv = n[0] * v[0] + n[1] * v[1] + n[2] * v[2]
    r0, r1, r2 = 2 * nv * n[0] - v[0], 2 * nv * n[1] - v[1], 2 * nv * n[2] - v[2]
    rl = max(0.0, r0 * sun[0] + r1 * sun[1] + r2 * sun[2])
    if look.substance == MARBLE:
        if material in (SKIN, CLOTH):
            vein = abs(_noise_at(noise, f, 0.45, 3, look.phase) + 0.4 * _noise_at(noise, f, 1.3, 1, look.phase))
            if vein < 0.16:
                _mix(c, 0.25 * (1 - vein / 0.16), 0.55, 0.56, 0.58)
        _lit(c, n, v, f, CLOTH, lit, occlusion * occlusion, look, light)
        for k in range(3):
            c[k] = 0.92 * c[k] + 0.10 * rl**24 * lit
        return
    sky = min(1.0, max(0.0, 0.5 + 0.5 * r1))
    mirror = 0.15 + 0.75 * sky * sky * (3 - 2 * sky) * (0.45 + 0.55 * lit)
    diffuse = max(0.0, n[0] * sun[0] + n[1] * sun[1] + n[2] * sun[2]) * lit
    patina = min(1.0, max(0.0, (1 - occlusion) * 1.8))
    _mix(c, 0.5 * patina, 0.16, 0.30, 0.24)
    for k in range(3):
        c[k] = (
            c[k] * (0.30 * diffuse + mirror * 0.8) * occlusion
            + (0.55 if k == 0 else 0.42 if k == 1 else 0.26) * (0.5 * rl**10 + 0.6 * rl**40) * lit
        )


@compiled
def _blend(out, rows, i0, i1, i2, b0, b1, b2):  # type: ignore[no-untyped-def]
    """Barycentric interpolation of vertex rows."""
    for k in range(out.shape[0]):
        out[k] = rows[i0, k] * b0 + rows[i1, k] * b1 + rows[i2, k] * b2


@compiled
def _round_hair(n, p, outward, light):  # type: ignore[no-untyped-def]
    """Bends the normal outwards from the head: hair is shaded as a body, not as single cards."""
    for k in range(3):
        outward[k] = p[k] - light.centre[k] + (0.5 if k == 2 else 0.0)
    _normalise(outward)
    for k in range(3):
        n[k] = 0.35 * n[k] + 0.65 * outward[k]
    _normalise(n)


@compiled
def shade(image, triangle, second, third, surface, look, light):  # type: ignore[no-untyped-def]
    """Paints every covered pixel of `image` (S, S, 3) float32 in place, display-ready in [0, 1]."""
    n, v, p, c = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
    f = np.zeros(_FIELDS)
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            t = triangle[row, column]
            if t < 0:
                continue
            b1, b2 = second[row, column], third[row, column]
            b0 = 1 - b1 - b2
            i0, i1, i2 = surface.triangles[t, 0], surface.triangles[t, 1], surface.triangles[t, 2]
            _blend(n, surface.normals, i0, i1, i2, b0, b1, b2)
            _blend(p, surface.vertices, i0, i1, i2, b0, b1, b2)
            for k in range(3):
                v[k] = light.eye[k] - p[k]
            _normalise(n)
            _normalise(v)
            if n[0] * v[0] + n[1] * v[1] + n[2] * v[2] < 0:
                for k in range(3):
                    n[k] = -n[k]
            material = surface.material[t]
            occlusion = 1.0
            texel_row = texel(1 - (surface.uv[t, 0, 1] * b0 + surface.uv[t, 1, 1] * b1 + surface.uv[t, 2, 1] * b2))
            texel_column = texel(surface.uv[t, 0, 0] * b0 + surface.uv[t, 1, 0] * b1 + surface.uv[t, 2, 0] * b2)
            color = surface.textures[surface.color_texture[t], texel_row, texel_column]
            r, g, b = color[0] / 255.0, color[1] / 255.0, color[2] / 255.0
            if material == SKIN:
                _blend(f, surface.fields, i0, i1, i2, b0, b1, b2)
                hollow = surface.hollow[i0] * b0 + surface.hollow[i1] * b1 + surface.hollow[i2] * b2
                occlusion = min(1.04, max(0.45, 1 - 9 * min(0.06, max(-0.004, hollow))))
            else:
                for k in range(3):
                    f[k] = p[k]
                for k in range(3, _FIELDS):
                    f[k] = 0.0
            if material == HAIR:
                _round_hair(n, p, c, light)
            lit = _shadow_at(p, n, light)
            if look.substance != FLESH:
                _statue_albedo(c, material, f, (r + g + b) / 3, look, surface.noise)
                _lit_statue(c, n, v, f, material, lit, occlusion, look, light, surface.noise)
            else:
                if material == SKIN:
                    _skin_albedo(c, f, look, surface.noise)
                else:
                    _thing_albedo(c, material, r, g, b, look)
                _lit(c, n, v, f, material, lit, occlusion, look, light)
            for k in range(3):
                tone = max(0.0, c[k])
                image[row, column, k] = min(1.0, tone / (1 + 0.30 * tone) * 1.12) ** (1 / 1.08)
