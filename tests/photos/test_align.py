"""Aligned headshots: eyes and mouth go to the same places, wherever a photograph has them."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from likeness.photos import MediaPipeFaces, decode, prepare
from likeness.photos.align import EYES_ROW, alignment, face_alignment
from likeness.types import Photo

RIGHT, LEFT, MOUTH = np.array([40.0, 50.0]), np.array([60.0, 50.0]), np.array([50.0, 72.0])
SIDE = max(5.0 * 20, 4.5 * 22)


def test_an_upright_face_is_moved_and_scaled_only() -> None:
    across = alignment(RIGHT, LEFT, MOUTH)
    assert across == pytest.approx(
        np.array([[1, 0, 0], [0, 1, 0]]) / SIDE + [[0, 0, 0.5 - 50 / SIDE], [0, 0, EYES_ROW - 50 / SIDE]]
    )


@given(angle=st.floats(-180, 180), scale=st.floats(0.01, 100), x=st.floats(-1e3, 1e3), y=st.floats(-1e3, 1e3))
def test_a_turned_moved_and_enlarged_face_is_aligned_alike(angle: float, scale: float, x: float, y: float) -> None:
    turn = scale * cv2.getRotationMatrix2D((0, 0), angle, 1)[:, :2]

    def moved(point: np.ndarray) -> np.ndarray:
        return turn @ point + (x, y)

    plain, other = alignment(RIGHT, LEFT, MOUTH), alignment(moved(RIGHT), moved(LEFT), moved(MOUTH))
    for point in (RIGHT, LEFT, MOUTH, np.array([3.0, 90.0])):
        assert other @ (*moved(point), 1) == pytest.approx(plain @ (*point, 1), abs=1e-6)


def test_one_point_is_no_face() -> None:
    with pytest.raises(ValueError, match="expected eyes and mouth"):
        alignment(RIGHT, RIGHT, RIGHT)


@pytest.mark.parametrize("turned_deg", [0, 20])
def test_prepared_headshots_have_their_eyes_at_fixed_places(
    person: list[Photo], faces: MediaPipeFaces, turned_deg: int
) -> None:
    for photo in person[:3]:
        image = decode(photo.content)
        height, width = image.shape[:2]
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), turned_deg, 1)
        image = np.asarray(cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)
        aligned = prepare(image, faces.detect(image)[0], photo.sha256, size_px=256)[-1]
        assert aligned.framing == "aligned"
        landmarks = faces.detect(aligned.image)[0].landmarks
        # The headshot of a headshot is the whole picture, to the mesh's own accuracy.
        again = face_alignment(landmarks) * 256
        assert again[:, :2] == pytest.approx(np.eye(2), abs=0.06)
        assert again @ (128, 128, 1) == pytest.approx((128, 128), abs=6)
