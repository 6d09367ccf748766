"""The plan of shots for a person: the shots of a good set, those that a set has already, and the one to take next.

Places, light and clothes count as much as poses: thirty frames of one head turn in one room do not give an adapter that
is similar to the person. The first missing shot in the list improves the likeness most.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from .face import Face
from .pose import pitch_name, yaw_name

# shot -> aspect and value of the coverage, and how many are wanted
_WANTED: Mapping[str, tuple[str, str, int]] = {
    "front": ("yaw", "front", 2),
    "three_quarter_left": ("yaw", "three_quarter_left", 1),
    "three_quarter_right": ("yaw", "three_quarter_right", 1),
    "smile": ("expression", "smile", 1),
    "places": ("background", "distinct", 3),
    "lights": ("light", "distinct", 2),
    "profile_left": ("yaw", "profile_left", 1),
    "profile_right": ("yaw", "profile_right", 1),
    "neutral": ("expression", "neutral", 2),
    "outfits": ("outfit", "distinct", 2),
    "up": ("pitch", "up", 1),
    "down": ("pitch", "down", 1),
    "open_mouth": ("expression", "open mouth", 1),
}


@dataclass(frozen=True)
class Shot:
    """One line of the plan."""

    shot: str  # a pose, an expression, or `places`, `lights`, `outfits`
    wanted: int
    have: int

    @property
    def is_filled(self) -> bool:
        return self.have >= self.wanted


def plan(coverage: Mapping[str, Mapping[str, int]]) -> list[Shot]:
    """The plan for a set's coverage (`SetReport.coverage`); empty for a subject that is no person."""
    if "yaw" not in coverage:
        return []
    return [Shot(shot, wanted, coverage[aspect].get(value, 0)) for shot, (aspect, value, wanted) in _WANTED.items()]


def next_shot(shots: list[Shot]) -> str | None:
    """What one more photograph would improve most; None if the plan is filled."""
    return next((one.shot for one in shots if not one.is_filled), None)


def shows(face: Face) -> list[str]:
    """The shots of the plan that a photograph with this face fills."""
    named = {yaw_name(face.yaw_deg), pitch_name(face.pitch_deg), face.expression}
    return [shot for shot, (_, value, _) in _WANTED.items() if value in named]
