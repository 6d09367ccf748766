"""The subject of a set, from synthetic descriptors: points on a sphere with known distances."""

import numpy as np
import pytest
from numpy.typing import NDArray

from likeness.photos import SAME_PERSON
from likeness.photos.identity import choose

Identity = NDArray[np.float64]


def face(person: int, shot: int = 0) -> Identity:
    """Descriptors of one person are about 0.4 apart, those of two people 1.4."""
    identity = np.zeros(128)
    identity[person] = 1.0
    identity[64 + shot] = 0.28
    return identity


ANNA, BEN, CARL = 0, 1, 2


def test_the_made_faces_are_as_far_apart_as_real_ones() -> None:
    assert np.linalg.norm(face(ANNA, 1) - face(ANNA, 2)) < SAME_PERSON < np.linalg.norm(face(ANNA) - face(BEN))


def test_the_face_of_the_other_photographs_is_chosen_wherever_it_stands() -> None:
    photos = [[face(ANNA, shot)] for shot in range(4)]
    choice = choose([*photos, [face(BEN), face(CARL), face(ANNA, 5)], [face(ANNA, 6), face(BEN)]])
    assert choice.faces == (0, 0, 0, 0, 2, 0) and choice.strangers == set() and choice.agreeing == 6


def test_a_stranger_is_named_and_keeps_the_first_face() -> None:
    choice = choose([[face(ANNA, 1)], [face(BEN), face(CARL)], [], [face(ANNA, 2)], [face(ANNA, 3)]])
    assert choice.strangers == {1} and choice.faces == (0, 0, 0, 0, 0) and choice.known == (0, 1, 3, 4)


def test_of_two_people_on_all_photographs_the_more_important_one_is_the_subject() -> None:
    """Anna's face is the largest on three of four."""
    pairs = [[face(ANNA, shot), face(BEN, 10 + shot)] for shot in range(3)]
    choice = choose([*pairs, [face(BEN, 20), face(ANNA, 21)]])
    assert choice.faces == (0, 0, 0, 1) and not choice.strangers


def test_a_stranger_with_many_friends_does_not_win() -> None:
    """Each face is one voice for its photograph, however many faces that has."""
    crowd = [face(BEN, shot) for shot in range(6)]
    choice = choose([crowd, [face(ANNA, 10)], [face(ANNA, 11)], [face(ANNA, 12)]])
    assert choice.strangers == {0}


@pytest.mark.parametrize("count", [3, 8])
def test_people_who_are_all_different(count: int) -> None:
    choice = choose([[face(person)] for person in range(count)])
    assert len(choice.strangers) == count - 1 and choice.agreeing == 1


def test_of_two_photographs_neither_is_the_odd_one() -> None:
    assert not choose([[face(ANNA)], [face(BEN)]]).strangers
    assert choose([[face(ANNA, 1)], [face(BEN), face(ANNA, 2)]]).faces == (0, 1)
    assert choose([[face(ANNA)], [face(BEN), face(CARL)]]).faces == (0, 0)


def test_sets_without_faces() -> None:
    assert choose([]).faces == () and choose([[], []]).faces == (0, 0)
    assert choose([[face(ANNA), face(BEN)]]).faces == (0,)
