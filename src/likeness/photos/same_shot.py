"""Whether two photographs show the same moment: their faces are aligned and compared, also mirrored.

Training looks at the face. Zoom, crop, rotation and filters change the rest of the image but not the face, and a
repeated pose adds nothing, whatever the background.

Sources: Evangelidis, Psarakis, 'Parametric image alignment using enhanced correlation coefficient maximization', TPAMI
2008 (OpenCV's `findTransformECC`).
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Chip = NDArray[np.float32]  # (64, 64), band-passed, without lighting and fine grain

# On 23 photographs of two people: a photograph and its zoomed, rotated, blurred, stretched, darkened, mirrored,
# compressed or reduced copy correlate by at least 0.969, different photographs by at most 0.960.
SAME_SHOT = 0.965

_SIDE_PX = 64
_EYE_ROW, _MOUTH_ROW = 0.34, 0.72  # rows in the chip
_FINE_PX, _COARSE_PX = 1.0, 6.0
_EYES, _MOUTH = np.s_[12:32, 8:56], np.s_[36:58, 14:50]  # an expression changes one of them
_MOST_STRETCH, _MOST_SHIFT_PX = (
    0.25,
    12.0,
)  # landmarks are more accurate than this; larger warps would fit any face to any other
_EYE_CORNERS, _MOUTH_CORNERS = (33, 133, 263, 362), (61, 291)


def chip(luma: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> Chip:
    """The face, normalised to upright and to one size.

    Args:
        luma: (H, W).
        landmarks: (478, 3) pixels.
    """
    eyes, mouth = (landmarks[list(group), :2].mean(axis=0) for group in (_EYE_CORNERS, _MOUTH_CORNERS))
    down = mouth - eyes
    scale = (_MOUTH_ROW - _EYE_ROW) * _SIDE_PX / max(float(np.hypot(*down)), 1e-3)
    angle = np.arctan2(down[0], down[1])
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    shift = np.array([_SIDE_PX / 2, _SIDE_PX * _EYE_ROW]) - turn @ eyes
    # A large face is blurred first, so that reducing it does not alias.
    smooth = cv2.GaussianBlur(luma, (0, 0), 0.35 / scale) if scale < 1 else luma
    small = cv2.warpAffine(smooth, np.column_stack([turn, shift]), (_SIDE_PX,) * 2, borderMode=cv2.BORDER_REPLICATE)
    plane = small.astype(np.float32)
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), _FINE_PX) - cv2.GaussianBlur(plane, (0, 0), _COARSE_PX))


def is_same_shot(one: Chip, other: Chip) -> bool:
    """Whether two faces are of the same shot, or one is of its mirror image."""
    return any(_alike(one, turned) >= SAME_SHOT for turned in (other, np.ascontiguousarray(other[:, ::-1])))


def _alike(one: Chip, other: Chip) -> float:
    """The lower of the correlations of eyes and mouth, -1..1, after `other` is aligned with `one`."""
    inner = np.zeros((_SIDE_PX,) * 2, np.uint8)
    inner[4:-4, 4:-4] = 255
    steps = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-3)
    start = np.eye(2, 3, dtype=np.float32)
    try:
        _, warp = cv2.findTransformECC(one, other, start, cv2.MOTION_AFFINE, steps, inner, 1)
    except cv2.error:  # no alignment found
        return -1.0
    if np.abs(warp[:, :2] - np.eye(2)).max() > _MOST_STRETCH or np.abs(warp[:, 2]).max() > _MOST_SHIFT_PX:
        return -1.0
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(other, warp, (_SIDE_PX,) * 2, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    laid = np.asarray(warped, dtype=np.float32)
    return min(_correlation(one[place], laid[place]) for place in (_EYES, _MOUTH))


def _correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).sum() / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-6))
