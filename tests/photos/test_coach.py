"""Hints for frames, from faces that are made up: one hint at a time, for the shot that is wanted."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from likeness.photos.coach import SHOTS, coach
from likeness.photos.face import Face
from likeness.photos.plan import next_shot, plan, shows

FACE = Face((140, 100, 340, 330), np.zeros((478, 3), np.float32), 0.0, -6.0, 0.0, "neutral", 0.9)


class Found:
    """A detector that has found these faces."""

    def __init__(self, *faces: Face) -> None:
        self._faces = faces

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        return list(self._faces)


def frame(low: int = 60, high: int = 220) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(low, high, (480, 480, 3), dtype=np.uint8)


def hint(shot: str = "front", pixels: NDArray[np.uint8] | None = None, **changes: Any) -> str:
    found = Found(replace(FACE, **changes))
    return coach(frame() if pixels is None else pixels, shot, found).hint


def test_a_good_frame_is_held() -> None:
    assert hint() == "hold"
    assert coach(frame(), "front", Found(FACE)).box == (140 / 480, 100 / 480, 340 / 480, 330 / 480)


@pytest.mark.parametrize(
    ("shot", "changes", "said"),
    [
        ("front", {"box_px": (200, 200, 260, 280)}, "come_closer"),
        ("front", {"box_px": (20, 10, 460, 470)}, "go_back"),
        ("front", {"box_px": (10, 20, 180, 220)}, "centre"),
        ("front", {"yaw_deg": 25.0}, "turn_right"),
        ("front", {"yaw_deg": -25.0}, "turn_left"),
        ("three_quarter_right", {}, "turn_left"),
        ("three_quarter_right", {"yaw_deg": 25.0}, "hold"),
        ("three_quarter_left", {"yaw_deg": -25.0}, "hold"),
        ("profile_left", {"yaw_deg": -25.0}, "turn_right"),
        ("profile_left", {"yaw_deg": -50.0, "pitch_deg": 20.0}, "hold"),
        ("up", {}, "look_up"),
        ("up", {"pitch_deg": 12.0}, "hold"),
        ("down", {}, "look_down"),
        ("front", {"pitch_deg": 12.0}, "look_level"),
        ("smile", {}, "smile"),
        ("smile", {"expression": "smile"}, "hold"),
        ("open_mouth", {}, "open_mouth"),
        ("neutral", {"expression": "smile"}, "neutral"),
    ],
)
def test_one_hint_at_a_time(shot: str, changes: dict[str, Any], said: str) -> None:
    assert shot in SHOTS
    assert hint(shot, **changes) == said


def test_light_people_and_sharpness() -> None:
    assert hint(pixels=frame(0, 40)) == "too_dark"
    assert hint(pixels=np.full((480, 480, 3), 255, np.uint8)) == "too_bright"
    assert coach(frame(), "front", Found(FACE, FACE)).hint == "several_people"
    assert coach(frame(), "front", Found()).hint == "no_face"
    assert coach(frame(0, 40), "front", Found()).hint == "too_dark"
    rows = np.linspace(90, 200, 480)[:, None, None]
    assert hint(pixels=np.broadcast_to(rows, (480, 480, 3)).astype(np.uint8)) == "hold_still"


def test_the_plan_counts_and_names_the_next_shot() -> None:
    coverage = {
        "yaw": {"front": 3, "profile_left": 1}, "pitch": {"up": 0}, "expression": {"smile": 1},
        "background": {"distinct": 1}, "light": {"distinct": 2}, "outfit": {"distinct": 2},
    }  # fmt: skip
    shots = plan(coverage)
    have = {one.shot: (one.have, one.is_filled) for one in shots}
    assert have["front"] == (3, True) and have["places"] == (1, False) and have["profile_left"] == (1, True)
    assert next_shot(shots) == "three_quarter_left"
    assert next_shot([one for one in shots if one.is_filled]) is None
    assert plan({"background": {"distinct": 3}}) == []


def test_a_face_shows_its_shots() -> None:
    assert shows(FACE) == ["front", "neutral"]
    assert shows(replace(FACE, yaw_deg=-50.0, pitch_deg=10.0, expression="open mouth")) == [
        "profile_left",
        "up",
        "open_mouth",
    ]
