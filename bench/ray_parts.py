"""The parts of `bench.ray_serve`, which imports this module when Ray's environment is set."""

import argparse
import math
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from ray import serve
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from fixtures.tiny import build_tiny_folder
from fixtures.waiting import until
from likeness.deploy.ray.application import NAME, ROUTER, ClusterOptions, base_without_weights, replicas
from likeness.deploy.ray.local_cluster import local_cluster
from likeness.deploy.ray.remote_engine import RemoteEngine
from likeness.deploy.ray.replica import settings_at
from likeness.diffusion.base import load_base
from likeness.engine.packed import pack
from likeness.engine.slot_banks import SlotBanks
from likeness.engine.ticket import ImageEngine, Ticket
from likeness.errors import EngineBusy
from likeness.service import build
from likeness.storage.library import engine_key_of
from likeness.types import GeneratedImage, ImageRequest, WeightedAdapter
from recipes.measurement import Row

from .adapters import write_adapters
from .report import Goal
from .serve import free_port

RANDOM_ROUTER = "bench.ray_parts:RandomRouter"
RANK, DEADLINE_S, PEOPLE = 4, 600.0, 16


class RandomRouter(RequestRouter):
    """Any replica, for comparison."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        return [[one] for one in random.sample(candidate_replicas, len(candidate_replicas))]


class Cluster:
    """Engines of one home folder, without an ingress: this process is the caller."""

    def __init__(self, home: Path) -> None:
        self.home, self.base = home, base_without_weights(settings_at(str(home)))
        self.engine: RemoteEngine

    @contextmanager
    def of(self, count: int, *, router: str = ROUTER) -> Iterator[RemoteEngine]:
        """New replicas, with nothing in memory. Serve keeps the router of a name, so each router has its own."""
        options, name = ClusterOptions(home=str(self.home), replicas=count), f"{NAME}-{router.rpartition(':')[2]}"
        handle = serve.run(replicas(options, router=router), name=name, route_prefix=None)
        engine = RemoteEngine(self.base, handle, deadline_s=DEADLINE_S)
        until(lambda: len(engine.states()) == count)
        try:
            yield engine
        finally:
            engine.close()
            serve.delete(name)


@contextmanager
def installed(base: str, count: int, *, host_share: float | None = None) -> Iterator[tuple[Cluster, list[str]]]:
    """A cluster with keys of `count` adapters: links to one file, since only the names matter.

    Args:
        host_share: of all adapters that fit into the memory of one replica; None: all.
    """
    with tempfile.TemporaryDirectory(prefix="lk-") as name:
        home = Path(name)
        loaded = load_base(base)
        files = write_adapters(loaded, home / "objects", 1, rank=RANK)
        (first,) = files.keys
        for i in range(1, count):
            link = home / "objects" / "local" / "adapters" / f"a{i}" / Path(first).name
            link.parent.mkdir(parents=True)
            os.link(files.path(first), link)
        banks = SlotBanks(loaded, slots=2, rank=RANK, large_rank=0)
        each = pack(files.load(first), banks, loaded.sha256).nbytes
        banks.close()
        host_mb = max(1, round(each * count * (host_share or 1.0) / 2**20))
        (home / "likeness.toml").write_text(f'base = "{base}"\nrank = {RANK}\nhost_mb = {host_mb}\nslots = 10\n')
        with local_cluster(home / "ray", cpus=8, gpus=0, port=free_port()):
            yield Cluster(home), [engine_key_of("local", f"a{i}", files.sha256s[0]) for i in range(count)]


def request_of(seed: int, steps: int) -> ImageRequest:
    return ImageRequest("portrait of <<TOK>> person", seed=seed, steps=steps, guidance_scale=1.0)


def asked(engine: ImageEngine, key: str, seed: int, *, steps: int) -> tuple[GeneratedImage, float]:
    """One image, and the seconds until it came."""
    started_s = time.perf_counter()
    image = engine.submit(request_of(seed, steps), adapters=(WeightedAdapter(key),)).result()
    return image, time.perf_counter() - started_s


def ask_all(engine: ImageEngine, keys: Sequence[str], *, steps: int, clients: int) -> float:
    """Seconds for one image of each key, from so many threads."""
    started_s = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda one: asked(engine, one[1], one[0], steps=steps), enumerate(keys)))
    return time.perf_counter() - started_s


def hop(cluster: Cluster, keys: Sequence[str], images: int) -> tuple[list[Row], list[Goal]]:
    """In turn, so that other load affects both."""
    direct = build(settings_at(str(cluster.home)))
    around_s: dict[str, list[float]] = {"in this process": [], "a replica": []}
    with cluster.of(1) as remote:
        engines: dict[str, ImageEngine] = {"in this process": direct.engine, "a replica": remote}
        for k in range(images + 10):
            for name, engine in engines.items():
                image, seconds = asked(engine, keys[0], k, steps=1)
                if k >= 10:
                    around_s[name].append(seconds - image.seconds)
    direct.close()
    rows: list[Row] = [
        {"engine": name, "p50 ms": float(np.percentile(each, 50)) * 1e3, "p99 ms": float(np.percentile(each, 99)) * 1e3}
        for name, each in around_s.items()
    ]
    own, far = (np.array(each) * 1e3 for each in around_s.values())
    goals = [
        Goal(f"hop: p{q} of the added latency, ms", float(np.percentile(far, q) - np.percentile(own, q)), most, False)
        for q, most in ((50, 5.0), (99, 20.0))
    ]
    return rows, goals


def two(cluster: Cluster, keys: Sequence[str], *, steps: int, rounds: int) -> tuple[list[Row], list[Goal]]:
    rows: list[Row] = []
    for count in (1, 2):
        with cluster.of(count) as engine:
            ask_all(engine, keys, steps=1, clients=PEOPLE)
            best_s = min(ask_all(engine, keys, steps=steps, clients=PEOPLE) for _ in range(rounds))
        rows.append({"replicas": count, "images a second": len(keys) / best_s})
    speedup = float(str(rows[1]["images a second"])) / float(str(rows[0]["images a second"]))
    return rows, [Goal("two: images a second of 2 replicas over 1", speedup, 1.9, True)]


def warm(cluster: Cluster, keys: Sequence[str], requests: int, *, count: int) -> tuple[list[Row], list[Goal]]:
    weights = 1 / np.arange(1, len(keys) + 1)
    drawn = np.random.default_rng(0).choice(len(keys), requests, p=weights / weights.sum())
    shares: dict[str, float] = {}
    for name, router in {"affinity": ROUTER, "random": RANDOM_ROUTER}.items():
        with cluster.of(count, router=router) as engine:
            ask_all(engine, keys[::-1], steps=1, clients=PEOPLE)
            ask_all(engine, [keys[k] for k in drawn[: requests // 5]], steps=1, clients=PEOPLE)
            before = engine.facts()
            ask_all(engine, [keys[k] for k in drawn[requests // 5 :]], steps=1, clients=PEOPLE)
            after = engine.facts()
        hits, misses = after.host_hits - before.host_hits, after.host_misses - before.host_misses
        shares[name] = hits / (hits + misses)
    rows: list[Row] = [{"router": name, "from a warm replica %": share * 100} for name, share in shares.items()]
    return rows, [Goal("warm: % of the requests", shares["affinity"] * 100, 92.0, True)]


def kill(
    cluster: Cluster, keys: Sequence[str], *, steps: int, requests: int, every_s: float
) -> tuple[list[Row], list[Goal]]:
    """The busiest of three replicas is killed again and again. A request that gets a Retry-After is sent again."""
    numbers, taking = iter(range(requests)), threading.Lock()
    answers, lost, again = Counter[int](), list[str](), list[float]()

    def keep_asking() -> None:
        while True:
            with taking:
                k = next(numbers, None)
            if k is None:
                return
            try:
                ask_until_answered(k)
            except Exception as error:
                lost.append(type(error).__name__)

    def ask_until_answered(k: int) -> None:
        while True:
            try:
                ticket = engine.submit(request_of(k, steps), adapters=(WeightedAdapter(keys[k % len(keys)]),))
                ticket.add_done_callback(lambda done: answers.update([k] * has_image(done, k)))
                ticket.result()
                return
            except EngineBusy as busy:
                again.append(busy.retry_after_s)
                time.sleep(busy.retry_after_s)

    kills, next_s = 0, list[float]()
    with cluster.of(3) as engine:
        ask_all(engine, keys, steps=1, clients=PEOPLE)
        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(keep_asking) for _ in range(4)]
            while wait(asking, timeout=every_s).not_done:
                states = engine.states("")
                holders = [state for state in states if state.held]
                if len(states) < 2 or not holders:  # no neighbour that could answer
                    continue
                victim = max(holders, key=lambda state: (state.facts.running, len(state.held)))
                os.kill(victim.process_id, signal.SIGKILL)
                kills += 1
                next_s.append(asked(engine, min(victim.held), 0, steps=1)[1])
    twice = sum(count > 1 for count in answers.values())
    rows: list[Row] = [{
        "requests": requests, "answered": len(answers), "kills": kills, "lost": len(lost), "answered twice": twice,
        "sent again by the client": len(again), "next image of its adapters, slowest s": max(next_s, default=math.nan),
    }]  # fmt: skip
    return rows, [
        Goal("kill: requests lost", float(requests - len(answers)), 0.0, False),
        Goal("kill: requests answered twice", float(twice), 0.0, False),
        Goal("kill: seconds to the next image for its adapters", max(next_s, default=math.inf), 5.0, False),
    ]


def has_image(ticket: Ticket, seed: int) -> bool:
    """Whether a finished request was answered with its image."""
    try:
        return ticket.result(0).request.seed == seed
    except Exception:
        return False


def blend(cluster: Cluster, keys: Sequence[str], *, steps: int, rounds: int) -> tuple[list[Row], list[Goal]]:
    """Eight people's images at once by an engine of this process, with one adapter each and with two, in turn."""
    likeness = build(settings_at(str(cluster.home)))
    best_s = {"one": math.inf, "two": math.inf}
    for k in range(rounds + 1):
        for name, more in {"one": (), "two": (WeightedAdapter(keys[8], 0.6),)}.items():
            started_s = time.perf_counter()
            tickets = [
                likeness.engine.submit(request_of(seed, steps), adapters=(WeightedAdapter(key), *more))
                for seed, key in enumerate(keys[:8])
            ]
            for ticket in tickets:
                ticket.result()
            if k:  # adapters are loaded in the first round
                best_s[name] = min(best_s[name], time.perf_counter() - started_s)
    likeness.close()
    rows: list[Row] = [{"adapters": name, "eight images s": seconds} for name, seconds in best_s.items()]
    more_percent = 100 * (best_s["two"] / best_s["one"] - 1)
    return rows, [Goal("blend: % of two adapters an image over one", more_percent, 10.0, False)]


def measured(args: argparse.Namespace, done: Callable[[str, list[Row], list[Goal]], None]) -> None:
    """Call `done` with each part of `args.parts` when it is measured."""
    if set(args.parts) - {"warm"}:
        with installed(args.base, PEOPLE) as (cluster, keys):
            if "hop" in args.parts:
                done("hop", *hop(cluster, keys, args.images))
            if "two" in args.parts:
                done("two", *two(cluster, keys, steps=args.steps, rounds=args.rounds))
            if "kill" in args.parts:
                requests, every_s = args.killed_requests, args.kill_every_s
                done("kill", *kill(cluster, keys, steps=args.steps, requests=requests, every_s=every_s))
            if "blend" in args.parts:
                done("blend", *blend(cluster, keys, steps=args.steps, rounds=args.rounds))
    if "warm" in args.parts:
        with tempfile.TemporaryDirectory() as folder:
            base = str(build_tiny_folder(Path(folder)))
            with installed(base, args.adapters, host_share=1.5 / args.replicas) as (cluster, keys):
                done("warm", *warm(cluster, keys, args.requests, count=args.replicas))
