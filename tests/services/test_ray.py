"""A real Ray on loopback: an ingress, replicas of one thread each that are killed and scaled, training workers."""

import importlib.util
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixtures.contrast import build_contrasted_folder
from fixtures.installation import Installation, parent_of, pids_with
from fixtures.published import publish_person
from fixtures.ray_cluster import RayCluster, ReplicaFacts, ray_cluster
from fixtures.waiting import until
from likeness.config import settings_from
from likeness.service import Likeness, build
from likeness.storage.api_keys import new_key
from likeness.types import BARE_BASE, ImageRequest, blend_of

if importlib.util.find_spec("ray") is None:
    pytest.skip("the extra `ray` is not installed", allow_module_level=True)

pytestmark = [pytest.mark.services, pytest.mark.slow]

NAMES = ("anna", "bert", "cleo", "dora", "emil", "fred")
STEPS = 3


@dataclass(frozen=True, eq=False)
class Cluster:
    """A running cluster.

    Args:
        keys: tenant -> key.
        likeness: the same installation in this process, with an engine of its own.
    """

    ray: RayCluster
    keys: dict[str, str]
    likeness: Likeness

    def ask(self, method: str, path: str, body: object = None, *, tenant: str = "local", accept: str = "*/*") -> Any:
        request = urllib.request.Request(
            self.ray.address + path, None if body is None else json.dumps(body).encode(), method=method,
            headers={
                "Authorization": f"Bearer {self.keys[tenant]}", "Content-Type": "application/json", "Accept": accept,
            },
        )  # fmt: skip
        return urllib.request.urlopen(request, timeout=300)

    def refusal(self, name: str, *, tenant: str = "local") -> int:
        """The status of a request that is refused."""
        try:
            self.picture(name, 1, tenant=tenant)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        return 200

    def picture(self, name: str, seed: int, *, tenant: str = "local", **more: object) -> np.ndarray:
        """One picture of the cluster, (H, W, 3)."""
        adapters = [{"name": one.name, "weight": one.weight} for one in blend_of(name)]
        body = {"prompt": "a portrait", "seed": seed, "steps": STEPS, "adapter": adapters or None, **more}
        with self.ask("POST", "/v1/images", body, tenant=tenant, accept="image/png") as answer:
            return np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB"))

    def here(self, name: str, seed: int) -> np.ndarray:
        """The same picture, made in this process."""
        (image,) = self.likeness.generate([ImageRequest("a portrait", blend_of(name), seed=seed, steps=STEPS)])
        return image.image

    def states(self) -> dict[int, ReplicaFacts]:
        return self.ray.states()


@dataclass
class Traffic:
    """Pictures that threads ask for all the time; what they got."""

    cluster: Cluster
    got: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    errors: list[BaseException] = field(default_factory=list)

    @contextmanager
    def running(self, threads: int, *, most: int | None = None) -> Iterator[None]:
        """Ask while the block runs, or until `most` answers have come; then wait for the last answers."""
        numbers, ended = count(), threading.Event()

        def ask() -> None:
            while not ended.is_set() and ((number := next(numbers)) < (most or sys.maxsize)):
                name = NAMES[number % len(NAMES)]
                try:
                    self.got[name, number] = self.cluster.picture(name, number, keep=most is not None)
                except Exception as error:
                    self.errors.append(error)

        with ThreadPoolExecutor(threads) as pool:
            asking = [pool.submit(ask) for _ in range(threads)]
            try:
                yield
                if most is not None:
                    until(lambda: all(one.done() for one in asking))
            finally:
                ended.set()

    def has(self, answers: int) -> bool:
        return len(self.got) + len(self.errors) >= answers

    def right(self) -> None:
        """Every request had its picture."""
        assert self.errors == []
        sample = list(self.got.items())[:: max(1, len(self.got) // 6)]
        for (name, seed), picture in sample:
            assert difference(picture, self.cluster.here(name, seed)) <= 1


def difference(one: np.ndarray, other: np.ndarray) -> int:
    """The largest difference of two pictures, in levels of 0 to 255."""
    return int(np.abs(one.astype(int) - other).max())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    home = Path(tempfile.mkdtemp(prefix="lk-"))  # short: Ray's sockets lie there
    base = build_contrasted_folder(home / "base")
    (home / "likeness.toml").write_text(f'base = "{base}"\nslots = 8\nmax_batch = 4\ndeadline_s = 86400\n')
    with ray_cluster_of(home) as cluster:
        yield cluster
    until(lambda: not processes_of(home))
    shutil.rmtree(home)


@contextmanager
def ray_cluster_of(home: Path) -> Iterator[Cluster]:
    likeness = build(settings_from({}, home=home))
    try:
        for seed, name in enumerate(NAMES, 1):
            publish_person(likeness, name, seed)
        publish_person(likeness, "anna", 50, tenant="other")
        keys = {tenant: new_key(likeness.catalog, tenant)[0] for tenant in ("local", "other")}
        with ray_cluster(home) as ray:
            yield Cluster(ray, keys, likeness)
    finally:
        likeness.close()


def processes_of(home: Path) -> list[int]:
    """Processes of the cluster: their standard output and error, or their arguments, are below its folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (
                str(home / "ray").encode() in (entry / "cmdline").read_bytes()
                or os.readlink(entry / "fd" / "2").startswith(str(home))
            ):
                found.append(int(entry.name))
    return found


# one replica


def test_the_pictures_are_those_of_a_single_engine(cluster: Cluster) -> None:
    for name in ("anna", "bert", "anna+bert@0.5", BARE_BASE):
        assert difference(cluster.picture(name, 7), cluster.here(name, 7)) <= 1
    assert difference(cluster.picture("anna", 7), cluster.picture("bert", 7)) > 8


def test_every_socket_of_the_cluster_is_on_loopback(cluster: Cluster) -> None:
    mine = {f"socket:[{inode}]" for inode in inodes_off_loopback()}
    processes = processes_of(cluster.likeness.home.root)
    assert len(processes) > 8
    for pid in processes:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                assert os.readlink(entry) not in mine, Path(f"/proc/{pid}/cmdline").read_bytes()


def inodes_off_loopback() -> set[str]:
    """Listening TCP sockets of this machine on any other address. Source: proc_pid_net(5)."""
    found = set()
    for file in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]:
            words = line.split()
            address = words[1].partition(":")[0]
            if words[3] == "0A" and not address.endswith("0100007F") and address != "0" * 24 + "01000000":
                found.add(words[9])
    return found


def test_previews_cross_the_hop_and_a_client_that_leaves_cancels(cluster: Cluster) -> None:
    body = {"prompt": "a portrait", "adapter": "anna", "steps": 6}
    with cluster.ask("POST", "/v1/images", body, accept="text/event-stream") as stream:
        events = stream.read().decode().split("\n\n")
    steps = [json.loads(event.partition("data: ")[2]) for event in events if event.startswith("event: step")]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    assert [bool(step.get("preview")) for step in steps] == [False, False, False, False, True, False]
    assert events[-3].startswith("event: image") and events[-2].startswith("event: done")
    with cluster.ask("POST", "/v1/images", body | {"steps": 200}, accept="text/event-stream") as stream:
        assert stream.readline() == b"event: step\n"
    until(lambda: [(state.cancelled, state.running) for state in cluster.states().values()] == [(1, 0)])


def test_a_deadline_is_kept_at_the_replica(cluster: Cluster) -> None:
    assert cluster.ray.late() == "DeadlinePassed"


def test_tenants_are_isolated(cluster: Cluster) -> None:
    own, other = cluster.picture("anna", 3), cluster.picture("anna", 3, tenant="other")
    assert difference(own, other) > 8
    assert cluster.refusal("bert", tenant="other") == 404
    cluster.keys["nobody"] = "wrong"
    assert cluster.refusal("anna", tenant="nobody") == 401


# three


def test_replicas_join_under_traffic(cluster: Cluster) -> None:
    traffic = Traffic(cluster)
    with traffic.running(1):
        cluster.ray.scale(3)
    traffic.right()
    assert len(cluster.states()) == 3


def test_an_adapter_stays_at_its_replica_and_a_hot_one_spreads(cluster: Cluster) -> None:
    before = {pid: state.images for pid, state in cluster.states().items()}
    for seed in range(4):
        cluster.picture("dora", seed)
    after = {pid: state.images for pid, state in cluster.states().items()}
    assert sorted(after[pid] - before[pid] for pid in before) == [0, 0, 4]
    with ThreadPoolExecutor(20) as pool:

        def is_everywhere() -> bool:
            list(pool.map(lambda seed: cluster.picture("cleo", seed, steps=20), range(20)))
            return holders(cluster, "cleo") == 3

        until(is_everywhere)


def holders(cluster: Cluster, name: str) -> int:
    return sum(any(f"/{name}/" in key for key in state.held) for state in cluster.states().values())


def test_a_forgotten_adapter_has_left_the_memory_of_every_replica_when_the_answer_comes(cluster: Cluster) -> None:
    assert holders(cluster, "cleo") == 3
    with cluster.ask("DELETE", "/v1/adapters/cleo") as answer:
        assert answer.status == 200
    assert holders(cluster, "cleo") == 0
    assert cluster.refusal("cleo") == 404


def test_what_another_process_forgot_leaves_with_the_next_look(cluster: Cluster) -> None:
    assert holders(cluster, "dora") >= 1
    cluster.likeness.forget("dora")
    cluster.ray.drop_stale_adapters()  # as the ingress does every DROP_STALE_EVERY_S; it may have done it already
    assert holders(cluster, "dora") == 0


def test_replicas_are_killed_under_traffic_and_no_request_is_lost_or_answered_twice(cluster: Cluster) -> None:
    for name in ("cleo", "dora"):
        publish_person(cluster.likeness, name, 9)
    traffic, total, kept = Traffic(cluster), 40, outputs(cluster)
    with traffic.running(4, most=total):
        for answers in (8, 16, 24):
            until(partial(traffic.has, answers))
            until(lambda: len(cluster.states()) >= 2)
            os.kill(busiest(cluster), signal.SIGKILL)
    traffic.right()
    assert len(traffic.got) == total
    assert outputs(cluster) - kept == total


def busiest(cluster: Cluster) -> int:
    states = cluster.states()
    return max(states, key=lambda pid: states[pid].running)


def outputs(cluster: Cluster) -> int:
    """Kept images."""
    return sum(len(list((cluster.likeness.home.root / "objects/local/outputs" / name).glob("*"))) for name in NAMES)


def test_replicas_drain_and_leave_under_traffic(cluster: Cluster) -> None:
    until(lambda: len(cluster.states()) >= 2)
    traffic = Traffic(cluster)
    with traffic.running(1):
        cluster.ray.scale(1)
        until(lambda: len(cluster.states()) == 1)
    traffic.right()
    assert traffic.got


# training


def worker_of(cluster: Cluster) -> int:
    """The process of the one training worker."""
    (pid,) = set(pids_with("work")) & set(pids_with(str(cluster.likeness.home.root)))
    return pid


def test_a_worker_comes_for_a_job_and_goes_when_there_is_none(cluster: Cluster) -> None:
    installation = Installation(cluster.likeness.settings, cluster.likeness.training)
    assert cluster.ray.workers() == 0
    job = installation.submit("rex")
    until(lambda: installation.job(job).is_over)
    assert (installation.job(job).state, installation.job(job).failure) == ("succeeded", None)
    until(lambda: cluster.ray.workers() == 0)
    assert difference(cluster.picture("rex", 3), cluster.here("rex", 3)) <= 1


def test_a_killed_training_replica_loses_no_job(cluster: Cluster) -> None:
    installation = Installation(cluster.likeness.settings, cluster.likeness.training)
    job = installation.submit("max", steps=40, checkpoint_every=2)
    until(lambda: "checkpoint" in installation.kinds(job))
    first, worker = installation.job(job).worker, worker_of(cluster)
    for pid in (parent_of(worker), worker):  # so that nothing of it can end in order, as if its machine had gone
        os.kill(pid, signal.SIGKILL)
    until(lambda: installation.job(job).is_over)
    over = installation.job(job)
    assert (over.state, over.failure) == ("succeeded", None)
    assert over.worker != first and "taken over" in installation.kinds(job)
    until(lambda: cluster.ray.workers() == 0)
