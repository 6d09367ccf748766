"""Distances to photographs: of the person small, of a stranger large, and a ranking by them."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from likeness.errors import InputRefused
from likeness.photos import SAME_PERSON
from likeness.scoring.likeness import Reference, portraits_of, ranked, threshold_of
from likeness.scoring.score_card import LikenessScore, middle
from likeness.types import PreparedPhoto


def identity(*first: float) -> NDArray[np.float64]:
    return np.array([*first, *[0.0] * (128 - len(first))])


REFERENCE = Reference((identity(0.0), identity(0.2), identity(0.4), identity(9.0)))


def test_one_odd_photograph_moves_nothing() -> None:
    assert REFERENCE.distance_of(identity(0.2)) == pytest.approx(0.2)
    assert REFERENCE.left_out(1) == pytest.approx(0.2)
    assert REFERENCE.left_out(1, identity(0.3)) == pytest.approx(0.3)


def test_the_threshold_is_never_beyond_dlibs_limit() -> None:
    assert threshold_of([0.3, 0.5]) == 0.5
    assert threshold_of([0.3, 0.9]) == SAME_PERSON


class Nobody:
    def detect(self, image: NDArray[np.uint8]) -> list[object]:
        return []


def prepared(framing: str) -> PreparedPhoto:
    plane = np.zeros((64, 64), dtype=np.uint8)
    return PreparedPhoto(np.zeros((64, 64, 3), dtype=np.uint8), plane, plane, framing, "a")


def test_photographs_without_a_face_are_refused() -> None:
    with pytest.raises(InputRefused, match="at least 3"):
        Reference.of([prepared("portrait")] * 5, detector=Nobody())  # type: ignore[arg-type]


def test_a_friend_who_is_larger_in_one_crop_is_not_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faces are named by their descriptors: a friend's is 9 away from the person's."""
    crops = [[0.0], [0.1], [9.0, 0.2], [0.3]]

    class Faces:
        def detect(self, image: NDArray[np.uint8]) -> list[float]:
            return crops[int(image.max())]

    def alike(image: NDArray[np.uint8], face: float) -> NDArray[np.float64]:
        return identity(face)

    monkeypatch.setattr("likeness.scoring.likeness.descriptor", alike)
    photos = []
    for place in range(len(crops)):
        one = prepared("portrait")
        photos.append(replace(one, image=np.full_like(one.image, place)))
    reference = Reference.of(photos, detector=Faces())  # type: ignore[arg-type]
    assert [one[0] for one in reference.photos] == [0.0, 0.1, 0.2, 0.3]


def test_pictures_without_a_face_come_last_in_their_order() -> None:
    images = [prepared("portrait").image] * 3
    assert ranked(images, REFERENCE, detector=Nobody()) == [0, 1, 2]  # type: ignore[arg-type]


def test_each_photograph_counts_once() -> None:
    assert [photo.framing for photo in portraits_of([prepared("portrait"), prepared("close"), prepared("whole")])] == [
        "portrait", "whole",
    ]  # fmt: skip


def test_what_was_gained_by_hand() -> None:
    def score(distance: float | None, base_distance: float | None) -> LikenessScore:
        return LikenessScore(4, 0.4, 0.5, 4, 4, distance, base_distance, 0.5)

    assert score(0.5, 0.8).gained == pytest.approx(0.75)
    assert score(0.9, 0.8).gained == pytest.approx(-0.25)
    assert score(None, 0.8).gained is score(0.5, None).gained is score(0.5, 0.4).gained is None
    assert (middle([None, 3.0, 1.0, 2.0]), middle([None])) == (2.0, None)
