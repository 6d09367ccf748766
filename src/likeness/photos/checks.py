"""Checks photographs: each reason has a name, a verdict and a hint.

Each photograph is decoded and its faces are detected. The faces of all photographs together then identify
the subject, and the subject's face is checked on each. `guide` checks the set as a whole.

The limits were set on 11 photographs of one man and 32 renders of virtual people; the measured ranges are beside them.
"""

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import InputRefused
from ..types import MAX_PHOTOS, Advance, Kind, Photo, Verdict, Watch, unwatched
from . import quality
from .archive import is_archive
from .covered import covered_parts, eye_brightness, eye_light
from .decode import FORMATS, decode, is_video, looks_like_image
from .descriptor import descriptor
from .face import Face, FaceDetector, MediaPipeFaces, upright
from .guide import CONSENT_HINT, FACE, KEEP_HINT, guide
from .identity import choose
from .report import CheckResult, PhotoReport, Reason, Usable
from .same_shot import Chip, chip, is_same_shot

SIDE_REFUSED_PX, SIDE_WARNED_PX = 96, 256
FACE_REFUSED_PX, FACE_WARNED_PX = 32, 100  # 32: enough for the built-in base, whose frames are 128 px
# Sharp photographs 0.39 to 0.48, renders 0.49 to 0.69; photographs' faces of 290 px blurred by a Gaussian of 3 px 0.70
# to 0.78, of 5 px 0.81 to 0.85, of 7 px 0.86 to 0.88, of 10 to 40 px 0.88 to 0.97.
BLUR_WARNED, BLUR_REFUSED = 0.71, 0.85
DARK_WARNED, DARK_REFUSED = 80.0, 40.0  # luma of the brightest skin or the white of the eyes; well-lit faces 90 and up
BLOWN_WARNED, BLOWN_REFUSED = 0.15, 0.4  # share of overexposed pixels; at most 0.04 in photographs and renders
EYES_COVERED = 0.35  # sunglasses 0.10 to 0.16; bare eyes, glasses and fringes 0.48 and up
CUT_WARNED, CUT_REFUSED = 0.03, 0.25  # share of the face's box outside the image
TILT_WARNED_DEG = 30.0  # roll of the head; beyond `face.LYING_DEG` the photograph is rotated
GREY_FACE, GREY_THING = 6.0, 1.0  # colourfulness; coloured faces 17 and up, grey, sepia and duotone ones up to 5
FACES_OF_THING = 0.5  # least share of the pictures with a face that make them pictures of a person
_FORMATS_HINT = f"send {FORMATS}"
_MOST_FACES = 8  # per photograph; further faces are small and far from the centre


@dataclass(frozen=True, eq=False)
class Look:
    """What the checks found at one face, if it is the subject's."""

    reasons: tuple[Reason, ...]
    chip: Chip
    same_shot: dict["Look", bool] = field(default_factory=dict)  # as an earlier one; filled by `_same_shot`


@dataclass(frozen=True, eq=False)
class Examined:
    """A photograph with all measurements."""

    photo: Photo
    reasons: tuple[Reason, ...]
    image: NDArray[np.uint8] | None = None  # (H, W, 3); None when it could not be decoded
    faces: tuple[Face, ...] = ()  # the most important one first
    identities: tuple[NDArray[np.float64], ...] = ()  # (128,) of each face that is large enough for recognition
    looks: dict[int, Look] = field(default_factory=dict)  # by index of the face; filled by `_judged`
    face: Face | None = None  # the subject's
    look: Look | None = None  # at that face
    prints: tuple[quality.Print, ...] = ()  # of a thing or a style: the image and its mirror image

    @property
    def report(self) -> PhotoReport:
        return PhotoReport(self.photo.name, self.reasons)


def check(
    photos: Sequence[Photo], kind: Kind, *,
    detector: FaceDetector | None = None, watch: Watch = unwatched, keep_strangers: bool = False,
    has_consent: bool = True, examined_before: MutableMapping[tuple[str, Kind, bool], "Examined"] | None = None,
) -> CheckResult:  # fmt: skip
    """Check photographs one by one and as a set; each is decoded once.

    Args:
        photos: in the order of upload; of two identical files the first is kept.
        kind: of the subject. The faces of a person are checked; of pictures of a style, their size and whether they
            repeat each other.
        detector: finds faces; `MediaPipeFaces` by default.
        keep_strangers: use photographs that probably show another person too.
        has_consent: False: a picture of a style is refused if it shows a face (`storage.consent`), and of a thing, if
            half of the pictures do: a few passers-by are not its subject, and a dog may be taken for one.
        examined_before: measurements of single photographs, by hash, kind and whether faces were sought, which are not
            made again; new ones are added.

    Raises:
        InputRefused: more than `MAX_PHOTOS`.
        MissingPart: a face is needed, and LiteRT, dlib or a model is not installed.
    """
    refuse_too_many(photos)  # all decoded images are in memory at once
    finder = (detector or MediaPipeFaces()) if kind == "person" or not has_consent else None
    examined: list[Examined] = []
    watch(Advance("check", 0, len(photos)))
    for photo in photos:
        examined.append(_examined(photo, kind, finder, before={} if examined_before is None else examined_before))
        watch(Advance("check", len(examined), len(photos)))
    examined = [_without_repeats(one, examined[:place]) for place, one in enumerate(examined)]
    if kind == "thing":
        shown = [one for one in examined if _has(one, FACE) or one.report.verdict != "refused"]  # only these count
        if sum(_has(one, FACE) for one in shown) < FACES_OF_THING * len(shown):
            examined = [_without(one, FACE) for one in examined]
    # A repeated file counts once when the subject is determined.
    choice = choose([one.identities if one.report.verdict != "refused" else () for one in examined])
    verdict = _verdict(not keep_strangers)
    judged: list[Examined] = []
    for place, one in enumerate(examined):
        if one.faces and one.image is not None:
            one = _judged(one, choice.faces[place], is_known=choice.agreeing > 1)
        if place in choice.strangers:
            one = _with(one, _other_person(choice.agreeing, verdict))
        judged.append(_against_earlier(one, judged))
    usable = {place: one for place, one in enumerate(judged) if one.report.verdict != "refused"}
    kept = {
        place: Usable(one.photo, one.image, one.face, one.identities[choice.faces[place]] if one.identities else None)
        for place, one in usable.items()
        if one.image is not None
    }
    fresh = [kept[place] for place, one in usable.items() if not _has(one, "near_duplicate")]
    set_report = guide(
        fresh, kind, repeats=len(kept) - len(fresh), strangers=len(choice.strangers), persons=len(choice.known),
        grey=sum(_has(one, "grey") for one in usable.values()), keep_strangers=keep_strangers,
        without_consent=sum(_has(one, FACE) for one in judged),
    )  # fmt: skip
    return CheckResult(tuple(one.report for one in judged), set_report, tuple(kept.values()))


def refuse_too_many(photos: Sequence[Photo]) -> None:
    """Raises InputRefused: more than `MAX_PHOTOS`; files that are no images do not count."""
    count = sum(looks_like_image(photo.content) for photo in photos)
    if count > MAX_PHOTOS:
        raise InputRefused(
            f"expected at most {MAX_PHOTOS} photographs, got {count}",
            hint="choose 10 to 20 good ones",
            code="PhotosRefused",
        )


def refusal_of_file(photo: Photo) -> Reason | None:
    """Why a file cannot be used, by its first bytes; None if it has to be decoded."""
    if photo.unread == "too_large":
        return Reason("too_large", "the file is larger than the limit", "send the photograph as a JPEG", "refused")
    if photo.unread == "compression":
        message = "compressed in the archive with an unusual method"
        return Reason("compression", message, "pack it again as a plain zip (stored or deflated)", "refused")
    if photo.unread == "damaged":
        return Reason("damaged", "damaged in the archive", "pack it again", "refused")
    if photo.unread == "not_readable":
        return Reason("not_readable", "the file cannot be opened", "check its permissions", "refused")
    if not photo.content:
        return _empty()
    return None if looks_like_image(photo.content) else _not_an_image(photo.content)


def _examined(
    photo: Photo, kind: Kind, finder: FaceDetector | None, *,
    before: MutableMapping[tuple[str, Kind, bool], Examined],
) -> Examined:  # fmt: skip
    """Measure a photograph, unless that was done before. The hash of an unread file does not identify it."""
    key = photo.sha256, kind, finder is not None
    if photo.unread is None and (known := before.get(key)) is not None:
        return replace(known, photo=photo)
    found = _examine(photo, kind, finder)
    if photo.unread is None:
        before[key] = found
    return found


def _examine(photo: Photo, kind: Kind, finder: FaceDetector | None) -> Examined:
    if (unusable := refusal_of_file(photo)) is not None:
        return Examined(photo, (unusable,))
    try:
        image = decode(photo.content)
    except InputRefused as error:
        return Examined(photo, (Reason("unreadable", error.message, error.hint, "refused"),))
    size = _size_reasons(image.shape)
    if min(image.shape[:2]) < SIDE_REFUSED_PX:  # too small for any measurement
        return Examined(photo, size, image)
    if kind != "person":
        luma = quality.grey(image)
        reasons = (*size, *(_consent_reasons(image, finder) if finder is not None else ()))
        if kind == "thing":  # of a style, darkness, softness and missing colour may be part
            reasons = (*reasons, *_light_reasons(luma), *_blur_reasons(luma), *_grey_reasons(image, GREY_THING))
        prints = tuple(quality.fingerprint(turned) for turned in (luma, np.ascontiguousarray(luma[:, ::-1])))
        return Examined(photo, reasons, image, prints=prints)
    assert finder is not None
    image, faces, turns = upright(image, finder)
    if not faces:
        dark = _light_reasons(quality.grey(image))  # often the cause
        return Examined(photo, (*size, _no_face(), *dark), image)
    faces = faces[:_MOST_FACES]
    # The descriptor of a tiny face is nearly noise; it is used only if there is no larger face.
    known = [face for face in faces if face.size_px >= FACE_REFUSED_PX] or faces[:1]
    others = [face for face in faces if face not in known]
    reasons = (*size, *((_turned(turns),) if turns else ()))
    identities = tuple(descriptor(image, face) for face in known)
    return Examined(photo, reasons, image, (*known, *others), identities)


def _judged(one: Examined, place: int, *, is_known: bool) -> Examined:
    """The photograph with its reasons, once the subject's face on it is known.

    A face is looked at once: the next upload judges the whole set again.
    """
    assert one.image is not None
    face = one.faces[place]
    if place not in one.looks:
        luma = quality.grey(one.image)
        one.looks[place] = Look(_face_reasons(one.image, luma, face), chip(luma, face.landmarks))
    look = one.looks[place]
    several = (_several_people(len(one.faces), is_known=is_known),) if len(one.faces) > 1 else ()
    return replace(one, reasons=(*one.reasons, *several, *look.reasons), face=face, look=look)


def _face_reasons(image: NDArray[np.uint8], luma: quality.Grey, face: Face) -> tuple[Reason, ...]:
    height, width = luma.shape
    left, top, right, bottom = face.box_px
    reasons: list[Reason] = []
    if face.size_px < FACE_WARNED_PX:
        verdict = _verdict(face.size_px < FACE_REFUSED_PX)
        message = f"expected a face of at least {FACE_WARNED_PX} px, got {face.size_px} px"
        reasons.append(Reason("face_too_small", message, "come closer, or send the photograph at full size", verdict))
    if abs(face.roll_deg) > TILT_WARNED_DEG:
        message = f"the head leans by {abs(face.roll_deg):.0f} degrees"
        reasons.append(Reason("tilted", message, "turn the photograph until the eyes are level"))
    inside = (min(right, width) - max(left, 0)) * (min(bottom, height) - max(top, 0))
    cut = 1.0 - max(inside, 0) / max((right - left) * (bottom - top), 1)
    if cut > CUT_WARNED:
        message = f"{cut:.0%} of the face are outside the photograph"
        reasons.append(Reason("face_cut_by_edge", message, "leave room around the head", _verdict(cut > CUT_REFUSED)))
    window = luma[max(top, 0) : bottom, max(left, 0) : right]
    if window.size:
        reasons += [*_light_reasons(window, eye_light(luma, face.landmarks)), *_blur_reasons(window)]
    around = face.size_px // 2
    reasons += _grey_reasons(
        image[max(top - around, 0) : bottom + around, max(left - around, 0) : right + around], GREY_FACE
    )
    return (*reasons, *_cover_reasons(image, luma, face))


def _cover_reasons(image: NDArray[np.uint8], luma: quality.Grey, face: Face) -> tuple[Reason, ...]:
    parts = covered_parts(image, face.landmarks, face.yaw_deg)
    brightness = eye_brightness(luma, face.landmarks)
    reasons = []
    if brightness < EYES_COVERED:
        message = f"the skin around the eyes is {brightness:.2f} times as bright as the cheeks"
        reasons.append(Reason("eyes_covered", message, "take off sunglasses; clear glasses are welcome"))
    elif "eyes" in parts:
        message = "the eyes are covered: the area around them does not have the colour of skin"
        reasons.append(Reason("eyes_covered", message, "take off sunglasses; clear glasses are welcome"))
    if others := [part for part in parts if part != "eyes"]:
        message = f"something covers a part of the face: {', '.join(others)}"
        reasons.append(
            Reason("face_covered", message, "show the whole face, without a mask, a hand or an object in front of it")
        )
    return tuple(reasons)


def _grey_reasons(image: NDArray[np.uint8], least: float) -> tuple[Reason, ...]:
    if image.size == 0 or quality.colourfulness(image) >= least:
        return ()
    return (Reason("grey", "the photograph is grey or in a single tone", "send a colour photograph"),)


def _size_reasons(shape: tuple[int, ...]) -> tuple[Reason, ...]:
    side = min(shape[:2])
    if side >= SIDE_WARNED_PX:
        return ()
    message = f"expected at least {SIDE_WARNED_PX} px on the shorter side, got {side} px"
    return (Reason("too_small", message, "send the original file, not a preview", _verdict(side < SIDE_REFUSED_PX)),)


def _light_reasons(luma: quality.Grey, lightest: float = 0.0) -> tuple[Reason, ...]:
    """Reasons of too little or too much light.

    Args:
        lightest: the luma of an area that is bright in good light on any photograph.
    """
    bright, blown = max(quality.brightest(luma), lightest), quality.blown_share(luma)
    if bright < DARK_WARNED:
        message = f"too dark: the brightest areas have a luma of only {bright:.0f} of 255"
        return (Reason("too_dark", message, "turn to a window or a lamp", _verdict(bright < DARK_REFUSED)),)
    if blown > BLOWN_WARNED:
        message = f"{blown:.0%} of the picture is overexposed"
        return (Reason("too_bright", message, "avoid flash and direct sun", _verdict(blown > BLOWN_REFUSED)),)
    return ()


def _blur_reasons(luma: quality.Grey) -> tuple[Reason, ...]:
    blur = quality.blur_effect(luma)
    if blur <= BLUR_WARNED:
        return ()
    message = f"blur effect of {blur:.2f}, expected at most {BLUR_WARNED}"
    return (Reason("blurred", message, "hold the camera still, in good light", _verdict(blur > BLUR_REFUSED)),)


def _without_repeats(one: Examined, earlier: Sequence[Examined]) -> Examined:
    """Marks repeated files; the first one is kept."""
    is_whole = bool(one.photo.content) and one.photo.unread is None
    for number, other in enumerate(earlier, start=1):
        if is_whole and other.photo.sha256 == one.photo.sha256:
            message = f"the same file as photograph {number}"
            return _with(one, Reason("exact_duplicate", message, "send each photograph once", "refused"))
    return one


def _against_earlier(one: Examined, earlier: Sequence[Examined]) -> Examined:
    """Marks photographs of the same moment, except the first one."""
    if one.report.verdict == "refused":
        return one
    for number, other in enumerate(earlier, start=1):
        if other.report.verdict != "refused" and _nearly_same(one, other):
            message = f"looks almost the same as photograph {number}"
            return _with(one, Reason("near_duplicate", message, "change pose, place or light between photographs"))
    return one


def _nearly_same(one: Examined, other: Examined) -> bool:
    if one.look is not None and other.look is not None:
        return _same_shot(one.look, other.look)
    if one.prints and other.prints:
        return any(quality.is_near(one.prints[0], turned) for turned in other.prints)
    return False


def _same_shot(one: Look, earlier: Look) -> bool:
    if earlier not in one.same_shot:
        one.same_shot[earlier] = is_same_shot(one.chip, earlier.chip)
    return one.same_shot[earlier]


def _verdict(is_bad: bool) -> Verdict:
    return "refused" if is_bad else "warned"


def _with(one: Examined, reason: Reason) -> Examined:
    return replace(one, reasons=(*one.reasons, reason))


def _has(one: Examined, code: str) -> bool:
    return any(reason.code == code for reason in one.reasons)


def _not_an_image(content: bytes) -> Reason:
    kinds = {"a video": is_video, "an archive": is_archive, "a PDF": lambda head: head.startswith(b"%PDF")}
    kind = next((kind for kind, matches in kinds.items() if matches(content[:512])), "a file that is no image")
    hint = "to use an archive, name it on its own" if kind == "an archive" else _FORMATS_HINT
    return Reason("not_an_image", f"expected a photograph, got {kind}", hint, "refused")


def _empty() -> Reason:
    message = "skipped: empty, or not a regular file (a pipe, a device, a dangling link)"
    return Reason("empty", message, _FORMATS_HINT, "refused")


def _without(one: Examined, code: str) -> Examined:
    return replace(one, reasons=tuple(reason for reason in one.reasons if reason.code != code))


def _consent_reasons(image: NDArray[np.uint8], finder: FaceDetector) -> tuple[Reason, ...]:
    _, faces, _ = upright(image, finder)
    if not faces:
        return ()
    return (Reason(FACE, "shows a face, and there is no consent", CONSENT_HINT, "refused"),)


def _no_face() -> Reason:
    return Reason("no_face", "no face was found", "show the face from the front or the side, uncovered", "refused")


def _turned(turns: int) -> Reason:
    message = f"the face is not upright; the photograph was turned by {90 * turns} degrees clockwise"
    return Reason("turned", message, "if this is wrong, turn the photograph before you send it")


def _several_people(count: int, *, is_known: bool) -> Reason:
    which = "who is in most photographs" if is_known else "with the largest, most central face"
    return Reason(
        "several_people", f"{count} people; the one {which} was chosen", "crop the photograph to this one person"
    )


def _other_person(agreeing: int, verdict: Verdict) -> Reason:
    message = f"probably not the person who is in {agreeing} of the photographs"
    return Reason("other_person", message, f"leave it out; {KEEP_HINT}", verdict)
