"""Finds the subject of a set of photographs, and the subject's face on each photograph.

A single photograph is not enough: of two people on it, the larger face may be another person's. The subject is the
person on most of the photographs. Works on descriptors only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .descriptor import SAME_PERSON

LEAST_PHOTOS = 3  # with two different faces, neither is the outlier
_ROUNDS = 3  # more than are needed for convergence


@dataclass(frozen=True)
class Choice:
    """The subject's face on each photograph."""

    faces: tuple[int, ...]  # index of the face on its photograph; 0 without a face and for a stranger
    strangers: frozenset[int]  # indices of photographs with faces, none of them the subject's
    known: tuple[int, ...]  # indices of photographs with faces
    agreeing: int  # photographs that show the subject


def choose(candidates: Sequence[Sequence[NDArray[np.floating]]]) -> Choice:
    """Find the person who is on most photographs, and that person's face on each.

    If two people are on equally many photographs, the subject is the one whose face is first more often. A photograph
    counts as a stranger's if the median distance of its closest face to the subject's other faces exceeds `SAME_PERSON`
    (a limit for pairs, to which a median of pairs can be compared). With fewer than three photographs there are none.

    Args:
        candidates: for each photograph the descriptors (128,) of its faces, the most important first.
    """
    photos = [place for place, faces in enumerate(candidates) if faces]
    if not photos:
        return Choice((0,) * len(candidates), frozenset(), (), 0)
    owner = np.array([place for place in photos for _ in candidates[place]])  # (F,) the photograph of each face
    rank = np.array([rank for place in photos for rank in range(len(candidates[place]))])  # (F,) index on that one
    apart = _distances(np.stack([face for place in photos for face in candidates[place]]))
    core = _largest_group(apart, owner, rank)
    for _ in range(_ROUNDS):
        far = np.array([_median_to(core[owner[core] != owner[face]], row) for face, row in enumerate(apart)])
        nearest = np.array([_least(far, np.flatnonzero(owner == place)) for place in photos])
        core = nearest[far[nearest] <= SAME_PERSON]
    own = {int(owner[face]): int(rank[face]) for face in core}
    strangers = frozenset(photos) - own.keys() if len(photos) >= LEAST_PHOTOS else frozenset()
    return Choice(tuple(own.get(place, 0) for place in range(len(candidates))), strangers, tuple(photos), len(own))


def _distances(faces: NDArray[np.floating]) -> NDArray[np.float64]:
    """(F, 128) -> (F, F)."""
    squares = (faces**2).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(squares[:, None] + squares - 2 * faces @ faces.T, 0)), dtype=np.float64)


def _largest_group(apart: NDArray[np.float64], owner: NDArray[np.int_], rank: NDArray[np.int_]) -> NDArray[np.int_]:
    """The largest group: for one face, the closest face of each photograph that is the same person."""
    best: tuple[int, int, float] = (0, 0, 0.0)
    group = np.zeros(0, dtype=int)
    for row in apart:
        nearest = np.array([_least(row, np.flatnonzero(owner == place)) for place in np.unique(owner)])
        near = nearest[row[nearest] <= SAME_PERSON]
        merit = (len(near), int((rank[near] == 0).sum()), -float(row[near].sum()))
        if merit > best:
            best, group = merit, near
    return group


def _median_to(core: NDArray[np.int_], row: NDArray[np.float64]) -> float:
    return float(np.median(row[core])) if core.size else 0.0


def _least(values: NDArray[np.float64], places: NDArray[np.int_]) -> int:
    return int(places[np.argmin(values[places])])
