"""Whether a person wears glasses: their frame is a dark bar across the bridge of the nose.

The bar is looked for along the line of the landmarks from between the brows to the middle of the nose, in the mean
brightness across that line. Wrinkles of a frown run along it, shadows and lashes end before it. Frames without a dark
bridge are not found, and a profile does not show the bridge.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from .face import Face

_TOP, _BOTTOM = 9, 195  # landmarks of the face mesh: between the brows, middle of the nose
_CORNERS = 133, 362  # inner corners of the eyes, right and left of the person
_SAMPLES, _COLUMNS = 48, 9  # along the line and across it
_HALF_WIDTH = 0.1  # of the strip, in distances between the corners
_REACH = 6  # samples from the darkest point of a bar to skin
# Depths of a bar with glasses and without, in standard deviations of the face's brightness. Of eleven photographs of
# one person the four with glasses have 2.2 to 3.5, a frown has 1.0, the others have at most 0.5.
LEAST_DEPTH, MOST_DEPTH = 1.5, 0.5
MOST_YAW_DEG = 35.0


def wears_glasses(image: NDArray[np.uint8], face: Face) -> bool | None:
    """Whether the frame of glasses crosses the nose; None: it cannot be said.

    Args:
        image: (H, W, 3) RGB, 0..255.
        face: of the person, in this image.
    """
    depth = bridge_depth(image, face)
    is_clear = not MOST_DEPTH < depth < LEAST_DEPTH and abs(face.yaw_deg) <= MOST_YAW_DEG
    return depth >= LEAST_DEPTH if is_clear else None


def bridge_depth(image: NDArray[np.uint8], face: Face) -> float:
    """How much darker than the skin around it the darkest bar is, in standard deviations of the face; 0: no bar."""
    profile = _bridge(image, face)
    bars = (
        min(profile[max(0, k - _REACH) : k].max(), profile[k + 1 : k + 1 + _REACH].max()) - profile[k]
        for k in range(2, _SAMPLES - 2)
    )
    return max(0.0, float(max(bars)))


def _bridge(image: NDArray[np.uint8], face: Face) -> NDArray[np.float64]:
    """Brightness along the line (48,), in standard deviations of the face's."""
    points = face.landmarks[:, :2].astype(np.float64)
    top, line, across = points[_TOP], points[_BOTTOM] - points[_TOP], points[_CORNERS[1]] - points[_CORNERS[0]]
    along = np.linspace(0, 1, _SAMPLES)[:, None, None]
    aside = _HALF_WIDTH * np.linspace(-1, 1, _COLUMNS)[None, :, None]
    left, upper, right, lower = (max(edge, 0) for edge in face.box_px)
    places = (top + along * line + aside * across - (left, upper)).astype(np.float32)  # (48, 9, 2)
    grey = cv2.cvtColor(image[upper:lower, left:right], cv2.COLOR_RGB2GRAY).astype(np.float32)
    smooth = cv2.GaussianBlur(grey, (0, 0), max(float(np.hypot(*line)) / _SAMPLES / 2, 0.3))  # no aliasing
    strip = cv2.remap(smooth, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(strip.mean(axis=1) / (grey.std() + 1), dtype=np.float64)
