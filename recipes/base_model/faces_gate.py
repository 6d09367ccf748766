"""Whether faces in sampled photos are well formed, compared with true renders of held-out people."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from likeness.photos import Face

from .exam import Exam, Pixels
from .face_shape import FAR, FaceShapes, eye_contrast, jitter
from .gates import Figures, Measured

MOST_FITTED = 300  # true renders used for fitting; the others are measured
MOST_MEASURED = 300
MOST_JITTERED = 48  # images that are also measured with three transformations


class Look(NamedTuple):
    """An image with its detected face."""

    picture: Pixels  # enlarged
    face: Face | None  # the detected face
    glasses: str | None  # of the judge's classes, as asked or rendered


def measure_faces(exam: Exam) -> Figures:
    """Photos of people like those of the renders. Without a face: broken.

    Glasses hide the eyes from the mesh: of true renders with glasses, three to nine times as many count as broken. So
    the prompts ask for them as often as the renders have them.
    """
    sampled = [(picture, prompt.asked["glasses"]) for prompt, picture in zip(*exam.photographed, strict=True)]
    told = [row["glasses"] for row in exam.held_out[1] if row["style"] == "photo"]
    renders = list(zip(photo_renders(exam), told, strict=True))
    fitted = min(MOST_FITTED, len(renders) // 2)
    known = [look.face for look in _looks(exam, renders[:fitted]) if look.face is not None]
    true = _looks(exam, renders[fitted:][:MOST_MEASURED])
    shapes = FaceShapes.of(known)
    figures = compared(exam, shapes, _looks(exam, sampled[:MOST_MEASURED]), true)
    if exam.is_fast:
        fast = [(picture, asked) for picture, (_, asked) in zip(exam.photographed_fast, sampled, strict=True)]
        found = compared(exam, shapes, _looks(exam, fast[:MOST_MEASURED]), true)
        for name in [name for name in ("broken faces", "yaw", "eye contrast") if name in found]:
            note = found[name].note.replace(exam.pace, exam.pace_of(f"fast, {name}"))
            figures[f"fast, {name}"] = replace(found[name], note=note)
    return figures


def _looks(exam: Exam, pictures: Sequence[tuple[Pixels, str | None]]) -> list[Look]:
    return [Look(*exam.face(picture), glasses) for picture, glasses in pictures]


def photo_renders(exam: Exam) -> list[Pixels]:
    """True renders of held-out people in the style 'photo', each (H, W, 3)."""
    images, told = exam.held_out
    return [
        np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        for image, row in zip(images, told, strict=True)
        if row["style"] == "photo"
    ]


def compared(exam: Exam, shapes: FaceShapes, sampled: Sequence[Look], true: Sequence[Look]) -> Figures:
    """Figures of sampled images and true renders; images with sunglasses have no eye contrast."""
    found, true_found = with_face(sampled), with_face(true)
    if not found or not true_found:
        nothing = Measured(100.0, len(sampled), f"no face was found in these or in {len(true)} true renders")
        return {"broken faces": nothing}
    distances, of_renders = _distances(shapes, sampled), _distances(shapes, true)
    yaw, true_yaw = (float(np.mean([abs(face.yaw_deg) for _, face in many])) for many in (found, true_found))
    contrasts, true_contrasts = (
        [eye_contrast(*one) for one in with_face([look for look in many if look.glasses != "sunglasses"])]
        for many in (sampled, true)
    )
    moved, true_moved = (_jitter(exam, many[:MOST_JITTERED]) for many in (found, true_found))
    count, noted = len(sampled), f"of {len(true)} true renders"
    figures = {
        "broken faces": Measured(
            100 * _broken(distances, len(sampled)), count,
            f"mean distance {distances.mean():.2f}; {noted}: {100 * _broken(of_renders, len(true)):.1f} %, "
            f"{of_renders.mean():.2f}; {exam.pace}",
        ),
        "yaw": Measured(abs(yaw - true_yaw), len(found), f"{yaw:.1f} degrees; {noted}: {true_yaw:.1f}"),
        "jitter": Measured(moved, min(len(found), MOST_JITTERED), f"{noted}: {true_moved:.3f}"),
        "faces": Measured(
            100 * len(found) / len(sampled), count, f"in {len(true_found) / len(true):.1%} {noted}; {exam.pace}"
        ),
    }  # fmt: skip
    wearers, true_wearers = ([look for look in many if look.glasses not in (None, "none")] for many in (sampled, true))
    if wearers and true_wearers:
        distances, of_renders = _distances(shapes, wearers), _distances(shapes, true_wearers)
        figures["broken faces, glasses"] = Measured(
            100 * _broken(distances, len(wearers)), len(wearers),
            f"of {len(true_wearers)} true renders with glasses: {100 * _broken(of_renders, len(true_wearers)):.1f} %",
        )  # fmt: skip
    if contrasts and true_contrasts:
        eyes, true_eyes = float(np.mean(contrasts)), float(np.mean(true_contrasts))
        note = f"{eyes:.1f} grey levels; {noted}, without sunglasses as these: {true_eyes:.1f}"
        figures["eye contrast"] = Measured(eyes / true_eyes, len(contrasts), note)
    return figures


def with_face(looks: Sequence[Look]) -> list[tuple[Pixels, Face]]:
    """Images with a detected face, and the face."""
    return [(look.picture, look.face) for look in looks if look.face is not None]


def _distances(shapes: FaceShapes, looks: Sequence[Look]) -> NDArray[np.float64]:
    """Of the images with a face."""
    return np.array([shapes.distance(face) for _, face in with_face(looks)])


def _broken(distances: NDArray[np.float64], count: int) -> float:
    """Share of `count` pictures, of which as many as there are distances have a face."""
    return (count - int((distances <= FAR).sum())) / count


def _jitter(exam: Exam, faces: list[tuple[Pixels, Face]]) -> float:
    def find(picture: Pixels) -> Face | None:
        return next(iter(exam.faces.detect(picture)), None)

    each = np.array([jitter(picture, face, find) for picture, face in faces])
    return float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")
