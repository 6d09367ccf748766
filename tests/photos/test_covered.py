"""Faces with something before them: the part is named; bare faces, beards, glasses and coloured light are not."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from likeness.photos import MediaPipeFaces, check, decode
from likeness.photos.covered import covered_parts
from likeness.types import Photo

Image = NDArray[np.uint8]
Cover = Callable[[Image, NDArray[np.floating]], Image]

_JAW = (
    127,
    147,
    187,
    50,
    195,
    280,
    411,
    376,
    356,
    288,
    397,
    365,
    379,
    378,
    400,
    377,
    152,
    148,
    176,
    149,
    150,
    136,
    172,
    58,
)
_LOWER_JAW = (58, 207, 165, 92, 322, 391, 427, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172)


def painted(
    image: Image, inside: NDArray[np.uint8], colour: Image | tuple[int, int, int], opacity: float = 1.0
) -> Image:
    """The image with a colour laid on where `inside` is 255, its edge soft."""
    share = cv2.GaussianBlur(inside, (0, 0), 1.2)[..., None] / 255 * opacity
    return np.rint(image * (1 - share) + np.asarray(colour) * share).astype(np.uint8)


def polygon(image: Image, points: NDArray[np.floating]) -> NDArray[np.uint8]:
    inside = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(inside, [np.rint(points).astype(np.int32)], (255,))
    return inside


def mask(colour: tuple[int, int, int], ring: tuple[int, ...] = _JAW) -> Cover:
    """A cloth with folds and the light of the face."""

    def cover(image: Image, landmarks: NDArray[np.floating]) -> Image:
        light = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 12)[..., None] / 160
        folds = 1 + 0.06 * np.sin(np.arange(image.shape[0])[:, None, None] / 4)
        cloth = np.clip(np.array(colour) * (0.5 + 0.5 * light) * folds, 0, 255).astype(np.uint8)
        return painted(image, polygon(image, landmarks[list(ring), :2]), cloth)

    return cover


def lenses(colour: tuple[int, int, int] | None, opacity: float = 1.0) -> Cover:
    """Glasses of one colour, or mirrors of some sky."""

    def cover(image: Image, landmarks: NDArray[np.floating]) -> Image:
        rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
        grey = 128 + 80 * np.sin(columns / 37) * np.cos(rows / 29)
        sky = np.stack([grey * 0.85, grey * 0.95, (grey * 1.15).clip(0, 255)], axis=-1).astype(np.uint8)
        inside = np.zeros(image.shape[:2], np.uint8)
        for outer, inner in ((226, 243), (463, 446)):
            middle, width = (
                landmarks[[outer, inner], :2].mean(axis=0),
                np.hypot(*np.ptp(landmarks[[outer, inner], :2], 0)),
            )
            axes = (int(width * 0.62), int(width * 0.5))
            cv2.ellipse(inside, (int(middle[0]), int(middle[1])), axes, 0, 0, 360, (255,), -1)
        return painted(image, inside, sky if colour is None else colour, opacity)

    return cover


def bar(colour: tuple[int, int, int], is_left: bool) -> Cover:
    """Everything on one side of the nose's bridge."""

    def cover(image: Image, landmarks: NDArray[np.floating]) -> Image:
        hidden = image.copy()
        nose = int(landmarks[6, 0])
        hidden[:, slice(nose) if is_left else slice(nose, None)] = colour
        return hidden

    return cover


COVERS: dict[str, tuple[Cover, str]] = {
    "blue mask": (mask((140, 185, 215)), "mouth"),
    "white mask": (mask((235, 235, 240)), "mouth"),
    "black mask": (mask((28, 28, 30)), "mouth"),
    "red mask": (mask((190, 30, 40)), "mouth"),
    "scarf": (mask((70, 80, 140), _LOWER_JAW), "mouth"),
    "red lenses": (lenses((200, 30, 30), 0.85), "eyes"),
    "green lenses": (lenses((40, 160, 80), 0.85), "eyes"),
    "blue lenses": (lenses((40, 90, 200), 0.8), "eyes"),
    "silver lenses": (lenses((190, 190, 195)), "eyes"),
    "mirrors": (lenses(None), "eyes"),
    "half behind black": (bar((0, 0, 0), True), "left half"),
    "half behind blue": (bar((60, 90, 160), False), "right half"),
    "half behind brown": (bar((40, 28, 22), True), "left half"),
}


@pytest.mark.parametrize("name", COVERS)
def test_what_is_covered_is_named(name: str, person: list[Photo], faces: MediaPipeFaces) -> None:
    """On faces that look into the camera; where nothing is found any more the photograph is refused anyway."""
    cover, part = COVERS[name]
    found = 0
    for photo in (person[0], person[8]):
        image = decode(photo.content)
        hidden = cover(image, faces.detect(image)[0].landmarks)
        for face in faces.detect(hidden):
            found += 1
            assert part in covered_parts(hidden, face.landmarks, face.yaw_deg)
    assert found or name == "half behind black"


LIGHTS: dict[str, Callable[[Image], Image]] = {
    "as it is": lambda image: image,
    "dark": lambda image: (image * 0.45).astype(np.uint8),
    "lamp light": lambda image: (image * [1.15, 1.0, 0.75]).clip(0, 255).astype(np.uint8),
    "shade": lambda image: (image * [0.88, 1.0, 1.1]).clip(0, 255).astype(np.uint8),
    "blurred": lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), 3), dtype=np.uint8),
    "grey": lambda image: np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.uint8),
}


@pytest.mark.parametrize("light", LIGHTS)
def test_bare_faces_in_any_light(light: str, person: list[Photo], faces: MediaPipeFaces) -> None:
    """Turned to all sides, with a beard or with glasses."""
    for photo in person:
        image = LIGHTS[light](decode(photo.content))
        face = faces.detect(image)[0]
        assert covered_parts(image, face.landmarks, face.yaw_deg) == (), photo.name


def test_skin_of_every_colour(virtual_people: Image, faces: MediaPipeFaces) -> None:
    """Fringes, clear glasses and dark skin; the third wears sunglasses."""
    for index, image in enumerate(virtual_people):
        face = faces.detect(image)[0]
        assert covered_parts(image, face.landmarks, face.yaw_deg) == (("eyes",) if index == 2 else ())


@pytest.mark.parametrize(
    ("name", "code"),
    [("blue mask", "face_covered"), ("half behind blue", "face_covered"), ("red lenses", "eyes_covered")],
)
def test_verdicts(name: str, code: str, portrait: Image, faces: MediaPipeFaces, as_photo: Callable[..., Photo]) -> None:
    hidden = COVERS[name][0](portrait, faces.detect(portrait)[0].landmarks)
    reasons = {reason.code: reason for reason in check([as_photo(hidden)], "person", detector=faces).reports[0].reasons}
    assert reasons[code].verdict == "warned" and reasons[code].hint
