"""Faces: found, ranked, turned, told apart."""

import numpy as np
import pytest
from numpy.typing import NDArray

from likeness.photos import SAME_PERSON, MediaPipeFaces, decode, descriptor, distance
from likeness.photos.face import overlap, square_window
from likeness.photos.pose import expression_of, pitch_name, pose_deg, yaw_name
from likeness.types import Photo


def flat_face() -> NDArray[np.float64]:
    """Landmarks of a level face that looks into the camera, where pose reads them."""
    points = np.zeros((478, 3))
    points[33], points[263], points[10], points[152] = (-40, 0, 0), (40, 0, 0), (0, -60, 0), (0, 80, 0)
    return points


def turned(points: NDArray[np.float64], axis: int, angle_deg: float) -> NDArray[np.float64]:
    sine, cosine = np.sin(np.radians(angle_deg)), np.cos(np.radians(angle_deg))
    one, other = (index for index in range(3) if index != axis)
    matrix = np.eye(3)
    matrix[one, one] = matrix[other, other] = cosine
    matrix[one, other], matrix[other, one] = -sine, sine
    return points @ matrix.T


@pytest.mark.parametrize("angle_deg", [-50.0, -10.0, 0.0, 20.0, 70.0])
@pytest.mark.parametrize(("axis", "place", "sign"), [(1, 0, 1), (0, 1, -1), (2, 2, 1)])
def test_pose_is_the_rotation(angle_deg: float, axis: int, place: int, sign: int) -> None:
    expected = [0.0, 0.0, 0.0]
    expected[place] = sign * angle_deg
    np.testing.assert_allclose(pose_deg(turned(flat_face(), axis, angle_deg)), expected, atol=1e-6)


def test_pose_names() -> None:
    assert [yaw_name(yaw) for yaw in (-60, -20, 0, 20, 60)] == [
        "profile_left",
        "three_quarter_left",
        "front",
        "three_quarter_right",
        "profile_right",
    ]
    assert [pitch_name(pitch) for pitch in (15, 0, -30)] == ["up", "level", "down"]


def test_pose_of_the_virtual_man(virtual_man: list[Photo], faces: MediaPipeFaces) -> None:
    """Seen by eye: photo 4 and 6 look to the image's right, 7 to its left, 3 has the mouth open, 8 smiles."""
    found = {number: faces.detect(decode(virtual_man[number - 1].content))[0] for number in (1, 3, 4, 6, 7, 8)}
    assert yaw_name(found[1].yaw_deg) == "front"
    assert found[4].yaw_deg > 15 and found[6].yaw_deg > 30
    assert found[7].yaw_deg < -30
    assert found[3].expression == "open mouth" and expression_of(found[8].landmarks) == "smile"
    assert found[1].expression == "neutral"


def test_pose_of_the_real_man(real_man: list[Photo], faces: MediaPipeFaces) -> None:
    """Seen by eye: photo 3 and 10 look to the image's right, 6 to its left, 7 has the mouth open."""
    found = {number: faces.detect(decode(real_man[number - 1].content))[0] for number in (1, 3, 6, 7, 10)}
    assert yaw_name(found[1].yaw_deg) == "front"
    assert found[3].yaw_deg > 15 and found[10].yaw_deg > 15
    assert found[6].yaw_deg < -30
    assert found[7].expression == "open mouth" and expression_of(found[1].landmarks) == "neutral"


def test_mirror_image_mirrors_the_pose(portrait: NDArray[np.uint8], faces: MediaPipeFaces) -> None:
    face = faces.detect(portrait)[0]
    mirrored = faces.detect(np.ascontiguousarray(portrait[:, ::-1]))[0]
    assert mirrored.yaw_deg == pytest.approx(-face.yaw_deg, abs=5)
    assert mirrored.pitch_deg == pytest.approx(face.pitch_deg, abs=5)


def test_virtual_people_are_found(virtual_people: NDArray[np.uint8], faces: MediaPipeFaces) -> None:
    assert [len(faces.detect(picture)) for picture in virtual_people] == [1] * len(virtual_people)


def test_most_important_face_comes_first(
    portrait: NDArray[np.uint8], virtual_people: NDArray[np.uint8], faces: MediaPipeFaces
) -> None:
    side_by_side = np.full((512, 512 + 384, 3), 128, np.uint8)
    side_by_side[:, :512] = portrait
    side_by_side[128:, 512:] = virtual_people[6]
    found = faces.detect(side_by_side)
    assert len(found) == 2
    assert found[0].size_px > found[1].size_px
    assert max(found[0].box_px[0], found[0].box_px[2]) <= 512


def test_no_face(scene: NDArray[np.uint8], faces: MediaPipeFaces) -> None:
    assert faces.detect(scene) == []


def test_descriptor_tells_people_apart(
    person: list[Photo], virtual_people: NDArray[np.uint8], faces: MediaPipeFaces
) -> None:
    first, second = (decode(photo.content) for photo in person[:2])
    one, two, other = (descriptor(image, faces.detect(image)[0]) for image in (first, second, virtual_people[5]))
    assert one.shape == (128,)
    assert distance(one, one) == 0
    assert distance(one, two) < SAME_PERSON < distance(one, other)


def test_overlap() -> None:
    assert overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1.0
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 1, 1), (5, 5, 6, 6)) == 0.0


def test_square_window_goes_on_beyond_the_edge(scene: NDArray[np.uint8]) -> None:
    window = square_window(scene, (0.0, 0.0), 40)
    assert window.shape == (40, 40, 3)
    assert (window[:20, :20] == scene[0, 0]).all()
    np.testing.assert_array_equal(window[20:, 20:], scene[:20, :20])
