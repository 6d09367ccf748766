"""The colour of each surface without lighting: skin by anatomical masks, hair, cloth, eyes, stone, bronze."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recipes.base_model.render import anatomy
from recipes.base_model.render.compiled import compiled
from recipes.base_model.render.figure import BROW, CLOTH, EYE, FRAME, HAIR, LASH, LENS, SKIN, TEETH

Array = NDArray[np.float32]
# Small vectors are tuples: kernels count references to an array each time they take it out of a named tuple.
Vector = tuple[float, float, float]
FLESH, BRONZE, MARBLE = 0, 1, 2

# Column numbers as plain globals: kernels cannot look into modules that may change.
_LIPS, _SCALP, _BLUSH, _NOSE = anatomy.LIPS, anatomy.SCALP, anatomy.BLUSH, anatomy.NOSE
_EYES, _EARS = anatomy.EYES, anatomy.EARS


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


@compiled
def noise_at(noise, f, frequency, offset, phase):  # type: ignore[no-untyped-def]
    # Slanted and mirrored: projected straight along an axis, skin that runs along that axis would show stripes.
    side = abs(f[0])
    row = int(((0.8 * side - 0.6 * f[2]) * frequency + phase[0] + offset) * 64) % 512
    column = int(((f[1] + 0.31 * f[2] + 0.23 * side) * frequency + phase[1]) * 64) % 512
    return noise[row, column]


@compiled
def strands_at(noise, f, look):  # type: ignore[no-untyped-def]
    """Noise drawn out downwards: short hair on skin, about two pixels of a 256 px portrait across."""
    side = abs(f[0])
    row = int(((side - 0.55 * f[2]) * 3.4 + look.phase[0] + 0.25 * f[1]) * 64) % 512
    column = int((f[1] * 1.1 + look.phase[1]) * 64) % 512
    return noise[row, column]


@compiled
def mix(c, amount, red, green, blue):  # type: ignore[no-untyped-def]
    amount = min(1.0, max(0.0, amount))
    c[0] += (red - c[0]) * amount
    c[1] += (green - c[1]) * amount
    c[2] += (blue - c[2]) * amount


@compiled
def skin_albedo(c, f, look, noise):  # type: ignore[no-untyped-def]
    t = look.tone
    grain = 1 + look.blotches * (
        0.024 * noise_at(noise, f, 0.4, 0, look.phase) + 0.03 * noise_at(noise, f, 2.4, 0, look.phase)
    )
    for k in range(3):
        c[k] = t[k] * grain
    ruddy = f[_BLUSH] * look.blush + f[_NOSE] * 0.35 + f[_EARS] * 0.35
    mix(c, ruddy, t[0] * 1.02, t[1] * 0.68, t[2] * 0.66)
    mix(c, f[_EYES] * (0.06 + 0.2 * look.age), t[0] * 0.78, t[1] * 0.64, t[2] * 0.66)
    if look.freckles > 0:
        spot = min(1.0, max(0.0, (noise_at(noise, f, 2.6, 0, look.phase) - 0.9) * 1.6))
        mix(c, min(1.0, f[_BLUSH] + f[_NOSE]) * 0.45 * spot, t[0] * 0.62, t[1] * 0.42, t[2] * 0.33)
    mix(c, f[_LIPS] * look.lip_amount, look.lips[0], look.lips[1], look.lips[2])
    if look.age > 0.35:
        spots = min(2.0, max(0.0, noise_at(noise, f, 1.5, 7, look.phase)))
        for k in range(3):
            c[k] *= 1 - 0.05 * (look.age - 0.35) * spots * (1 - f[_SCALP])
    beard, scalp = f[look.beard_field] * look.beard_amount, f[_SCALP] * look.scalp_amount
    beard, scalp = beard * (2 - beard), scalp * (2 - scalp)  # amounts are as seen, the mixture is linear
    if beard > 0.01 or scalp > 0.01:
        strand = strands_at(noise, f, look)
        tint = min(1.5, max(0.6, 1 + 0.16 * strand))
        h = look.hair
        mix(c, beard * (1 + 0.06 * strand), h[0] * tint, h[1] * tint, h[2] * tint)
        mix(c, scalp * (1 + 0.06 * strand), h[0] * tint, h[1] * tint, h[2] * tint)


@compiled
def thing_albedo(c, material, r, g, b, look):  # type: ignore[no-untyped-def]
    """Everything but skin; r, g, b is the texel as stored, in display values."""
    light = (r + g + b) / 3
    if material == EYE:
        high, low = max(r, max(g, b)), min(r, min(g, b))
        white = min(1.0, max(0.0, (low - 0.42) * 4))  # the white of the eye, whatever its texture's tint
        tint = look.brown_eyes * min(1.0, 4 * (high - low)) * (1 - white)
        c[0], c[1], c[2] = r * (1.06 - 0.40 * tint), g * (1.06 - 0.46 * tint), b * (1.08 - 0.48 * tint)
        for k in range(3):
            c[k] *= c[k] * (1 + (0.1 + 0.6 * look.brown_eyes) * (1 - white))
        mix(c, 0.75 * white, 0.70, 0.665, 0.64)
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
        mix(c, look.two_tone * (light - 0.40) * 10, 0.74, 0.74, 0.74)
    elif material == TEETH:
        white = min(1.0, max(0.0, 1.6 - 4 * (r - b)))  # gums stay red
        c[0], c[1], c[2] = r * r, g * g, b * b
        mix(c, white, 0.74, 0.70, 0.61)
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
def statue_albedo(c, material, f, light, look, noise):  # type: ignore[no-untyped-def]
    """Relief of one material: what was colour becomes a slight difference of depth. Display values."""
    depth = 1.0
    if material == SKIN:
        beard = f[look.beard_field] * look.beard_amount * (1 + 0.3 * strands_at(noise, f, look))
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
