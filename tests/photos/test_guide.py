"""Advice on sets, from made faces: what is missing is named, what is there is not."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from likeness.photos.face import Face
from likeness.photos.guide import distinct_colours, guide
from likeness.photos.pose import Expression
from likeness.photos.report import Usable
from likeness.types import Kind, Photo


def shot(yaw: float = 0, pitch: float = 0, *, expression: Expression = "neutral", colour: int = 100) -> Usable:
    face = Face((10, 10, 50, 50), np.zeros((478, 3), np.float32), yaw, pitch, 0.0, expression, 0.9)
    return Usable(Photo("x.jpg", b""), np.full((64, 64, 3), colour, np.uint8), face)


def advice(shots: Sequence[Usable], kind: Kind = "person", **counts: Any) -> dict[str, str]:
    return {reason.code: reason.verdict for reason in guide(shots, kind, **counts).advice}


FULL = [
    *(shot(yaw, expression=expression) for yaw in (-50, -25, 0, 25, 50) for expression in ("neutral", "smile")),
    shot(0, 20, colour=30),
    shot(0, -30, colour=220),
]


def test_a_full_set_needs_no_advice() -> None:
    assert advice(FULL) == {}
    coverage = guide(FULL, "person").coverage
    assert coverage["yaw"] == dict.fromkeys(coverage["yaw"], 2) | {"front": 4}
    assert coverage["pitch"] == {"up": 1, "level": 10, "down": 1}
    assert coverage["background"]["distinct"] == 3


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "refused"), (3, "refused"), (4, "warned"), (9, "warned"), (10, None)]
)
def test_counts_of_people(count: int, expected: str | None) -> None:
    found = advice(FULL[:count])
    assert found.get("too_few", found.get("few")) == expected
    assert (guide(FULL[:count], "person").verdict == "refused") == (expected == "refused")


def test_counts_of_things() -> None:
    thing = shot()._replace(face=None)
    assert advice([], "thing")["too_few"] == "refused"
    assert "few" in advice([thing] * 3, "thing") and not {"few", "too_few"} & set(advice([thing] * 4, "thing"))


def test_things_are_told_that_no_face_is_looked_for() -> None:
    thing = shot()._replace(face=None)
    (said,) = (reason for reason in guide([thing], "thing").advice if reason.code == "thing")
    assert said.verdict == "accepted" and said.message == "treated as an object: faces are not checked"
    assert "thing" not in advice([shot()])


@pytest.mark.parametrize(
    ("code", "shots"),
    [
        ("no_front", [shot(40)] * 4),
        ("no_left", [shot(0), shot(40)]),
        ("no_right", [shot(0), shot(-40)]),
        ("no_profile_left", [shot(-25)]),
        ("no_profile_right", [shot(25)]),
        ("one_pitch", [shot()]),
        ("one_expression", [shot()]),
        ("one_background", [shot()] * 3),
        ("one_light", [shot()] * 3),
    ],
)
def test_gaps_are_named(code: str, shots: list[Usable]) -> None:
    assert advice(shots)[code] == "warned"


@pytest.mark.parametrize(("strangers", "code"), [(1, "other_person"), (3, "other_person"), (4, "different_people")])
def test_a_third_of_strangers_is_a_set_of_different_people(strangers: int, code: str) -> None:
    usable = FULL[strangers:]
    found = advice(usable, strangers=strangers, persons=len(FULL))
    assert found == {code: "refused" if code == "different_people" else "warned"} | found
    kept = advice(FULL, strangers=strangers, persons=len(FULL), keep_strangers=True)
    assert kept == {code: "warned"}


@pytest.mark.parametrize(("grey", "is_named"), [(0, False), (3, False), (4, True), (12, True)])
def test_a_grey_set_is_named(grey: int, is_named: bool) -> None:
    assert (advice(FULL, grey=grey) == {"grey": "warned"}) == is_named


def test_distinct_colours() -> None:
    grey, red = np.array([50.0, 0.0, 0.0]), np.array([0.0, 30.0, 0.0])
    assert distinct_colours([]) == 0
    assert distinct_colours([grey, grey + 2.0, grey + red, grey + red + 1.0]) == 2
