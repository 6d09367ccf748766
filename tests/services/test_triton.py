"""A real tritonserver in SageMaker's multi-model mode, eight people, one engine."""

import json
import os
import signal
from collections.abc import Iterator

import pytest

from likeness.artifacts.triton.export import open_artifact
from likeness.deploy.triton.front import Front
from likeness.deploy.triton.server import TritonServer
from likeness.deploy.triton.sources import ArchiveSource
from likeness.engine.engine import Engine
from likeness.engine.gen_args import request_of
from likeness.engine.prompts import worded
from likeness.errors import ArchiveRefused, CorruptAdapter, LikenessError, ModelFailed, NotFound
from tests.services.hosting import (
    NAMES,
    PROMPT,
    World,
    asked,
    mean_difference,
    pictures,
    several_rows,
    skip_without_triton,
    together,
    world,
)  # fmt: skip
from tests.waiting import HANG_S, until

pytestmark = [pytest.mark.services, pytest.mark.slow]
JSON = "application/json"


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    skip_without_triton()
    with world() as made:
        yield made


@pytest.fixture(scope="module")
def server(here: World) -> TritonServer:
    return TritonServer(
        here.folder / "t", environment=here.environment(ENGINE_WATCH_PID=str(os.getpid()), ENGINE_DEADLINE_S="180")
    )


@pytest.fixture(scope="module")
def front(here: World, server: TritonServer) -> Iterator[Front]:
    with Front(
        server, ArchiveSource(here.objects), most_models=len(NAMES), invoke_s=200, check_s=0, canary_s=0
    ) as running:
        yield running
    for pid in [here.engine()["pid"]]:
        os.kill(int(str(pid)), signal.SIGTERM)


def ask(front: Front, name: str, body: bytes = b"") -> object:
    return front.invoke(f"{name}.tar.gz", body or asked(), content_type=JSON)


def stub_of(server: TritonServer, name: str) -> int:
    return next(pid for pid, line in server.stubs().items() if f"/{name}/1/model.py" in line)


def test_eight_people_one_by_one_and_together(here: World, front: Front) -> None:
    """Each is himself, alone and among others; those who ask together share forwards."""
    alone = {name: pictures(ask(front, name, asked(format="png")))[0] for name in NAMES}
    engine = here.engine()
    assert several_rows(engine) == 0
    outcomes = together({name: lambda name=name: ask(front, name, asked(format="png")) for name in NAMES})
    mixed = {name: pictures(outcome)[0] for name, outcome in outcomes.items()}
    assert several_rows(here.engine()) > 0
    assert here.engine()["pid"] == engine["pid"]
    for name in NAMES:
        assert mean_difference(mixed[name], alone[name]) < 1
        assert min(mean_difference(alone[name], alone[other]) for other in NAMES if other != name) > 3
    adapter = open_artifact(here.objects.get("anna.tar.gz"))
    request, _ = request_of(PROMPT, "a dog", '{"num_inference_steps": 3, "seed": 5}')
    with Engine(here.base, load=lambda key: adapter, slots=2) as own:
        expected = own.submit(worded(here.base, request, adapter.card), key="anna").result(HANG_S).image
    assert mean_difference(alone["anna"], expected) < 1


def test_rows_of_one_request_are_one_picture_each(front: Front) -> None:
    one, two, three = pictures(ask(front, "anna", asked("a man", "a woman", "a man", format="png")))
    assert mean_difference(one, three) < 1 < mean_difference(one, two)


def test_what_is_unloaded_comes_back(front: Front, server: TritonServer) -> None:
    ask(front, "bert")
    front.unload("bert.tar.gz")
    assert "bert.tar.gz" not in front.loaded
    assert not [line for line in server.stubs().values() if "/bert/" in line]
    assert not list((server.folder / "models").glob("*/model/bert"))
    assert pictures(ask(front, "bert"))


def test_the_longest_unused_makes_room(front: Front) -> None:
    for name in NAMES:
        ask(front, name)
    assert pictures(ask(front, "iris"))
    assert front.loaded == tuple(f"{name}.tar.gz" for name in (*NAMES[1:], "iris"))


def test_refusals_name_their_reason_and_repeat_nothing(front: Front) -> None:
    with pytest.raises(NotFound):
        ask(front, "nobody")
    with pytest.raises((ArchiveRefused, CorruptAdapter)):
        ask(front, "damaged")
    with pytest.raises(ModelFailed, match="base") as foreign:
        ask(front, "foreign")
    with pytest.raises(ModelFailed, match="UsageError: expected steps") as steps:
        ask(front, "hugo", asked("OOM in my ROOM", steps=0))
    body = json.loads(asked())
    body["inputs"] = [{"name": "prompt", "shape": [1, 2], "datatype": "BYTES", "data": ["a", "b"]}]
    with pytest.raises(ModelFailed, match="one UTF-8 text"):
        ask(front, "hugo", json.dumps(body).encode())
    assert foreign.value.status == steps.value.status == 400  # 507 would make SageMaker unload others
    assert "OOM" not in str(steps.value)
    assert pictures(ask(front, "hugo"))


def test_an_engine_killed_under_load(here: World, front: Front) -> None:
    """Who waits is answered by the next engine; who was begun, at most four at a time, gets one clear error."""
    for name in NAMES[:7]:
        ask(front, name)
    engine = here.engine()
    killed: list[bool] = []

    def kill() -> None:
        until(lambda: here.engine()["running"] == 4)
        os.kill(int(str(engine["pid"])), signal.SIGKILL)
        killed.append(True)

    work = {name: lambda name=name: ask(front, name, asked(steps=80)) for name in NAMES[:7]}
    outcomes = together({**work, "kill": kill})
    del outcomes["kill"]
    assert killed
    errors = [outcome for outcome in outcomes.values() if isinstance(outcome, LikenessError)]
    assert [str(error) for error in errors if "EngineStopped" not in str(error)] == []
    assert 1 <= len(errors) <= 4  # one of the four may end between the look and the blow
    assert all(pictures(outcome) for outcome in outcomes.values() if not isinstance(outcome, LikenessError))
    assert all(pictures(ask(front, name)) for name in NAMES[:7])
    assert here.engine()["pid"] != engine["pid"]


def test_a_check_finds_a_dead_engine_before_anybody_asks(here: World, front: Front, server: TritonServer) -> None:
    """It is started again, and nothing else is."""
    ask(front, "anna")
    engine, stubs = here.engine(), server.stubs()
    os.kill(int(str(engine["pid"])), signal.SIGKILL)
    front.check()
    assert here.engine()["pid"] != engine["pid"]
    assert server.stubs() == stubs


def test_a_dead_process_is_found_before_anybody_asks(front: Front, server: TritonServer) -> None:
    ask(front, "cleo")
    others = set(server.stubs()) - {stub_of(server, "cleo")}
    os.kill(stub_of(server, "cleo"), signal.SIGKILL)
    front.check()
    assert set(server.stubs()) == others  # the server was not restarted
    assert pictures(ask(front, "cleo"))


def test_a_dead_process_that_somebody_asks_first(here: World, front: Front, server: TritonServer) -> None:
    """The server must be started anew; the engine stays, and the request is answered."""
    engine = here.engine()
    ask(front, "cleo")
    ask(front, "dora")
    os.kill(stub_of(server, "cleo"), signal.SIGKILL)
    assert pictures(ask(front, "cleo"))
    assert front.loaded == ("cleo.tar.gz",)
    assert pictures(ask(front, "dora"))
    assert here.engine()["pid"] == engine["pid"]


def test_a_server_that_is_gone_is_started_again(front: Front, server: TritonServer) -> None:
    os.kill(server.guard_pid, signal.SIGKILL)
    front.check()
    assert pictures(ask(front, "anna"))
