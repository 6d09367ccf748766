"""What can be measured on pixels: blur, light, covered eyes, likeness of two files.

Pure functions; `checks` holds the limits and the words.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]  # (H, W)

_BLUR_SIDE_PX = 192  # faces are brought to this size first: blur that training at 512 px cannot see does not count
_BLUR_TAPS = 9

# Landmarks of the skin around each eye (outer ring) and of both cheeks.
_EYE_RINGS = (
    (226, 31, 228, 229, 230, 231, 232, 243, 190, 56, 28, 27, 29, 30, 247),
    (446, 261, 448, 449, 450, 451, 452, 463, 414, 286, 258, 257, 259, 260, 467),
)
_EYES = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
_CHEEKS = (
    (116, 117, 118, 119, 100, 36, 205, 187, 123),
    (345, 346, 347, 348, 329, 266, 425, 411, 352),
)


def grey(image: NDArray[np.uint8]) -> Grey:
    """Luma (H, W) of an RGB image."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def blur_effect(luma: Grey) -> float:
    """0 sharp .. 1 blurred: how little a picture loses when it is blurred once more; independent of contrast.

    Source: Crete et al., 'The blur effect', SPIE 6492, 2007.
    """
    scale = min(1.0, _BLUR_SIDE_PX / max(luma.shape))
    height, width = (max(round(side * scale), 1) for side in luma.shape)
    picture = cv2.resize(luma, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    effects = []
    for axis, window in ((0, (1, _BLUR_TAPS)), (1, (_BLUR_TAPS, 1))):
        steps = np.abs(np.diff(picture, axis=axis))
        steps_blurred = np.abs(np.diff(cv2.blur(picture, window), axis=axis))
        lost = np.maximum(steps - steps_blurred, 0).sum()
        effects.append(1.0 - lost / steps.sum() if steps.sum() > 0 else 1.0)
    return float(max(effects))


def brightest(luma: Grey) -> float:
    """The 95th percentile of luma, 0..255: dark skin before a dark wall has some lit places, a dark photo none."""
    return float(np.percentile(luma, 95))


def blown_share(luma: Grey) -> float:
    """Share of pixels that are burnt out, 0..1."""
    return float((luma >= 250).mean())


def eye_brightness(luma: Grey, landmarks: NDArray[np.floating]) -> float:
    """Brightness of the skin around the better lit eye over that of the cheeks; 1 when both are alike.

    Sunglasses darken lids and the skin below the eyes together; glasses, make-up and shadows do not.
    """
    cheeks = luma[_polygons(luma.shape, landmarks, _CHEEKS)]
    if cheeks.size == 0:
        return 1.0
    eyes = _polygons(luma.shape, landmarks, _EYES)
    rings = [luma[_polygons(luma.shape, landmarks, (ring,)) & ~eyes] for ring in _EYE_RINGS]
    lit = [float(np.median(ring)) for ring in rings if ring.size]
    return max(lit, default=255.0) / max(float(np.median(cheeks)), 1.0)


def fingerprint(luma: Grey) -> NDArray[np.bool_]:
    """Perceptual hash, 64 bits: signs of the lowest 8 x 8 cosine frequencies of a 32 x 32 copy, against their median.

    Source: Zauner, 'Implementation and benchmarking of perceptual image hash functions', 2010, section 3.2.1.
    """
    small = cv2.resize(luma, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    return np.asarray(low > np.median(low[1:]))  # the first is the mean brightness


def thumbnail(luma: Grey) -> NDArray[np.float32]:
    """A 32 x 32 copy with mean 0 and length 1: the dot product of two is their correlation."""
    small = cv2.resize(luma, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-6))


def _polygons(
    shape: tuple[int, ...], landmarks: NDArray[np.floating], groups: tuple[tuple[int, ...], ...]
) -> NDArray[np.bool_]:
    canvas = np.zeros(shape, dtype=np.uint8)
    for group in groups:
        cv2.fillPoly(canvas, [np.rint(landmarks[list(group), :2]).astype(np.int32)], (255,))
    return canvas > 0
