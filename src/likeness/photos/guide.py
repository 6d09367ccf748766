"""Checks a set of photographs: whether it is large enough and shows the subject from all sides.

Works on counts and names only; `checks` handles single photographs. Advice does not raise: the caller raises
`InputRefused` if the set's verdict is 'refused'.

Sources: the reference solution asks for 10 photos or more, with both profiles and several expressions; DreamBooth
(Ruiz et al., 2023) trains objects on 3 to 5.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from ..types import Kind
from .face import Face
from .pose import Expression, pitch_name, yaw_name
from .report import Reason, SetReport, Usable

PERSON_LEAST, PERSON_WANTED = 4, 10
THING_LEAST, THING_WANTED = 1, 4
STYLE_LEAST, STYLE_WANTED = 4, 12
MOST_STRANGERS = 1 / 3  # of the photographs with a known face
KEEP_HINT = "if you are sure that it is the same person, use --keep-strangers, or keep_strangers in the request"
FACE = "face"  # a picture of a thing or a style shows a face, and there is no consent
CONSENT_HINT = "state in `consent` who agreed, or why no consent is needed; or send pictures without faces"
GREY_SHARE = 1 / 4  # a few grey photographs in a set do no harm

YAWS = ("profile_left", "three_quarter_left", "front", "three_quarter_right", "profile_right")
PITCHES = ("up", "level", "down")
EXPRESSIONS: tuple[Expression, ...] = get_args(Expression)
_COUNTS: Mapping[Kind, tuple[int, int]] = {
    "person": (PERSON_LEAST, PERSON_WANTED), "thing": (THING_LEAST, THING_WANTED), "style": (STYLE_LEAST, STYLE_WANTED),
}  # fmt: skip
_GAIN: Mapping[Kind, str] = {"person": "likeness", "thing": "likeness", "style": "style"}
_SAME_COLOUR = 12.0  # CIE Lab; about five just noticeable differences, so one wall in changing light counts as one


def guide(
    usable: Sequence[Usable], kind: Kind, *,
    repeats: int = 0, strangers: int = 0, persons: int = 0, grey: int = 0, keep_strangers: bool = False,
    without_consent: int = 0,
) -> SetReport:  # fmt: skip
    """Coverage and advice for the usable photographs.

    Args:
        usable: without repeats of the same shot, which add no coverage.
        repeats: number of repeats; they are usable too.
        strangers: number of photographs that probably show another person.
        persons: number of photographs with a recognised face, strangers included.
        grey: number of usable photographs without colour.
        keep_strangers: whether photographs of another person are used all the same.
        without_consent: number of pictures of a thing or a style with a face, without consent.
    """
    if kind == "style":
        return _style_guide(len(usable), repeats, without_consent)
    is_person = kind == "person"
    faces = [one.face for one in usable if one.face is not None]
    places = distinct_colours([_background(one) for one in usable])
    lights = distinct_colours([_lighting(one) for one in usable])
    coverage: dict[str, dict[str, int]] = {"background": {"distinct": places}, "light": {"distinct": lights}}
    advice = [_stranger_advice(strangers, persons, keep_strangers)] if strangers else []
    advice += _consent_advice(without_consent, len(usable), kind) + _count_advice(len(usable), repeats, kind)
    if is_person:
        coverage = {
            "yaw": _count(YAWS, faces, lambda face: yaw_name(face.yaw_deg)),
            "pitch": _count(PITCHES, faces, lambda face: pitch_name(face.pitch_deg)),
            "expression": _count(EXPRESSIONS, faces, lambda face: face.expression),
            **coverage,
            "outfit": {"distinct": distinct_colours([seen for one in usable if (seen := _outfit(one)) is not None])},
        }
        advice += _coverage_advice(coverage) if faces else []
    count = len(usable) + repeats
    if grey > GREY_SHARE * count:
        message = f"{grey} of {count} photographs are without colour"
        hint = "send photographs in colour: grey in all of them is learned as part of the subject"
        advice.append(Reason("grey", message, hint))
    if len(usable) > 2 and places < 2:
        advice.append(
            Reason(
                "one_background", "all photographs have the same background", "take some photographs in other places"
            )
        )
    if len(usable) > 2 and lights < 2:
        advice.append(
            Reason(
                "one_light",
                "all photographs have the same light",
                "take some photographs in daylight, some in lamplight",
            )
        )
    if not is_person:
        hint = "if the subject is a person, use a class noun such as person, man, woman or child"
        advice.append(Reason("thing", "treated as an object: faces are not checked", hint, "accepted"))
    return SetReport(count, coverage, tuple(advice))


def distinct_colours(colours: Sequence[NDArray[np.floating]]) -> int:
    """Number of distinct Lab colours (3,): a colour counts if it is far from all counted before."""
    counted: list[NDArray[np.floating]] = []
    for colour in colours:
        if all(np.linalg.norm(colour - other) > _SAME_COLOUR for other in counted):
            counted.append(colour)
    return len(counted)


def _count(names: Sequence[str], faces: Sequence[Face], name_of: Callable[[Face], str]) -> dict[str, int]:
    found = Counter(name_of(face) for face in faces)
    return {name: found[name] for name in names}


def _style_guide(count: int, repeats: int, without_consent: int) -> SetReport:
    advice = _consent_advice(without_consent, count, "style") + _count_advice(count, repeats, "style")
    advice.append(
        Reason("style", "treated as a style: faces, light and sharpness are not checked",
               "send pictures that have only their style in common", "accepted")
    )  # fmt: skip
    return SetReport(count + repeats, {}, tuple(advice))


def _consent_advice(without_consent: int, count: int, kind: Kind) -> list[Reason]:
    if not without_consent:
        return []
    message = f"{without_consent} pictures show a face and there is no consent; they are left out"
    return [Reason(FACE, message, CONSENT_HINT, "refused" if count < _COUNTS[kind][0] else "warned")]


def _count_advice(count: int, repeats: int, kind: Kind) -> list[Reason]:
    least, wanted = _COUNTS[kind]
    got = f"{count} and {repeats} that repeat them" if repeats else f"{count}"
    if count < least:
        message = f"expected at least {least} usable photographs, got {got}"
        return [Reason("too_few", message, f"send {wanted} or more", "refused")]
    if count < wanted:
        message = f"expected {wanted} usable photographs or more, got {got}"
        return [Reason("few", message, f"send {wanted - count} more for a better {_GAIN[kind]}")]
    return []


def _stranger_advice(strangers: int, persons: int, keep_strangers: bool) -> Reason:
    """Reasons about other people in the set: with too many, the subject cannot be determined."""
    message = f"{strangers} of {persons} photographs probably show another person"
    if strangers < MOST_STRANGERS * persons:
        how = "they are used because of keep_strangers" if keep_strangers else "they are left out"
        return Reason("other_person", f"{message}; {how}", "remove them, unless you are sure")
    hint = f"send one person's photographs; {KEEP_HINT}"
    return Reason("different_people", message, hint, "warned" if keep_strangers else "refused")


def _coverage_advice(coverage: dict[str, dict[str, int]]) -> list[Reason]:
    yaw, pitch, expression = coverage["yaw"], coverage["pitch"], coverage["expression"]
    advice = []
    if not yaw["front"]:
        advice.append(
            Reason("no_front", "no photograph shows the face from the front", "add some with a view into the camera")
        )
    for side in ("left", "right"):
        if not yaw[f"three_quarter_{side}"] and not yaw[f"profile_{side}"]:
            message = f"no photograph shows the head turned to the image's {side}"
            advice.append(Reason(f"no_{side}", message, "add a three-quarter view and a profile from that side"))
        elif not yaw[f"profile_{side}"]:
            message = f"no profile to the image's {side}"
            advice.append(Reason(f"no_profile_{side}", message, "add a profile from that side"))
    if not pitch["up"] and not pitch["down"]:
        advice.append(
            Reason("one_pitch", "the head is level in all photographs", "add one looking up and one looking down")
        )
    if sum(count > 0 for count in expression.values()) < 2:
        advice.append(
            Reason("one_expression", "all photographs have the same expression", "smile in some, be serious in others")
        )
    return advice


def _background(one: Usable) -> NDArray[np.floating]:
    """Mean colour of the upper corners, which are usually background."""
    height, width = one.image.shape[:2]
    corner_h, corner_w = max(height // 4, 1), max(width // 8, 1)
    corners = np.concatenate([one.image[:corner_h, :corner_w], one.image[:corner_h, -corner_w:]], axis=1)
    return _mean_lab(corners)


def _lighting(one: Usable) -> NDArray[np.floating]:
    """Mean colour of the face, or of the whole image; for one subject it changes only with the light."""
    if one.face is None:
        return _mean_lab(one.image)
    left, top, right, bottom = one.face.box_px
    window = one.image[max(top, 0) : bottom, max(left, 0) : right]
    return _mean_lab(window if window.size else one.image)


def _outfit(one: Usable) -> NDArray[np.floating] | None:
    """Mean colour below the chin, where clothes are; None if the image ends there."""
    if one.face is None:
        return None
    left, _, right, bottom = one.face.box_px
    size = one.face.size_px
    window = one.image[max(bottom + size // 3, 0) : bottom + size, max(left, 0) : right]
    return _mean_lab(window) if window.shape[0] >= size // 5 and window.size else None


def _mean_lab(pixels: NDArray[np.uint8]) -> NDArray[np.floating]:
    # Sums of whole numbers are exact, and OpenCV's take a fraction of the time of numpy's over an axis.
    mean = (np.array(cv2.sumElems(pixels)[:3]) / pixels[..., 0].size).astype(np.float32) / 255
    return np.asarray(cv2.cvtColor(mean.reshape(1, 1, 3), cv2.COLOR_RGB2LAB), dtype=np.float64).reshape(3)
