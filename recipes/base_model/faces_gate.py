"""Are the faces of sampled photos well formed, measured against true renders of held-out people."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from likeness.photos import Face

from .exam import Exam, Pixels
from .face_shape import FAR, FaceShapes, eye_contrast, jitter
from .gates import Figures, Measured

MOST_FITTED = 300  # true renders that the shapes are fitted on; the others are measured
MOST_MEASURED = 300
MOST_JITTERED = 48  # each of these is looked at three times more

Seen = Sequence[tuple[Pixels, Face | None]]  # enlarged pictures and their faces


def measure_faces(exam: Exam) -> Figures:
    """Of the composed prompts' pictures, those that are asked to be photos. Without a face: broken."""
    prompts, pictures = exam.prompted
    photos = [picture for prompt, picture in zip(prompts, pictures, strict=True) if prompt.asked["style"] == "photo"]
    renders = photo_renders(exam)
    fitted = min(MOST_FITTED, len(renders) // 2)
    known = [face for _, face in map(exam.face, renders[:fitted]) if face is not None]
    shapes = FaceShapes.of(known)
    true = [exam.face(render) for render in renders[fitted:][:MOST_MEASURED]]
    return compared(exam, shapes, [exam.face(photo) for photo in photos[:MOST_MEASURED]], true)


def photo_renders(exam: Exam) -> list[Pixels]:
    """True renders of held-out people in the style 'photo', each (H, W, 3)."""
    images, told = exam.held_out
    return [
        np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        for image, row in zip(images, told, strict=True)
        if row["style"] == "photo"
    ]


def compared(exam: Exam, shapes: FaceShapes, sampled: Seen, true: Seen) -> Figures:
    """The figures of sampled pictures beside those of true renders."""
    found, true_found = with_face(sampled), with_face(true)
    if not found or not true_found:
        nothing = Measured(100.0, len(sampled), f"no face was found in these or in {len(true)} true renders")
        return {"broken faces": nothing}
    distances, of_renders = (np.array([shapes.distance(face) for _, face in many]) for many in (found, true_found))
    yaw, true_yaw = (float(np.mean([abs(face.yaw_deg) for _, face in many])) for many in (found, true_found))
    eyes, true_eyes = (
        float(np.mean([eye_contrast(picture, face) for picture, face in many])) for many in (found, true_found)
    )
    moved, true_moved = (_jitter(exam, many[:MOST_JITTERED]) for many in (found, true_found))
    count, noted = len(sampled), f"of {len(true)} true renders"
    return {
        "broken faces": Measured(
            100 * _broken(distances, len(sampled)), count,
            f"mean distance {distances.mean():.2f}; {noted}: {100 * _broken(of_renders, len(true)):.1f} %, "
            f"{of_renders.mean():.2f}; {exam.pace}",
        ),
        "yaw": Measured(abs(yaw - true_yaw), len(found), f"{yaw:.1f} degrees; {noted}: {true_yaw:.1f}"),
        "eye contrast": Measured(eyes / true_eyes, len(found), f"{eyes:.1f} grey levels; {noted}: {true_eyes:.1f}"),
        "jitter": Measured(moved, min(len(found), MOST_JITTERED), f"{noted}: {true_moved:.3f}"),
        "faces": Measured(
            100 * len(found) / len(sampled), count, f"in {len(true_found) / len(true):.1%} {noted}; {exam.pace}"
        ),
    }  # fmt: skip


def with_face(seen: Seen) -> list[tuple[Pixels, Face]]:
    return [(picture, face) for picture, face in seen if face is not None]


def _broken(distances: NDArray[np.float64], count: int) -> float:
    """Share of `count` pictures, of which as many as there are distances have a face."""
    return (count - int((distances <= FAR).sum())) / count


def _jitter(exam: Exam, faces: list[tuple[Pixels, Face]]) -> float:
    def find(picture: Pixels) -> Face | None:
        return next(iter(exam.faces.detect(picture)), None)

    each = np.array([jitter(picture, face, find) for picture, face in faces])
    return float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")
