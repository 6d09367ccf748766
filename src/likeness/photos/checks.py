"""Judges photographs one by one: each reason has a name, a verdict and a hint.

Limits were set on the 11 photographs of one man and 32 renders of virtual people that the measured ranges beside them
come from. The set as a whole is `guide`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import PhotosRefused, UnreadablePhoto
from ..progress import Advance, Watch, unwatched
from ..types import MAX_PHOTOS, Photo, Verdict
from . import quality
from .decode import decode, looks_like_image
from .descriptor import descriptor
from .face import Face, FaceDetector, MediaPipeFaces
from .guide import guide, outliers
from .report import CheckResult, PhotoReport, Reason, Usable

SIDE_REFUSED_PX, SIDE_WARNED_PX = 96, 256
FACE_REFUSED_PX, FACE_WARNED_PX = 32, 100  # 32: enough for the built-in base, whose frames are 128 px
# Sharp photographs 0.35 to 0.48, renders enlarged four times up to 0.68; faces of 290 px blurred by a Gaussian of 3 px
# 0.69 to 0.75, of 5 px 0.79 to 0.81, of 7 px 0.81 to 0.84.
BLUR_WARNED, BLUR_REFUSED = 0.70, 0.81
DARK_WARNED, DARK_REFUSED = 80.0, 40.0  # luma; well lit faces, dark skin at night included, stay above 90
BLOWN_WARNED, BLOWN_REFUSED = 0.15, 0.4  # share of burnt-out pixels; 0.04 at most in photographs and renders
EYES_COVERED = 0.35  # sunglasses 0.10 to 0.16; bare eyes, glasses and fringes 0.48 and up
CUT_WARNED, CUT_REFUSED = 0.03, 0.25  # share of the face's box outside of the image
# Of 64 bits; both must agree, for one man before one wall makes many photos alike. Copies that were re-encoded, scaled
# or cropped by 2 % a side differ by 0 to 6 bits and correlate by 0.93 to 1.0; different photos differ by 6 bits or more
# and correlate by 0.943 at most.
NEAR_BITS, NEAR_CORRELATION = 6, 0.955


@dataclass(frozen=True, eq=False)
class Examined:
    """A photograph with all that was measured on it."""

    photo: Photo
    reasons: tuple[Reason, ...]
    image: NDArray[np.uint8] | None = None  # (H, W, 3); None when it could not be decoded
    face: Face | None = None
    identity: NDArray[np.float64] | None = None  # (128,)
    bits: NDArray[np.bool_] | None = None  # (64,)
    thumbnail: NDArray[np.float32] | None = None  # (32, 32)

    @property
    def report(self) -> PhotoReport:
        return PhotoReport(self.photo.name, self.reasons)


def check(
    photos: Sequence[Photo], is_person: bool, *, detector: FaceDetector | None = None, watch: Watch = unwatched
) -> CheckResult:
    """Judge photographs one by one and together; decodes each once.

    Args:
        photos: in the order of upload; of two equal ones the first is kept.
        is_person: whether a face is looked for.
        detector: finds faces; mediapipe's by default.

    Raises:
        PhotosRefused: more than `MAX_PHOTOS`.
        MissingPart: a face is needed and mediapipe or dlib is not installed.
    """
    count = sum(looks_like_image(photo.content) for photo in photos)
    if count > MAX_PHOTOS:  # all of them are held decoded
        raise PhotosRefused(f"expected at most {MAX_PHOTOS} photographs, got {count}", hint="choose 10 to 20 good ones")
    finder = (detector or MediaPipeFaces()) if is_person else None
    examined: list[Examined] = []
    watch(Advance("check", 0, len(photos)))
    for photo in photos:
        examined.append(_against_earlier(_examine(photo, finder), examined))
        watch(Advance("check", len(examined), len(photos)))
    usable = [one for one in examined if one.report.verdict != "refused"]
    strangers = {id(usable[index]) for index in outliers([one.identity for one in usable])}
    examined = [_with(one, _other_person()) if id(one) in strangers else one for one in examined]
    kept = tuple(
        Usable(one.photo, one.image, one.face)
        for one in examined
        if one.image is not None and one.report.verdict != "refused"
    )
    set_report = guide(kept, is_person, strangers=len(strangers))
    return CheckResult(tuple(one.report for one in examined), set_report, kept)


def _examine(photo: Photo, finder: FaceDetector | None) -> Examined:
    if not photo.content:
        return Examined(photo, (_empty(),))
    if not looks_like_image(photo.content):
        return Examined(photo, (_not_an_image(),))
    try:
        image = decode(photo.content)
    except UnreadablePhoto as error:
        return Examined(photo, (Reason("unreadable", error.message, error.hint, "refused"),))
    size = _size_reasons(image.shape)
    if min(image.shape[:2]) < SIDE_REFUSED_PX:  # nothing that is measured on so little would be true
        return Examined(photo, size, image)
    luma = quality.grey(image)
    bits, thumbnail = quality.fingerprint(luma), quality.thumbnail(luma)
    if finder is None:
        reasons = (*size, *_light_reasons(luma), *_blur_reasons(luma))
        return Examined(photo, reasons, image, bits=bits, thumbnail=thumbnail)
    faces = finder.detect(image)
    if not faces:
        dark = _light_reasons(luma)  # often the cause
        return Examined(photo, (*size, _no_face(), *dark), image, bits=bits, thumbnail=thumbnail)
    reasons = (*size, *_face_reasons(luma, faces))
    return Examined(photo, reasons, image, faces[0], descriptor(image, faces[0]), bits, thumbnail)


def _face_reasons(luma: quality.Grey, faces: Sequence[Face]) -> tuple[Reason, ...]:
    face = faces[0]
    height, width = luma.shape
    left, top, right, bottom = face.box_px
    reasons: list[Reason] = []
    if len(faces) > 1:
        message = f"{len(faces)} people; the most important face was chosen"
        reasons.append(Reason("several_people", message, "crop the photo to the one person"))
    if face.size_px < FACE_WARNED_PX:
        verdict = _verdict(face.size_px < FACE_REFUSED_PX)
        message = f"expected a face of at least {FACE_WARNED_PX} px, got {face.size_px} px"
        reasons.append(Reason("face_too_small", message, "come closer or send the photo at full size", verdict))
    inside = (min(right, width) - max(left, 0)) * (min(bottom, height) - max(top, 0))
    cut = 1.0 - max(inside, 0) / max((right - left) * (bottom - top), 1)
    if cut > CUT_WARNED:
        message = f"{cut:.0%} of the face lie outside of the photo"
        reasons.append(Reason("face_cut_by_edge", message, "leave room around the head", _verdict(cut > CUT_REFUSED)))
    window = luma[max(top, 0) : bottom, max(left, 0) : right]
    if window.size:
        reasons += [*_light_reasons(window), *_blur_reasons(window)]
    eyes = quality.eye_brightness(luma, face.landmarks)
    if eyes < EYES_COVERED:
        message = f"the skin around the eyes is {eyes:.2f} times as bright as the cheeks"
        reasons.append(Reason("eyes_covered", message, "take off sunglasses; clear glasses are welcome"))
    return tuple(reasons)


def _size_reasons(shape: tuple[int, ...]) -> tuple[Reason, ...]:
    side = min(shape[:2])
    if side >= SIDE_WARNED_PX:
        return ()
    message = f"expected at least {SIDE_WARNED_PX} px on the shorter side, got {side} px"
    return (Reason("too_small", message, "send the original, not a preview", _verdict(side < SIDE_REFUSED_PX)),)


def _light_reasons(luma: quality.Grey) -> tuple[Reason, ...]:
    bright, blown = quality.brightest(luma), quality.blown_share(luma)
    if bright < DARK_WARNED:
        message = f"even the brightest places have a luma of only {bright:.0f} of 255"
        return (Reason("too_dark", message, "turn to a window or a lamp", _verdict(bright < DARK_REFUSED)),)
    if blown > BLOWN_WARNED:
        message = f"{blown:.0%} of the picture is burnt out"
        return (Reason("too_bright", message, "avoid flash and direct sun", _verdict(blown > BLOWN_REFUSED)),)
    return ()


def _blur_reasons(luma: quality.Grey) -> tuple[Reason, ...]:
    blur = quality.blur_effect(luma)
    if blur <= BLUR_WARNED:
        return ()
    message = f"blur effect of {blur:.2f}, expected at most {BLUR_WARNED}"
    return (Reason("blurred", message, "hold the camera still, in good light", _verdict(blur > BLUR_REFUSED)),)


def _against_earlier(one: Examined, earlier: Sequence[Examined]) -> Examined:
    """Compare with the photographs before this one; the first of equals is kept."""
    for number, other in enumerate(earlier, start=1):
        if one.photo.content and other.photo.sha256 == one.photo.sha256:
            message = f"the same file as photo {number}"
            return _with(one, Reason("exact_duplicate", message, "send each photo once", "refused"))
    for number, other in enumerate(earlier, start=1):
        if _nearly_same(one, other):
            message = f"looks almost the same as photo {number}"
            return _with(one, Reason("near_duplicate", message, "change pose, place or light between photos"))
    return one


def _nearly_same(one: Examined, other: Examined) -> bool:
    if one.bits is None or other.bits is None or one.thumbnail is None or other.thumbnail is None:
        return False
    bits = int(np.count_nonzero(one.bits != other.bits))
    return bits <= NEAR_BITS and float((one.thumbnail * other.thumbnail).sum()) >= NEAR_CORRELATION


def _verdict(is_bad: bool) -> Verdict:
    return "refused" if is_bad else "warned"


def _with(one: Examined, reason: Reason) -> Examined:
    return replace(one, reasons=(*one.reasons, reason))


def _not_an_image() -> Reason:
    hint = "send JPEG, PNG, WebP or HEIC"
    return Reason("not_an_image", "expected a photograph, got another kind of file", hint, "refused")


def _empty() -> Reason:
    message = "skipped: nothing in it, or no file at all (a pipe, a device, a link to nothing)"
    return Reason("empty", message, "send JPEG, PNG, WebP or HEIC", "refused")


def _no_face() -> Reason:
    return Reason("no_face", "no face was found", "show the face from the front or side, uncovered", "refused")


def _other_person() -> Reason:
    message = "probably another person than on most of the other photos"
    return Reason("other_person", message, "remove it, unless you are sure that it is the same person")
