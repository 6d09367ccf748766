"""Pose and expression of a face from the 478 landmarks of the face mesh.

Pure geometry. The mesh uses a weak perspective, so large angles are underestimated: 60 to 70 degrees are measured as 35
to 45. The limits below are in measured degrees.

Source of the landmark numbers: the canonical face model of MediaPipe's Face Mesh (Kartynnik et al., 2019).
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Expression = Literal["neutral", "smile", "open mouth", "frown"]

_EYE_RIGHT, _EYE_LEFT = 33, 263  # outer corners; right and left of the person
_FOREHEAD, _CHIN = 10, 152  # in the canonical face these two have the same depth
_MOUTH_RIGHT, _MOUTH_LEFT = 61, 291
_INNER_LIP_TOP, _INNER_LIP_BOTTOM = 13, 14
_BROW_RIGHT, _BROW_LEFT = 55, 285  # inner ends
_EYE_INNER_RIGHT, _EYE_INNER_LEFT = 133, 362

FRONT_DEG, PROFILE_DEG = 15.0, 35.0
UP_DEG, DOWN_DEG = 8.0, -16.0  # level faces read as -4 to -10, because cameras are usually above the chin

# Ratios from 11 photographs of a man and 32 renders of virtual people, with expressions labelled by hand:
# open mouths 0.37 to 0.60 against 0.17 at most; smiles wider than 0.59 with corners raised by 0.02 or more.
_OPEN_MOUTH, _SMILE_WIDTH, _SMILE_LIFT, _CLEAR_SMILE_LIFT = 0.30, 0.595, 0.02, 0.05
_FROWN_BROW, _FROWN_LIFT = 0.165, -0.06


def face_axes(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """The face's own axes (3, 3) as rows, in image coordinates: to its left, down, and away from the viewer.

    Args:
        landmarks: (478, 3) pixels; depth grows away from the camera.
    """
    left = _unit(landmarks[_EYE_LEFT] - landmarks[_EYE_RIGHT])
    down = landmarks[_CHIN] - landmarks[_FOREHEAD]
    down = _unit(down - left * (down @ left))  # Gram-Schmidt
    return np.stack([left, down, np.cross(left, down)])


def pose_deg(landmarks: NDArray[np.floating]) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees.

    Yaw is positive when the face turns to the right edge of the image, pitch when it looks up, roll when the head is
    rotated clockwise in the image. All three are 0 for a level face that looks into the camera.
    """
    left, _, away = face_axes(landmarks)
    nose = -away
    yaw = np.degrees(np.arctan2(nose[0], -nose[2]))
    pitch = np.degrees(np.arcsin(np.clip(-nose[1], -1.0, 1.0)))
    roll = np.degrees(np.arctan2(left[1], left[0]))
    return float(yaw), float(pitch), float(roll)


def yaw_name(yaw_deg: float) -> str:
    """`front`, or `three_quarter_` or `profile_` with the side of the image that the face turns to."""
    if abs(yaw_deg) < FRONT_DEG:
        return "front"
    side = "right" if yaw_deg > 0 else "left"
    return f"{'three_quarter' if abs(yaw_deg) < PROFILE_DEG else 'profile'}_{side}"


def pitch_name(pitch_deg: float) -> str:
    """`up`, `level` or `down`."""
    return "up" if pitch_deg > UP_DEG else "down" if pitch_deg < DOWN_DEG else "level"


def expression_of(landmarks: NDArray[np.floating]) -> Expression:
    """The most evident expression of mouth and brows, measured in the face's own axes to be independent of the pose."""
    across = landmarks @ face_axes(landmarks).T  # (478, 3): to the left, down, away
    width = np.linalg.norm(across[_MOUTH_RIGHT] - across[_MOUTH_LEFT])
    eyes = np.linalg.norm(across[_EYE_RIGHT] - across[_EYE_LEFT])
    lips = (across[_INNER_LIP_TOP] + across[_INNER_LIP_BOTTOM]) / 2
    gap = np.linalg.norm(across[_INNER_LIP_TOP] - across[_INNER_LIP_BOTTOM]) / width
    lift = (lips[1] - (across[_MOUTH_RIGHT, 1] + across[_MOUTH_LEFT, 1]) / 2) / width
    eye_line = across[_EYE_INNER_RIGHT, 1] + across[_EYE_INNER_LEFT, 1]
    brow = (eye_line - across[_BROW_RIGHT, 1] - across[_BROW_LEFT, 1]) / 2 / eyes

    if gap > _OPEN_MOUTH:
        return "open mouth"
    if width / eyes > _SMILE_WIDTH and lift > _CLEAR_SMILE_LIFT:
        return "smile"
    if brow < _FROWN_BROW or lift < _FROWN_LIFT:
        return "frown"
    return "smile" if width / eyes > _SMILE_WIDTH and lift > _SMILE_LIFT else "neutral"


def _unit(vector: NDArray[np.floating]) -> NDArray[np.floating]:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
