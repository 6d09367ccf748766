"""Who a set of photographs is about, and which face of each photograph is theirs.

A single photograph cannot tell: of two people on it the larger face may be a friend's. The set can, because the subject
is on most of the photographs. Works on descriptors alone; knows neither pixels nor verdicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .descriptor import SAME_PERSON

LEAST_PHOTOS = 3  # of two that differ neither is the odd one
_ROUNDS = 3  # more than the choice needs to settle


@dataclass(frozen=True)
class Choice:
    """The subject's face on each photograph."""

    faces: tuple[int, ...]  # place among the photograph's faces; 0 where there is none and on a stranger's
    strangers: frozenset[int]  # places of the photographs that have faces, none of them the subject's
    known: tuple[int, ...]  # places of the photographs that have faces
    agreeing: int  # photographs that show the subject


def choose(candidates: Sequence[Sequence[NDArray[np.floating]]]) -> Choice:
    """Find the person who is on most photographs, and that person's face on each.

    Of two people on equally many photographs the subject is the one whose face comes first more often. A photograph is
    a stranger's when the median distance of its nearest face to the subject's other faces is beyond `SAME_PERSON`:
    that limit is about pairs, and the median keeps its meaning. Among fewer than three photographs nobody is one.

    Args:
        candidates: for each photograph the descriptors (128,) of its faces, the most important first.
    """
    photos = [place for place, faces in enumerate(candidates) if faces]
    if not photos:
        return Choice((0,) * len(candidates), frozenset(), (), 0)
    owner = np.array([place for place in photos for _ in candidates[place]])  # (F,) the photograph of each face
    rank = np.array([rank for place in photos for rank in range(len(candidates[place]))])  # (F,) place on it
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
    """Of each photograph the face nearest to one face, where it is the same person; of the one with most of them."""
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
