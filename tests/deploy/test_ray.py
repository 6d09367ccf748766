"""The parts of the cluster on Ray without a cluster: routing, a request whose replicas end, options, manifest."""

import asyncio
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fixtures.waiting import until
from likeness.cli import app
from likeness.config import Settings
from likeness.deploy.affinity import LONGEST_QUEUE_S, choose, limit_of, place, ring_of
from likeness.engine.facts import ROWS, SECONDS, EngineFacts, Histogram, total
from likeness.engine.ticket import StepEvent
from likeness.errors import (
    EngineBusy,
    EngineClosed,
    LikenessError,
    RequestCancelled,
    SettingsError,
    StorageUnavailable,
    UsageError,
)
from likeness.types import GeneratedImage, ImageRequest

pytest.importorskip("ray", reason="the extra `ray` is not installed")

import ray
from ray.exceptions import ActorDiedError
from ray.serve.schema import ServeDeploySchema

from likeness.deploy.ray.application import ClusterOptions, application, replicas
from likeness.deploy.ray.local_cluster import MOST_PATH, device_shares, local_cluster
from likeness.deploy.ray.messages import QUEUE_S, Call, News, ReplicaState, Stage
from likeness.deploy.ray.remote_engine import RemoteEngine
from likeness.deploy.ray.replica import keys_after
from likeness.deploy.ray.router import AffinityRouter, follow_load, preferred
from likeness.deploy.ray.training import POLICY, Backlog, FollowBacklog, TrainingOptions, training

ROOT = Path(__file__).parents[2]
REQUEST = ImageRequest("a portrait", steps=3)
IMAGE = GeneratedImage(REQUEST, np.zeros((8, 8, 3), np.uint8), "0" * 64, None, 0.0)
Script = Callable[[Call], AsyncIterator[News]]


class Handle:
    """As much of a deployment's handle as a RemoteEngine uses: each call is answered by the next script."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts, self.calls, self.cancelled = list(scripts), list[Call](), threading.Event()

    def options(self, **options: object) -> "Handle":
        assert options == {"method_name": "make", "stream": True}
        return self

    def remote(self, routing_key: str, call: Call) -> Any:
        assert routing_key == call.routing_key
        self.calls.append(call)
        answer: Any = SimpleNamespace(cancel=self.cancelled.set)
        stream = self._scripts.pop(0)(call)

        class Answer:
            cancel = answer.cancel

            def __aiter__(self) -> AsyncIterator[News]:
                return stream

        return Answer()


def died() -> ActorDiedError:
    return ActorDiedError()


async def well(call: Call) -> AsyncIterator[News]:
    for news in (Stage.ACCEPTED, Stage.STARTED, StepEvent(1, 2), StepEvent(2, 2), IMAGE):
        yield news


async def lost_before_it_was_taken(call: Call) -> AsyncIterator[News]:
    if call:
        raise died()
    yield IMAGE


async def lost_in_the_queue(call: Call) -> AsyncIterator[News]:
    yield Stage.ACCEPTED
    raise died()


async def lost_while_it_was_made(call: Call) -> AsyncIterator[News]:
    for news in (Stage.ACCEPTED, Stage.STARTED, StepEvent(1, 2)):
        yield news
    raise died()


async def refused(call: Call) -> AsyncIterator[News]:
    yield EngineBusy("the queue is full", retry_after_s=7.0)


async def silent(call: Call) -> AsyncIterator[News]:
    yield Stage.ACCEPTED
    await asyncio.Future()


@pytest.fixture
def engine_over() -> Iterator[Callable[..., RemoteEngine]]:
    opened: list[RemoteEngine] = []

    def engine(handle: Handle) -> RemoteEngine:
        opened.append(RemoteEngine(SimpleNamespace(), handle, deadline_s=3600.0))  # type: ignore[arg-type]
        return opened[-1]

    yield engine
    for one in opened:
        one.close()


TIMES = ("load_s", "queue_s", "first_step_s", "total_s")


def facts(waiting: int = 0, rate: float | None = None, **failures: int) -> EngineFacts:
    some = Histogram(SECONDS, (waiting, *[0] * len(SECONDS)), float(waiting))
    rows = Histogram(ROWS, (1, *[0] * len(ROWS)), 1.0)
    numbers: Any = {field.name: 1 for field in fields(EngineFacts)}
    other = {"failures": failures, "row_steps_per_s": rate, "rows_per_step": rows, "waiting": waiting}
    return EngineFacts(**(numbers | dict.fromkeys(TIMES, some) | other))


class Replicas(Handle):
    """Broadcasts of `state` are answered for replicas with these keys."""

    def __init__(self, *held: Sequence[str]) -> None:
        super().__init__()
        self._held, self.bytes = held, list[int]()

    def broadcast(self, method: str, after: str | None) -> Any:
        assert method == "state"
        keys = [() if after is None else keys_after(held, after) for held in self._held]
        states = [ReplicaState(k, some, facts()) for k, some in enumerate(keys)]
        self.bytes += [len(pickle.dumps(state)) for state in states]
        return SimpleNamespace(results=lambda **_: states)


def test_replicas_with_many_keys_tell_them_in_small_parts(engine_over: Callable[..., RemoteEngine]) -> None:
    sha256 = "0" * 64
    held = [[f"tenant/adapters/person-{k}/{sha256}" for k in range(start, 2000, 3)] for start in (0, 1)]
    replicas = Replicas(*held, [])
    assert engine_over(replicas).held() == {*held[0], *held[1]}
    assert max(replicas.bytes) < 100_000  # above it, results go through Ray's object store


Over = Callable[[Handle], RemoteEngine]


def test_a_request_that_was_not_started_goes_to_other_replicas_until_one_makes_it(engine_over: Over) -> None:
    handle = Handle(lost_before_it_was_taken, lost_in_the_queue, lost_in_the_queue, lost_before_it_was_taken, well)
    ticket = engine_over(handle).submit(REQUEST)
    assert ticket.result() is IMAGE
    assert len(handle.calls) == 5


def test_a_request_that_was_started_is_made_again_once_and_no_step_is_told_twice(engine_over: Over) -> None:
    handle, steps = Handle(lost_while_it_was_made, well), list[int]()
    ticket = engine_over(handle).submit(REQUEST, on_step=lambda event: steps.append(event.step))
    assert ticket.result() is IMAGE
    assert steps == [1, 2]
    first_s, second_s = (call.deadline_s or 0.0 for call in handle.calls)
    assert 0 < second_s <= first_s


def test_the_second_loss_of_a_started_request_is_an_error_that_says_when_to_try_again(engine_over: Over) -> None:
    handle = Handle(lost_while_it_was_made, lost_in_the_queue, lost_while_it_was_made, well)
    with pytest.raises(EngineBusy, match="ended while they made") as raised:
        engine_over(handle).submit(REQUEST).result()
    assert (raised.value.code, raised.value.http_status) == ("ReplicaLost", 503)
    assert raised.value.retry_after_s > 0 and len(handle.calls) == 3


def test_a_refusal_is_raised_by_submit(engine_over: Over) -> None:
    with pytest.raises(EngineBusy) as raised:
        engine_over(Handle(refused)).submit(REQUEST)
    assert raised.value.retry_after_s == 7.0


def test_a_cancelled_request_is_cancelled_at_its_replica(engine_over: Over) -> None:
    handle = Handle(silent)
    ticket = engine_over(handle).submit(REQUEST)
    ticket.cancel()
    with pytest.raises(RequestCancelled):
        ticket.result()
    assert handle.cancelled.wait(60)


def test_a_replica_that_says_nothing_more_costs_no_more_than_the_deadline(
    engine_over: Over, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("likeness.deploy.ray.remote_engine.GRACE_S", 0.0)
    handle = Handle(silent)
    with pytest.raises(EngineBusy) as raised:
        engine_over(handle).submit(REQUEST, deadline_s=0.2).result()
    assert raised.value.code == "DeadlinePassed"
    assert handle.cancelled.wait(60)


def test_closing_fails_what_is_unfinished_and_refuses_the_next(engine_over: Over) -> None:
    engine = engine_over(Handle(silent))
    ticket = engine.submit(REQUEST)
    engine.close()
    with pytest.raises(EngineClosed):
        ticket.result()
    with pytest.raises(EngineClosed):
        engine.submit(REQUEST)


def test_many_threads_can_submit_at_once(engine_over: Over) -> None:
    engine = engine_over(Handle(*[well] * 40))
    with ThreadPoolExecutor(8) as pool:
        tickets = list(pool.map(lambda _: engine.submit(REQUEST), range(40)))
    assert all(ticket.result() is IMAGE for ticket in tickets)


# routing


@given(st.sets(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=6), st.text(max_size=8), st.data())
def test_the_first_replica_is_that_of_the_policy_and_the_others_follow_once_each(
    names: set[str], key: str, data: st.DataObject
) -> None:
    ring = ring_of(names)
    loads = {name: data.draw(st.integers(0, 9)) for name in sorted(names)}
    order = preferred(ring, key, loads)
    assert sorted(order) == sorted(names)
    assert order[0] == choose(ring, place(key) if key else None, loads, sum(loads.values()))
    if key:
        assert loads[order[0]] < limit_of(sum(loads.values()) + 1, len(names))


def routed(router: AffinityRouter, replicas: list[Any], key: str) -> str:
    pending: Any = SimpleNamespace(args=[key, None])
    ranks = asyncio.run(router.choose_replicas(replicas, pending))
    assert all(len(rank) == 1 for rank in ranks) and len(ranks) == len(replicas)
    return str(ranks[0][0].replica_id.unique_id)


def test_the_router_counts_what_it_sends_and_spreads_a_hot_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    router: Any = object.__new__(AffinityRouter)
    router._use_replica_queue_len_cache = False
    router.initialize_state()
    replicas: list[Any] = [SimpleNamespace(replica_id=Id(name)) for name in "abc"]
    first = routed(router, replicas, "anna")
    assert routed(router, replicas, "anna") == first  # choosing counts nothing
    used = []
    for number in range(24):
        used.append(routed(router, replicas, "anna"))
        router.on_send_request(Id(used[-1]))
        assert used[0] == first, number
    assert set(used) == set("abc") and max(map(used.count, "abc")) <= limit_of(24, 3)
    for name in used:
        router.on_request_completed(Id(name), "")
    assert not router._loads and routed(router, replicas, "anna") == first
    others = [one for one in replicas if one.replica_id.unique_id != first]
    assert routed(router, others, "anna") in {one.replica_id.unique_id for one in others}


class Id(str):
    """A replica's id, as the router uses it."""

    @property
    def unique_id(self) -> str:
        return str(self)


def scaled(images: float, now: int, *, running: int | None = None, waits_s: tuple[float, ...] = ()) -> int:
    context: Any = SimpleNamespace(
        total_num_requests=images, target_num_replicas=now, current_num_replicas=now if running is None else running,
        capacity_adjusted_min_replicas=1, capacity_adjusted_max_replicas=5,
        config=SimpleNamespace(target_ongoing_requests=8.0), aggregated_metrics={QUEUE_S: dict(enumerate(waits_s))},
    )  # fmt: skip
    return follow_load(context)[0]


@pytest.mark.parametrize(("images", "now", "wanted"), [(0, 3, 1), (8, 1, 1), (9, 1, 2), (100, 2, 5), (30, 4, 4)])
def test_the_number_of_replicas_follows_the_images(images: float, now: int, wanted: int) -> None:
    assert scaled(images, now) == wanted


def test_a_long_queue_asks_for_one_more_replica_once_all_run() -> None:
    long_s = LONGEST_QUEUE_S + 1
    assert scaled(4, 2, waits_s=(long_s, long_s)) == 3
    assert scaled(4, 3, running=2, waits_s=(long_s, long_s)) == scaled(4, 3)
    assert scaled(4, 2, waits_s=(long_s, 0.0)) == scaled(4, 2)
    assert scaled(4, 5, waits_s=(long_s,) * 5) == 5  # as many as there may be


# options


def test_the_facts_of_several_engines_are_added() -> None:
    both = total([facts(2, None, NotFound=1), facts(3, 4.0, NotFound=2, EngineBusy=1)])
    assert (both.waiting, both.running, both.row_steps_per_s) == (5, 2, 4.0)
    assert dict(both.failures) == {"NotFound": 3, "EngineBusy": 1}
    assert both.queue_s.count == 5 and both.queue_s.sum == 5.0 and both.rows_per_step.bounds == ROWS
    assert total([facts(0, None)]).row_steps_per_s is None


@pytest.mark.parametrize("args", [{"replica": 2}, {"replicas": 0}, {"replicas": 3, "most_replicas": 2}])
def test_wrong_options_are_refused(args: dict[str, object]) -> None:
    with pytest.raises((UsageError, SettingsError), match="expected"):
        application(args)


@pytest.mark.parametrize("args", [{"worker": 2}, {"workers": 0}, {"jobs": 0}])
def test_wrong_options_of_the_training_are_refused(args: dict[str, object]) -> None:
    with pytest.raises((UsageError, SettingsError), match="expected"):
        training(args)


@pytest.mark.parametrize(
    ("gpus", "replicas", "workers"), [(1, 1, 1), (1, 2, 1), (2, 3, 1), (4, 3, 3), (8, 8, 8), (2, 2, 0)]
)
def test_all_replicas_and_workers_find_a_place_on_the_gpus(gpus: int, replicas: int, workers: int) -> None:
    engine, worker = device_shares(gpus, replicas, workers)
    free = [1.0] * gpus
    for share in [*[engine] * replicas, *[worker] * workers]:  # as Ray does: a share lies on one device
        assert 0 < share <= 1
        place = next(i for i, left in enumerate(free) if left + 1e-9 >= share)
        free[place] -= share
    assert device_shares(0, replicas, workers) == (0.0, 0.0)


def test_a_folder_too_long_for_sockets_is_refused_before_anything_starts(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * MOST_PATH)
    with pytest.raises(LikenessError, match="sockets"), local_cluster(folder, cpus=1, gpus=0, port=8000):
        pass
    assert not folder.exists()


def test_fewer_most_replicas_than_replicas_are_refused() -> None:
    ran = CliRunner().invoke(app, ["deploy", "ray", "--replicas", "3", "--most-replicas", "2"])
    assert ran.exit_code == 2 and "--most-replicas" in ran.stderr


def test_the_manifest_is_a_serve_config_of_this_application() -> None:
    manifest = yaml.safe_load((ROOT / "docs/deploy/ray-service.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayService")
    config = ServeDeploySchema.model_validate(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
    served, trained = config.applications
    module, _, name = served.import_path.partition(":")
    assert (module, name) == (application.__module__, application.__name__)
    options = ClusterOptions(**served.args)
    assert trained.import_path == f"{training.__module__}:{training.__name__}" and trained.route_prefix is None
    workers_of = TrainingOptions(**trained.args)
    assert options.needs_keys and options.devices == 1 and (options.most_replicas or 0) > options.replicas
    cluster = manifest["spec"]["rayClusterConfig"]
    assert cluster["rayVersion"] == ray.__version__ and cluster["authOptions"] == {"mode": "token"}
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["maxReplicas"] >= (options.most_replicas or 0) + workers_of.workers * workers_of.devices
    for group in (cluster["headGroupSpec"], workers):
        (container,) = group["template"]["spec"]["containers"]
        names = {one["name"] for one in container["env"]}
        assert {"RAY_USAGE_STATS_ENABLED", "LIKENESS_HOME"} <= names
        assert container["envFrom"] == [{"secretRef": {"name": "likeness"}}]
    assert cluster["headGroupSpec"]["rayStartParams"]["include-dashboard"] == "true"  # the operator deploys through it


def test_the_number_of_replicas_is_fixed_or_follows_the_load() -> None:
    def scaling(**numbers: int) -> Any:
        bound: Any = replicas(ClusterOptions(**numbers))  # type: ignore[arg-type]
        return bound._bound_deployment._deployment_config

    fixed, following = scaling(replicas=2), scaling(replicas=2, most_replicas=5).autoscaling_config
    assert (fixed.num_replicas, fixed.autoscaling_config) == (2, None)
    assert (following.min_replicas, following.max_replicas) == (2, 5)
    assert following.target_ongoing_requests == Settings.max_batch
    assert following.policy.policy_function == f"{follow_load.__module__}:{follow_load.__name__}"


@pytest.mark.parametrize(("jobs", "wanted"), [(None, 3), (0, 0), (1, 1), (2, 1), (3, 2), (100, 4)])
def test_the_number_of_workers_follows_the_open_jobs(jobs: int | None, wanted: int) -> None:
    policy: Any = object.__new__(FollowBacklog)
    policy._jobs_of_worker, policy._backlog = 2, SimpleNamespace(open_jobs=jobs)
    context: Any = SimpleNamespace(target_num_replicas=3, capacity_adjusted_max_replicas=4)
    assert policy(context) == (wanted, {})


def test_a_database_that_is_away_leaves_the_number_of_workers_as_it_is() -> None:
    answers: Iterator[int | Exception] = iter([3, StorageUnavailable("away"), ValueError("?"), 1])

    def read() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    backlog, seen = Backlog(read), []
    for _ in range(4):
        backlog.look()
        seen.append(backlog.open_jobs)
    assert seen == [3, None, None, 1]


def test_training_starts_with_no_worker_and_follows_the_queue_of_its_home(tmp_path: Path) -> None:
    bound: Any = training({"home": str(tmp_path), "workers": 3, "jobs": 5, "idle_s": 60})
    scaling = bound._bound_deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.downscale_delay_s) == (0, 3, 60)
    assert scaling.policy.policy_function == POLICY
    assert scaling.policy.policy_kwargs == {"home": str(tmp_path), "jobs_of_worker": 5}
    policies = [FollowBacklog(**scaling.policy.policy_kwargs)]
    backlog = policies[0]._backlog
    until(lambda: backlog.open_jobs == 0)
    policies.clear()  # a policy that was replaced looks no more
    until(lambda: not any(thread.name == "likeness-backlog" for thread in threading.enumerate()))
