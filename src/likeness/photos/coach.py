"""Live hints while a photograph is taken: what to change in front of the camera, or that it may be taken now.

A frame is judged on its own, by the measures of `checks` with limits for a small picture. The first hint that applies
is given, because a person in front of a camera can follow only one at a time.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from . import quality
from .checks import BLOWN_WARNED, DARK_WARNED
from .face import Face, FaceDetector
from .pose import FRONT_DEG, PROFILE_DEG, pitch_name

SIDE_PX = 480  # of the examined frame: half the time of 640 px, with the same landmarks
CLOSE, FAR = 0.78, 0.30  # the face's longer side as a share of the frame's shorter side
OFF_CENTRE = 0.20  # of the frame's side
MOST_BLUR = 0.80  # small frames of web cameras are softer than photographs

_YAWS = {
    "front": (-FRONT_DEG, FRONT_DEG), "three_quarter_left": (-PROFILE_DEG, -FRONT_DEG),
    "three_quarter_right": (FRONT_DEG, PROFILE_DEG), "profile_left": (-90.0, -PROFILE_DEG),
    "profile_right": (PROFILE_DEG, 90.0),
}  # fmt: skip
_EXPRESSIONS = {"smile": "smile", "neutral": "neutral", "open_mouth": "open mouth"}
SHOTS = (*_YAWS, "up", "down", *_EXPRESSIONS)


@dataclass(frozen=True)
class Coaching:
    """What to do now.

    Args:
        hint: `hold` (the photograph may be taken), or what is wrong: `no_face`, `too_dark`, `too_bright`,
            `several_people`, `come_closer`, `go_back`, `centre`, `turn_left`, `turn_right` (the person's own left and
            right), `look_up`, `look_down`, `look_level`, `smile`, `neutral`, `open_mouth`, `hold_still`.
        box: left, top, right, bottom of the face as shares of the frame; None without a face.
        yaw_deg, pitch_deg: see pose.pose_deg; None without a face.
    """

    hint: str
    box: tuple[float, float, float, float] | None = None
    yaw_deg: float | None = None
    pitch_deg: float | None = None


def coach(frame: NDArray[np.uint8], shot: str, finder: FaceDetector) -> Coaching:
    """Judge one frame of a camera, not mirrored.

    Args:
        frame: (H, W, 3) RGB, 0..255.
        shot: of `SHOTS`; anything else is judged as `front`.
    """
    image = _small(frame)
    luma = quality.grey(image)
    faces = finder.detect(image)
    if not faces:
        return Coaching("too_dark" if quality.brightest(luma) < DARK_WARNED else "no_face")
    face = faces[0]
    height, width = luma.shape
    left, top, right, bottom = face.box_px
    box = (left / width, top / height, right / width, bottom / height)
    hint = (
        _light(luma, face)
        or ("several_people" if len(faces) > 1 else None)
        or _place(face, width, height)
        or _pose(face, shot)
        or _expression(face, shot)
        or _sharpness(luma, face)
    )
    return Coaching(hint or "hold", box, round(face.yaw_deg, 1), round(face.pitch_deg, 1))


def _small(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = max(frame.shape[:2])
    if side <= SIDE_PX:
        return frame
    scale = SIDE_PX / side
    size = (max(round(frame.shape[1] * scale), 1), max(round(frame.shape[0] * scale), 1))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _window(luma: quality.Grey, face: Face) -> quality.Grey:
    left, top, right, bottom = face.box_px
    found = luma[max(top, 0) : bottom, max(left, 0) : right]
    return found if found.size else luma


def _light(luma: quality.Grey, face: Face) -> str | None:
    window = _window(luma, face)
    if quality.brightest(window) < DARK_WARNED:
        return "too_dark"
    return "too_bright" if quality.blown_share(window) > BLOWN_WARNED else None


def _place(face: Face, width: int, height: int) -> str | None:
    left, top, right, bottom = face.box_px
    share = face.size_px / min(width, height)
    if share < FAR:
        return "come_closer"
    if share > CLOSE:
        return "go_back"
    across, down = (left + right) / 2 / width - 0.5, (top + bottom) / 2 / height - 0.5
    return "centre" if abs(across) > OFF_CENTRE or abs(down) > OFF_CENTRE else None


def _pose(face: Face, shot: str) -> str | None:
    low, high = _YAWS.get(shot, _YAWS["front"])
    if face.yaw_deg < low:
        return "turn_left"  # the person's left is the right of the image, where yaw grows
    if face.yaw_deg > high:
        return "turn_right"
    wanted = shot if shot in ("up", "down") else "level"
    found = pitch_name(face.pitch_deg)
    if found == wanted or shot.startswith("profile"):
        return None
    if wanted == "level":
        return "look_level"
    return f"look_{wanted}"


def _expression(face: Face, shot: str) -> str | None:
    wanted = _EXPRESSIONS.get(shot)
    return None if wanted is None or face.expression == wanted else shot


def _sharpness(luma: quality.Grey, face: Face) -> str | None:
    return "hold_still" if quality.blur_effect(_window(luma, face)) > MOST_BLUR else None
