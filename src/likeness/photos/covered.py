"""Which part of a face is covered: eyes, mouth, or one of its halves.

Skin has one colour all over a face, in light and in shadow, so a part of another colour is a mask, a scarf, a lens or a
bar. Unlike a beard, lipstick or a fringe, a cover hides the lips, the eyes and the skin below them. Covers with the
colour of skin, such as hands, are not detected.
"""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Part = Literal["eyes", "mouth", "left half", "right half"]  # halves as seen in the image

_FACE_PX = 160.0  # faces are scaled to this size first

# Rings of landmarks; right and left are the person's, as in `pose`.
_FOREHEAD = (108, 151, 337, 336, 9, 107)
_BRIDGE = (193, 168, 417, 465, 351, 6, 122, 245)
_NOSE = (51, 5, 281, 275, 4, 45)
_LIPS = (61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91)
_CHIN = (18, 83, 201, 208, 171, 175, 396, 428, 421, 313)
_CHEEKS = (
    (116, 117, 118, 119, 100, 36, 205, 187, 123),
    (345, 346, 347, 348, 329, 266, 425, 411, 352),
)
_JAWS = ((207, 214, 210, 169, 135, 192), (427, 434, 430, 394, 364, 416))
EYES = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
_EYE_RINGS = (
    (226, 31, 228, 229, 230, 231, 232, 243, 190, 56, 28, 27, 29, 30, 247),
    (446, 261, 448, 449, 450, 451, 452, 463, 414, 286, 258, 257, 259, 260, 467),
)

# Skin as cameras see it, in Lab: its hue, and its chroma over its lightness. Between patches of one of 31 faces, lit
# from all sides, hues differ by 30 degrees and chromas by 1 to 2 at most; masks and lenses by 60 degrees or 1 to 2.5.
_SKIN_HUE_DEG, _SKIN_CHROMA = (-10.0, 95.0), (0.08, 0.7)
_SAME_HUE_DEG, _SAME_CHROMA = 45.0, (0.45, 2.2)
_LEAST_APART = 0.13  # of chroma over lightness: without chroma, hue has no meaning
_FLAT = 0.15  # detail over the detail of another part that shows some: eyes over lips 0.6 and up, lips over eyes 0.3
_TURNED_DEG = 25.0  # beyond this yaw too little of the far half is visible

Patch = tuple[float, float, float, float]  # L, a, b and mean detail
Colour = tuple[float, float]  # hue in degrees, and chroma over lightness, which shadow changes little


def covered_parts(image: NDArray[np.uint8], landmarks: NDArray[np.floating], yaw_deg: float) -> tuple[Part, ...]:
    """The parts of a face that something covers, in another colour than its skin or without detail.

    Args:
        image: (H, W, 3) RGB, 0..255; in a grey image only flat covers are detected.
        landmarks: (478, 3) pixels.
    """
    lab, detail, points = _at_one_size(image, landmarks)

    def patch(ring: tuple[int, ...], hole: tuple[int, ...] = ()) -> Patch | None:
        inside = _inside(lab.shape[:2], points, ring)
        if hole:
            inside &= ~_inside(lab.shape[:2], points, hole)
        if not inside.any():
            return None
        lightness, a, b = np.median(lab[inside], axis=0)
        return float(lightness), float(a), float(b), float(detail[inside].mean())

    cheeks, jaws, eyes = ([patch(ring) for ring in rings] for rings in (_CHEEKS, _JAWS, EYES))
    rings = [patch(ring, hole) for ring, hole in zip(_EYE_RINGS, EYES, strict=True)]
    lips, chin = patch(_LIPS), patch(_CHIN)
    skin = _skin([patch(ring) for ring in (_FOREHEAD, _BRIDGE, _NOSE)] + [*cheeks, *jaws, chin])
    facing = [side for side in (0, 1) if (yaw_deg, -yaw_deg)[side] > -_TURNED_DEG]
    both = len(facing) == 2
    parts: list[Part] = []
    if all(_is_other(rings[side], skin) or _is_flat(eyes[side], lips) for side in facing):
        parts.append("eyes")
    if (_is_other(lips, skin) and _is_other(chin, skin)) or all(_is_flat(lips, eyes[side]) for side in facing):
        parts.append("mouth")
    # A mask covers cheeks and jaw, but not the eyes.
    least = 3 if "mouth" in parts else 2
    hidden = [
        ("eyes" not in parts and _is_flat(eyes[side], eyes[1 - side]) and (both or _is_other(cheeks[side], skin)))
        or (both and sum(_is_other(one[side], skin) for one in (cheeks, jaws, rings)) >= least)
        for side in (0, 1)
    ]  # fmt: skip
    if hidden[0] != hidden[1]:
        parts.append("left half" if hidden[0] else "right half")
    return tuple(parts)


def eye_brightness(luma: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> float:
    """Brightness of the skin around the better-lit eye divided by that of the cheeks; 1 when both are equal.

    Sunglasses darken both the lids and the skin below the eyes; clear glasses, make-up and shadows do not.
    """
    points = landmarks[:, :2]
    cheeks = np.concatenate([luma[_inside(luma.shape, points, ring)] for ring in _CHEEKS])
    if cheeks.size == 0:
        return 1.0
    around = [
        luma[_inside(luma.shape, points, ring) & ~_inside(luma.shape, points, eye)]
        for ring, eye in zip(_EYE_RINGS, EYES, strict=True)
    ]
    lit = [float(np.median(skin)) for skin in around if skin.size]
    return max(lit, default=255.0) / max(float(np.median(cheeks)), 1.0)


def eye_light(luma: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> float:
    """The 95th percentile of luma within the better lit eye, 0..255; 0 where neither is in the picture.

    The white of the eye is equally bright with any skin, so it separates the light from the skin.
    """
    eyes = [luma[_inside(luma.shape, landmarks[:, :2], ring)] for ring in EYES]
    return max((float(np.percentile(eye, 95)) for eye in eyes if eye.size), default=0.0)


def _at_one_size(
    image: NDArray[np.uint8], landmarks: NDArray[np.floating]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.floating]]:
    """Lab (h, w, 3), its fine detail (h, w) and the landmarks (478, 2) of the face's surroundings."""
    left, top = np.floor(landmarks[:, :2].min(axis=0)).astype(int)
    right, bottom = np.ceil(landmarks[:, :2].max(axis=0)).astype(int) + 1
    height, width = image.shape[:2]
    left, top = max(left, 0), max(top, 0)
    window = image[top : max(min(bottom, height), top + 1), left : max(min(right, width), left + 1)]
    scale = _FACE_PX / max(right - left, bottom - top)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(window, None, fx=scale, fy=scale, interpolation=method)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    detail = np.abs(lab[..., 0] - cv2.GaussianBlur(lab[..., 0], (0, 0), 2.5))
    return np.asarray(lab), np.asarray(detail), (landmarks[:, :2] - (left, top)) * scale


def _inside(shape: tuple[int, ...], points: NDArray[np.floating], ring: tuple[int, ...]) -> NDArray[np.bool_]:
    canvas = np.zeros(shape, dtype=np.uint8)
    cv2.fillPoly(canvas, [np.rint(points[list(ring)]).astype(np.int32)], (255,))
    return canvas > 0


def _skin(patches: list[Patch | None]) -> Colour | None:
    """The skin's colour: of the possible skin patches, the one most similar to the others; None if there is none."""
    colours = [_colour(patch) for patch in patches if patch is not None]
    likely = [
        (hue, chroma)
        for hue, chroma in colours
        if _SKIN_HUE_DEG[0] <= hue <= _SKIN_HUE_DEG[1] and _SKIN_CHROMA[0] <= chroma <= _SKIN_CHROMA[1]
    ]
    return max(likely, key=lambda one: sum(_alike(one, other) for other in likely), default=None)


def _is_other(patch: Patch | None, skin: Colour | None) -> bool:
    return patch is not None and skin is not None and not _alike(_colour(patch), skin)


def _is_flat(patch: Patch | None, beside: Patch | None) -> bool:
    """Whether a patch has almost no detail while a neighbouring one has some."""
    return patch is not None and beside is not None and patch[3] < _FLAT * beside[3]


def _alike(one: Colour, other: Colour) -> bool:
    turn = abs((one[0] - other[0] + 180) % 360 - 180)
    apart = abs(one[1] * np.exp(1j * np.radians(one[0])) - other[1] * np.exp(1j * np.radians(other[0])))
    near = turn <= _SAME_HUE_DEG and _SAME_CHROMA[0] <= one[1] / max(other[1], 1e-6) <= _SAME_CHROMA[1]
    return near or bool(apart < _LEAST_APART)


def _colour(patch: Patch) -> Colour:
    lightness, a, b, _ = patch
    return float(np.degrees(np.arctan2(b, a))), float(np.hypot(a, b)) / (lightness + 16)
