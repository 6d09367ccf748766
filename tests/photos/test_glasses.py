"""Glasses are seen by their bridge, on a drawn frame and on real ones; a frown is none."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from likeness.photos import Face, MediaPipeFaces, check, decode, prepare
from likeness.photos.glasses import MOST_YAW_DEG, wears_glasses
from likeness.types import Photo

WITH_GLASSES = {"jw08.jpg", "jw09.jpg", "jw10.jpg", "jw11.jpg"}


def with_frame(image: NDArray[np.uint8], face: Face) -> NDArray[np.uint8]:
    """Dark rims around the eyes and a bridge between them."""
    drawn, points = image.copy(), face.landmarks[:, :2]
    right, left = points[[33, 133]].mean(axis=0), points[[263, 362]].mean(axis=0)
    apart, thick = float(np.hypot(*(left - right))), max(2, round(face.size_px / 60))
    for eye in (right, left):
        cv2.circle(drawn, (round(eye[0]), round(eye[1])), round(0.3 * apart), (20, 20, 20), thick)
    start, end = right + 0.3 * (left - right), left - 0.3 * (left - right)
    cv2.line(drawn, (round(start[0]), round(start[1])), (round(end[0]), round(end[1])), (20, 20, 20), thick)
    return drawn


def test_a_drawn_frame_is_seen(virtual_man: list[Photo], faces: MediaPipeFaces) -> None:
    for photo in virtual_man:
        image = decode(photo.content)
        face = faces.detect(image)[0]
        if abs(face.yaw_deg) > MOST_YAW_DEG:
            assert wears_glasses(image, face) is wears_glasses(with_frame(image, face), face) is None, photo.name
            continue
        assert wears_glasses(image, face) is False, photo.name
        if abs(face.yaw_deg) < 25:  # the drawn rims are flat: on a turned head they lie over the bridge
            assert wears_glasses(with_frame(image, face), face) is True, photo.name


def test_real_frames_are_seen(real_man: list[Photo], faces: MediaPipeFaces) -> None:
    usable = check(real_man, "person", detector=faces).usable
    said = {one.photo.name: wears_glasses(one.image, one.face) for one in usable if one.face}
    assert {name for name, glasses in said.items() if glasses} == WITH_GLASSES
    assert {name for name, glasses in said.items() if glasses is None} == {"jw04.jpg", "jw06.jpg"}  # a frown, a profile


@pytest.mark.parametrize("colour", [0, 255])
def test_an_even_picture_has_none(colour: int, virtual_man: list[Photo], faces: MediaPipeFaces) -> None:
    image = decode(virtual_man[0].content)
    assert wears_glasses(np.full_like(image, colour), faces.detect(image)[0]) is False


def test_all_crops_of_a_photograph_say_so(virtual_man: list[Photo], faces: MediaPipeFaces) -> None:
    image = decode(virtual_man[0].content)
    face = faces.detect(image)[0]
    for picture, expected in ((image, False), (with_frame(image, face), True)):
        made = prepare(picture, face, "ab" * 32, size_px=128, aspects=((22, 12),))
        assert {one.glasses for one in made} == {expected} and len(made) >= 3
