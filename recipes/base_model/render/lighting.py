"""Illumination of a point, and shading of skin, hair, objects, bronze and marble, in linear RGB."""

import math
from typing import NamedTuple

from recipes.base_model.render import anatomy
from recipes.base_model.render.albedo import FLESH, MARBLE, Array, Vector, mix, noise_at
from recipes.base_model.render.compiled import compiled
from recipes.base_model.render.figure import CLOTH, EYE, FRAME, HAIR, LENS, SKIN, TEETH

SHADOW_PX = 160
SHADOW_WIDTH_DM = 4.4
SHADOW_DEPTH_DM = 6.0
SHADOW_BIAS_DM = 0.05
SHADOW_SOFT_DM = 0.06  # depth over which a blocker's edge fades in
PENUMBRA_TEXELS = 6
# Column numbers as plain globals: kernels cannot look into modules that may change.
_LIPS, _NOSE = anatomy.LIPS, anatomy.NOSE


class Light(NamedTuple):
    direction: Vector  # unit, towards the light
    frame: tuple[Vector, Vector, Vector]  # the light's right, up and direction
    key: Vector  # RGB
    around: tuple[Vector, Vector, Vector, Vector, Vector]  # RGB from the place: above, below, left, right, front
    shadow: Array  # (SHADOW_PX, SHADOW_PX) distance map
    centre: Vector  # of the head
    eye: Vector  # the camera


@compiled
def shadow_at(p, n, light, shadow, step):  # type: ignore[no-untyped-def]
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
def normalise(a):  # type: ignore[no-untyped-def]
    length = math.sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2]) + 1e-9
    for k in range(3):
        a[k] /= length


@compiled
def around_light(light, n, k):  # type: ignore[no-untyped-def]
    """Channel k of the light that comes from the place along the normal (an ambient cube)."""
    side = light.around[3][k] if n[0] > 0 else light.around[2][k]
    level = light.around[0][k] if n[1] > 0 else light.around[1][k]
    return n[0] * n[0] * side + n[1] * n[1] * level + n[2] * n[2] * light.around[4][k]


@compiled
def light_flesh(d, g, n, v, f, material, lit, openness, look, light):  # type: ignore[no-untyped-def]
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
        around = around_light(light, n, k)
        d[k] = facing * lit * light.key[k] + (around + fill + rim) * openness
        g[k] = (
            gloss * lit * light.key[k]
            + edge * openness * (around + rim)
            + hair_gloss * lit * light.key[k] * look.hair[k]
        )


@compiled
def light_statue(c, d, g, n, v, f, material, lit, openness, look, light, noise):  # type: ignore[no-untyped-def]
    """Radiance in g, with c and d left 0: bronze mirrors a made-up sky and grows green in its hollows; marble is white
    stone with veins."""
    sun = light.direction
    nv = n[0] * v[0] + n[1] * v[1] + n[2] * v[2]
    r0, r1, r2 = 2 * nv * n[0] - v[0], 2 * nv * n[1] - v[1], 2 * nv * n[2] - v[2]
    rl = max(0.0, r0 * sun[0] + r1 * sun[1] + r2 * sun[2])
    if look.substance == MARBLE:
        if material in (SKIN, CLOTH):
            vein = abs(noise_at(noise, f, 0.45, 3, look.phase) + 0.4 * noise_at(noise, f, 1.3, 1, look.phase))
            if vein < 0.16:
                mix(c, 0.25 * (1 - vein / 0.16), 0.55, 0.56, 0.58)
        light_flesh(d, g, n, v, f, CLOTH, lit, openness * openness, look, light)
        for k in range(3):
            g[k] = 0.8 * c[k] * c[k] * d[k] + 0.06 * rl**24 * lit
            c[k] = d[k] = 0.0
        return
    sky = min(1.0, max(0.0, 0.5 + 0.5 * r1))
    mirror = 0.15 + 0.75 * sky * sky * (3 - 2 * sky) * (0.45 + 0.55 * lit)
    diffuse = max(0.0, n[0] * sun[0] + n[1] * sun[1] + n[2] * sun[2]) * lit
    patina = min(1.0, max(0.0, (1 - openness) * 1.4))
    mix(c, 0.5 * patina, 0.16, 0.30, 0.24)
    for k in range(3):
        shown = (
            c[k] * (0.30 * diffuse + mirror * 0.8) * openness
            + (0.55 if k == 0 else 0.42 if k == 1 else 0.26) * (0.5 * rl**10 + 0.6 * rl**40) * lit
        )
        g[k] = 1.2 * shown * shown
        c[k] = d[k] = 0.0
