"""A cluster of 1,000 replicas and 1,000,000 adapters, simulated with the routing functions that serve it.

python -m bench.cluster_simulation [--replicas 1000] [--adapters 1000000] [--requests 500000] [--save]

Discrete events: requests arrive as a Poisson process, for adapters by Zipf's law with exponent 1. A replica has a
batch of `PLACES` images, each of which takes `IMAGE_S`; further images wait. An adapter that is not in a replica's
memory is fetched first. While requests come, replicas are killed, others are replaced one by one as a deploy does, and
the traffic rises by `GROWTH` at half time, so that the autoscaler starts replicas. A new replica starts after
`START_S`, with no adapter in memory. Policies:

affinity      `likeness.deploy.affinity.choose`, and `wanted_replicas`
random        any replica
least loaded  the less loaded of two random replicas, as Ray Serve's own router

Each policy first runs a fifth of the requests without being measured. At the half and at the end of that, every adapter
is put into the memory of the replica that the policy chooses for it at that moment, the most popular ones last: the
state of a cluster that has run for long. What is simulated is the policy; the speed of an image is an assumption, and
so is the price.
"""

import argparse
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import numpy as np

from likeness.deploy.affinity import Ring, choose, may_retry, place, ring_of, wanted_replicas
from recipes.measurement import Row

from .report import Goal, finish, options

PLACES = 16  # images in a batch
IMAGE_S = 2.0
LOAD_S = 0.3  # from the object store to host memory
LOAD = 10.0  # images of a replica at the start: the autoscaler's target
START_S = 30.0
NOTICE_S = 1.0  # until the death of a replica is known
CHECK_S = 10.0  # of the autoscaler
KILLS, REPLACED, GROWTH = 0.01, 0.02, 0.05  # in one run, as shares of the replicas and of the traffic
MEMORY = 3.0  # adapters that fit into a replica's memory, times the mean number of its own
LARGEST = "largest mean load / mean"
ADAPTER_MB, PRICE_H = 1.7, 1.0  # the built-in base's standard adapter; USD of a replica's hour, an example


@dataclass(eq=False)
class Replica:
    """One replica. Times are in seconds."""

    name: str
    born_s: float
    capacity: int
    running: int = 0
    waiting: deque["Asked"] = field(default_factory=deque)
    memory: OrderedDict[int, None] = field(default_factory=OrderedDict)
    is_alive: bool = True
    area: float = 0.0  # images times seconds
    changed_s: float = 0.0

    def holds(self, adapter: int) -> bool:
        """Whether an adapter is in memory, which it is from now on."""
        is_warm = adapter in self.memory
        self.memory[adapter] = None
        self.memory.move_to_end(adapter)
        if len(self.memory) > self.capacity:
            self.memory.popitem(last=False)
        return is_warm


@dataclass(eq=False)
class Asked:
    """One request."""

    adapter: int
    arrived_s: float
    tries: int = 0
    begun_s: float | None = None


@dataclass
class Counts:
    """What is measured of one policy."""

    warm: int = 0
    cold: int = 0
    retried: int = 0
    refused: int = 0  # begun twice: answered with an error
    done: int = 0
    waits_s: list[float] = field(default_factory=list)


Policy = Callable[["Cluster", int], str]


class Cluster:
    """Replicas under one policy."""

    def __init__(self, policy: Policy, *, replicas: int, points: Sequence[int], memory: int, seed: int = 0) -> None:
        self.policy, self.points, self._memory = policy, points, memory
        self.dice = np.random.default_rng(seed)
        self._numbers = count()
        self.now_s = 0.0
        self.replicas: dict[str, Replica] = {}  # in the ring
        self.loads: dict[str, int] = {}
        self.names: list[str] = []
        self.total = 0
        self.open = 0  # requests that have come and are not answered
        self.replica_s = 0.0  # replicas times seconds
        self._counted_s = 0.0
        self.ring: Ring = ring_of([])
        self.counts = Counts()
        self._ends: deque[tuple[float, Replica, Asked]] = deque()  # rising, since every image takes as long
        self._fetched: deque[tuple[float, Replica, Asked]] = deque()
        self._later: list[tuple[float, Callable[[], None]]] = []
        for _ in range(replicas):
            self._add()
        self._rebuild()

    def _add(self) -> None:
        name = f"replica-{next(self._numbers)}"
        self.replicas[name] = Replica(name, self.now_s, self._memory, changed_s=self.now_s)
        self.loads[name] = 0

    def _rebuild(self) -> None:
        self.count_replicas()
        self.names = list(self.replicas)
        self.ring = ring_of(self.names, before=self.ring)

    def count_replicas(self) -> None:
        self.replica_s += len(self.names) * (self.now_s - self._counted_s)
        self._counted_s = self.now_s

    def join(self, replicas: int = 1) -> None:
        """New replicas, with nothing in memory."""
        for _ in range(replicas):
            self._add()
        self._rebuild()

    def drain(self, name: str) -> None:
        """A replica gets no more requests and finishes those that it has."""
        self._remove(name)

    def kill(self, name: str) -> None:
        """A replica ends; its requests are sent to others when that is known."""
        replica = self._remove(name)
        replica.is_alive = False
        mine = [*replica.waiting, *(one for _, owner, one in [*self._ends, *self._fetched] if owner is replica)]

        def retry() -> None:
            for one in mine:
                self._retry(one)

        self.later(NOTICE_S, retry)

    def later(self, after_s: float, work: Callable[[], None]) -> None:
        self._later.append((self.now_s + after_s, work))
        self._later.sort(key=lambda one: one[0])

    def run_until(self, end_s: float) -> None:
        """All events up to a time."""
        ends, fetched, later = self._ends, self._fetched, self._later
        while True:
            end = ends[0][0] if ends else math.inf
            fetch = fetched[0][0] if fetched else math.inf
            work = later[0][0] if later else math.inf
            self.now_s = min(end, fetch, work, end_s)
            if self.now_s == end_s:
                return
            if self.now_s == end:
                self._end(*ends.popleft()[1:])
            elif self.now_s == fetch:
                _, replica, one = fetched.popleft()
                if replica.is_alive:
                    self._begin(replica, one)
            else:
                later.pop(0)[1]()

    def ask(self, one: Asked) -> None:
        """A request arrives."""
        self.open += not one.tries
        one.tries += 1
        replica = self.replicas[self.policy(self, one.adapter)]
        self._change(replica, 1)
        self.total += 1
        if replica.holds(one.adapter):
            self.counts.warm += 1
            self._begin(replica, one)
        else:
            self.counts.cold += 1
            self._fetched.append((self.now_s + LOAD_S, replica, one))

    def fill(self, adapters: Sequence[int]) -> None:
        """Put each adapter where the policy sends it now."""
        for adapter in adapters:
            self.replicas[self.policy(self, adapter)].holds(adapter)

    def settle(self) -> None:
        """Measure from now on."""
        self.counts, self.replica_s, self._counted_s = Counts(), 0.0, self.now_s
        for replica in self.replicas.values():
            replica.area, replica.changed_s, replica.born_s = 0.0, self.now_s, self.now_s

    def mean_loads(self, since_s: float) -> list[float]:
        """Mean images of each replica that lived all the time."""
        for replica in self.replicas.values():
            self._change(replica, 0)
        old = [replica for replica in self.replicas.values() if replica.born_s <= since_s]
        return [replica.area / (self.now_s - since_s) for replica in old]

    def _remove(self, name: str) -> Replica:
        replica = self.replicas.pop(name)
        self.total -= self.loads.pop(name)
        self._rebuild()
        return replica

    def _retry(self, one: Asked) -> None:
        if not may_retry(one.begun_s is not None, one.tries):
            self.counts.refused += 1
            self.open -= 1
            return
        self.counts.retried += 1
        one.begun_s = None
        self.ask(one)

    def _begin(self, replica: Replica, one: Asked) -> None:
        if replica.running < PLACES:
            replica.running += 1
            one.begun_s = self.now_s
            self.counts.waits_s.append(self.now_s - one.arrived_s)
            self._ends.append((self.now_s + IMAGE_S, replica, one))
        else:
            replica.waiting.append(one)

    def _end(self, replica: Replica, one: Asked) -> None:
        if not replica.is_alive:
            return
        self.counts.done += 1
        self.open -= 1
        replica.running -= 1
        self._change(replica, -1)
        if replica.name in self.loads:
            self.total -= 1
        if replica.waiting:
            self._begin(replica, replica.waiting.popleft())

    def _change(self, replica: Replica, by: int) -> None:
        load = self.loads.get(replica.name)
        if load is None:  # it drains
            return
        replica.area += load * (self.now_s - replica.changed_s)
        replica.changed_s = self.now_s
        self.loads[replica.name] = load + by


def affinity(cluster: Cluster, adapter: int) -> str:
    chosen = choose(cluster.ring, cluster.points[adapter], cluster.loads, cluster.total)
    assert chosen is not None
    return chosen


def at_random(cluster: Cluster, adapter: int) -> str:
    return cluster.names[int(cluster.dice.random() * len(cluster.names))]


def least_loaded(cluster: Cluster, adapter: int) -> str:
    one, other = at_random(cluster, adapter), at_random(cluster, adapter)
    return min(one, other, key=cluster.loads.__getitem__)


POLICIES: dict[str, Policy] = {"affinity": affinity, "random": at_random, "least loaded": least_loaded}


@dataclass(frozen=True)
class Traffic:
    """Arrivals: seconds and adapters, the number is the rank in popularity."""

    arrivals_s: np.ndarray
    adapters: np.ndarray
    half_s: float


def traffic(*, replicas: int, adapters: int, requests: int, seed: int = 1) -> Traffic:
    """Poisson arrivals at the target load, and more in the second half of what is measured."""
    dice = np.random.default_rng(seed)
    shares = np.cumsum(1.0 / np.arange(1, adapters + 1))
    ranks = np.searchsorted(shares / shares[-1], dice.random(requests))
    rate = 0.98 * replicas * LOAD / IMAGE_S
    gaps = dice.exponential(1 / rate, requests)
    later = int(requests * 0.6)  # half of what follows the unmeasured fifth
    gaps[later:] /= 1 + GROWTH
    arrivals = np.cumsum(gaps)
    return Traffic(arrivals, np.minimum(ranks, adapters - 1), float(arrivals[later]))


def simulate(name: str, asked: Traffic, points: Sequence[int], *, replicas: int) -> tuple[Row, Row]:
    """One policy: its rows in the two tables."""
    memory = max(4, int(MEMORY * len(points) / replicas))
    cluster = Cluster(POLICIES[name], replicas=replicas, points=points, memory=memory)
    arrivals, adapters = asked.arrivals_s.tolist(), asked.adapters.tolist()
    first = len(arrivals) // 5

    def come(start: int, stop: int | None) -> None:
        for time_s, adapter in zip(arrivals[start:stop], adapters[start:stop], strict=True):
            cluster.run_until(time_s)
            cluster.ask(Asked(adapter, time_s))

    for start in (0, first // 2):
        come(start, start + first // 2)
        cluster.fill(range(len(points) - 1, -1, -1))
    cluster.settle()
    start_s, end_s = arrivals[first], arrivals[-1]
    _disturb(cluster, start_s, end_s, replicas)
    quiet: list[float] = []
    cluster.later(asked.half_s - start_s, lambda: quiet.extend(cluster.mean_loads(start_s)))
    come(first // 2 * 2, None)
    cluster.count_replicas()
    replica_s, done = cluster.replica_s, cluster.counts.done
    cluster.run_until(end_s + 100 * IMAGE_S)  # all are answered
    counts = cluster.counts
    waits = np.sort(counts.waits_s)
    row: Row = {
        "routing": name,
        "warm %": 100 * counts.warm / (counts.warm + counts.cold),
        LARGEST: max(quiet) / (sum(quiet) / len(quiet)),
        "wait s, median": float(waits[len(waits) // 2]),
        "wait s, p99": float(waits[int(len(waits) * 0.99)]),
        "sent again": counts.retried,
        "answered with an error": counts.refused,
        "lost": cluster.open,
        "replicas at the end": len(cluster.replicas),
    }
    return row, _cost(name, counts, replica_s / done)


def _disturb(cluster: Cluster, start_s: float, end_s: float, replicas: int) -> None:
    """Kills, a deploy and the autoscaler, spread over the time that is measured."""
    span_s = end_s - start_s
    kills, replaced = max(1, int(KILLS * replicas)), max(1, int(REPLACED * replicas))

    def kill() -> None:
        cluster.kill(cluster.names[int(cluster.dice.random() * len(cluster.names))])
        cluster.later(START_S, cluster.join)

    def replace() -> None:  # the new one starts first
        cluster.join()
        cluster.drain(cluster.names[0])

    starting = [0]

    def started(replicas: int) -> None:
        starting[0] -= replicas
        cluster.join(replicas)

    def scale() -> None:
        here = len(cluster.replicas) + starting[0]
        wanted = wanted_replicas(cluster.total, here, target=LOAD, least=1, most=2 * replicas)
        if wanted > here:
            starting[0] += wanted - here
            cluster.later(START_S, partial(started, wanted - here))
        for name in cluster.names[: max(0, here - wanted - starting[0])]:
            cluster.drain(name)

    for k in range(kills):
        cluster.later(span_s * (k + 0.5) / kills, kill)
    for k in range(replaced):
        cluster.later(span_s * (k + 0.25) / replaced, replace)
    for k in range(1, int(span_s / CHECK_S) + 1):
        cluster.later(k * CHECK_S, scale)


def moved_share(replicas: int, points: Sequence[int]) -> float:
    """Share of the adapters whose replica changes when one leaves, in percent."""
    names = [f"replica-{k}" for k in range(replicas)]
    before, after = ring_of(names), ring_of(names[1:])
    return 100 * sum(choose(before, point, {}, 0) != choose(after, point, {}, 0) for point in points) / len(points)


def _cost(name: str, counts: Counts, replica_s: float) -> Row:
    """Per million images, of which each took `replica_s` of a replica."""
    fetched = counts.cold / (counts.warm + counts.cold) * 1e6
    hours = 1e6 * replica_s / 3600
    return {
        "routing": name,
        "adapters fetched": round(fetched),
        "GB fetched": fetched * ADAPTER_MB / 1000,
        "replica hours": hours,
        f"USD at {PRICE_H:g} an hour": hours * PRICE_H,
        "seconds waited for adapters": fetched * LOAD_S,
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--adapters", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=500_000)
    args: argparse.Namespace = parser.parse_args()
    points = [place(f"tenant/person-{k}") for k in range(args.adapters)]
    asked = traffic(replicas=args.replicas, adapters=args.adapters, requests=args.requests)
    found = {name: simulate(name, asked, points, replicas=args.replicas) for name in POLICIES}
    rows = {name: row for name, (row, _) in found.items()}
    mine = rows["affinity"]
    goals = [
        Goal("% of requests that find their adapter in memory", float(str(mine["warm %"])), 90.0, at_least=True),
        Goal(
            "largest mean load of a replica / mean", float(str(mine["largest mean load / mean"])), 1.3, at_least=False
        ),
        Goal(
            "% of adapters that move when one replica leaves", moved_share(args.replicas, points), 0.2, at_least=False
        ),
        Goal("requests lost", float(str(mine["lost"])), 0.0, at_least=False),
    ]
    settings = {
        "replicas": args.replicas, "adapters": args.adapters, "requests": args.requests,
        "simulated_s": float(asked.arrivals_s[-1]),
        "places": PLACES, "image_s": IMAGE_S, "load_s": LOAD_S, "start_s": START_S, "memory": MEMORY,
        "killed": KILLS, "replaced": REPLACED, "growth": GROWTH, "price_h": PRICE_H,
    }  # fmt: skip
    tables = {
        "routing": list(rows.values()),
        "a million portraits": [row for _, row in found.values()],
    }
    finish("cluster-simulation", tables, goals=goals, settings=settings, save=args.save)


if __name__ == "__main__":
    main()
