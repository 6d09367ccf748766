"""Faces and mattes of the shipped photographs are those of mediapipe 0.10.21, whose networks are used without it.

`golden.npz` has what that version gave: landmarks (12, 478, 3) in twentieths of a pixel, poses in degrees, scores,
expressions, and mattes (12, 64, 64), 0..255, of the photographs at 512 x 512.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from likeness.photos import Face, MediaPipeFaces, decode
from likeness.photos.matte import person_probability
from likeness.types import Photo

Golden = dict[str, NDArray]


@pytest.fixture(scope="module")
def golden() -> Golden:
    with np.load(Path(__file__).with_name("golden.npz")) as file:
        return dict(file)


@pytest.fixture(scope="module")
def found(virtual_man: list[Photo], faces: MediaPipeFaces, golden: Golden) -> list[Face]:
    assert [photo.name for photo in virtual_man] == golden["names"].tolist()
    every = [faces.detect(decode(photo.content)) for photo in virtual_man]
    assert [len(one) for one in every] == [1] * len(every)
    return [one[0] for one in every]


def test_landmarks(found: list[Face], golden: Golden) -> None:
    for face, twentieths in zip(found, golden["landmarks"], strict=True):
        apart = np.abs(face.landmarks - twentieths / 20.0) * 256 / face.size_px
        assert apart.max() < 0.25, f"{apart.max():.2f} px in a face of 256 px"


def test_pose_expression_and_score(found: list[Face], golden: Golden) -> None:
    poses = np.array([(face.yaw_deg, face.pitch_deg, face.roll_deg) for face in found])
    np.testing.assert_allclose(poses, golden["poses"], atol=0.1)
    np.testing.assert_allclose([face.score for face in found], golden["scores"], atol=2e-3)
    assert [face.expression for face in found] == golden["expressions"].tolist()


def test_mattes(virtual_man: list[Photo], golden: Golden) -> None:
    for photo, wanted in zip(virtual_man, golden["mattes"], strict=True):
        image = cv2.resize(decode(photo.content), (512, 512), interpolation=cv2.INTER_AREA)
        matte = cv2.resize(person_probability(np.asarray(image, np.uint8)), (64, 64), interpolation=cv2.INTER_AREA)
        share = wanted / 255.0
        assert np.minimum(matte, share).sum() / np.maximum(matte, share).sum() > 0.98
