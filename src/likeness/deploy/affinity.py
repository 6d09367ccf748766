"""Which replica of a cluster answers a request: policy only, pure functions without clock, process or network.

Requests for one adapter go to one replica, which then has it in memory. Consistent hashing with bounded loads
(Mirrokni, Thorup & Zadimoghaddam 2018, "Consistent Hashing with Bounded Loads", SODA): replicas and adapters are points
on a circle, an adapter belongs to the next replica clockwise, and a replica takes no more than `FACTOR` times the mean
load. Further requests go to the next replica clockwise. So a popular adapter spreads over neighbours, and when one of N
replicas joins or leaves, about 1/N of the adapters move. Each replica has many points, so that their shares of the
circle are similar.

A load is a number of images, waiting or running. An image of several adapters is routed by its first one.
"""

import hashlib
import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import compress

from ..config import Settings

FACTOR = 1.2  # largest load of a replica over the mean
ROOM = Settings.max_batch  # a replica takes at least the default batch: an image that joins one does not wait
POINTS = 128  # of each replica: its share of the circle varies by about 1 / sqrt(POINTS)
LONGEST_QUEUE_S = 2.0  # that images wait on average before they join a batch; above it, one more replica
MOST_TRIES = 2  # of a request: it was begun, and its replica ended


def place(name: str) -> int:
    """The point of a name on the circle, 0 to 2**64 - 1; the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Ring:
    """The points of all replicas, in order, and whose they are."""

    points: tuple[int, ...]
    owners: tuple[str, ...]
    names: tuple[str, ...]  # of the replicas

    def clockwise(self, point: int) -> Iterator[str]:
        """Each replica once, in the order in which a point meets them."""
        start, seen = bisect_left(self.points, point), set()
        for i in range(len(self.points)):
            owner = self.owners[(start + i) % len(self.points)]
            if owner not in seen:
                seen.add(owner)
                yield owner


def ring_of(replicas: Iterable[str], *, before: Ring | None = None) -> Ring:
    """The ring of live replicas, by their names; faster from the ring `before`, when few have joined or left."""
    names, ring = set(replicas), before or Ring((), (), ())
    points, owners = list(ring.points), list(ring.owners)
    if not names.issuperset(ring.names):
        kept = [owner in names for owner in owners]
        points, owners = list(compress(points, kept)), list(compress(owners, kept))
    new = sorted((place(f"{name}#{k}"), name) for name in names.difference(ring.names) for k in range(POINTS))
    if not points:
        points, owners = [point for point, _ in new], [name for _, name in new]
    else:
        for point, name in new:
            i = bisect_left(points, point)
            points.insert(i, point)
            owners.insert(i, name)
    return Ring(tuple(points), tuple(owners), tuple(sorted(names)))


def limit_of(total: float, replicas: int, *, factor: float = FACTOR) -> int:
    """The load up to which a replica takes requests, when all have `total` together, the one to be placed included."""
    return max(ROOM, math.ceil(factor * total / replicas))


def choose(ring: Ring, point: int | None, loads: Mapping[str, float], total: float) -> str | None:
    """The replica for a request; None: there is no replica.

    Args:
        point: of its adapter; None: the bare base, which every replica has: the least loaded one.
        loads: replica -> its images; those that it does not have are 0.
        total: the sum of all loads.
    """
    if not ring.names:
        return None
    if point is None:
        return min(ring.names, key=lambda name: loads.get(name, 0))
    limit = limit_of(total + 1, len(ring.names))
    return next((name for name in ring.clockwise(point) if loads.get(name, 0) < limit), None)


def may_retry(started: bool, tries: int) -> bool:
    """Whether a request whose replica ended is sent to another: always if it was not begun, else once."""
    return not started or tries < MOST_TRIES


def wanted_replicas(
    total: float, replicas: int, *, target: float, least: int, most: int, queue_s: float = 0.0
) -> int:  # fmt: skip
    """How many replicas a load needs, so that each has `target` images; the number falls only below 80 % of that load.

    Args:
        queue_s: that images wait on average before they join a batch. Above `LONGEST_QUEUE_S`, one more is wanted: the
            images may be few and have many steps.

    The dead zone keeps a load that varies from starting and stopping replicas all the time: each loses its adapters.
    """
    needed = math.ceil(total / target)
    if queue_s > LONGEST_QUEUE_S:
        needed = max(needed, replicas + 1)
    wanted = needed if needed > replicas or needed < 0.8 * replicas else replicas
    return min(max(wanted, least), most)
