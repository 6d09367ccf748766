"""Exported models in a real tritonserver in SageMaker's multi-model mode: eight people, one engine."""

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from fixtures.hosting import (
    NAMES,
    PROMPT,
    Endpoint,
    World,
    asked,
    mean_difference,
    pictures,
    several_rows,
    skip_without_triton,
    together,
    world,
)  # fmt: skip
from fixtures.triton_server import Reply, TritonServer
from fixtures.waiting import HANG_S, until
from likeness.artifacts.package import unpack
from likeness.artifacts.triton_model import read_model
from likeness.deploy.payload import request_of
from likeness.engine.engine import Engine
from likeness.engine.prompts import worded
from likeness.types import blend_of

pytestmark = [pytest.mark.services, pytest.mark.slow]


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    skip_without_triton()
    with world() as made:
        yield made


@pytest.fixture(scope="module")
def server(here: World) -> Iterator[TritonServer]:
    environment = here.environment(ENGINE_WATCH_PID=str(os.getpid()), ENGINE_DEADLINE_S="180")
    running = TritonServer(here.folder / "t", environment=environment)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def endpoint(here: World, server: TritonServer) -> Iterator[Endpoint]:
    opened = Endpoint(server, here.objects)
    for name in NAMES:
        assert opened.load(name).status == 200
    yield opened
    os.kill(int(str(here.engine()["pid"])), signal.SIGTERM)


def test_eight_people_one_by_one_and_together(here: World, endpoint: Endpoint) -> None:
    """The images of each person are equal alone and among others; requests at the same time share forward passes."""
    body = asked(format="png")
    alone = {name: pictures(endpoint.invoke(name, body))[0] for name in NAMES}
    engine = here.engine()
    assert several_rows(engine) == 0
    replies = together({name: partial(endpoint.invoke, name, body) for name in NAMES})
    mixed = {name: pictures(reply)[0] for name, reply in replies.items()}
    assert several_rows(here.engine()) > 0
    assert here.engine()["pid"] == engine["pid"]
    for name in NAMES:
        assert mean_difference(mixed[name], alone[name]) < 1
        assert min(mean_difference(alone[name], alone[other]) for other in NAMES if other != name) > 3
    adapter = read_model(unpack(here.objects.get("anna.tar.gz"), here.folder / "unpacked") / "anna")
    request, _ = request_of(PROMPT, "a dog", '{"num_inference_steps": 3, "guidance_scale": 7.5, "seed": 5}')
    with Engine(here.base, load=lambda key: adapter, slots=2) as own:
        words = worded(here.base, request, [adapter.card.subject])
        expected = own.submit(words, adapters=blend_of("anna")).result(HANG_S).image
    assert mean_difference(alone["anna"], expected) < 1


def test_rows_of_one_request_are_one_picture_each(endpoint: Endpoint) -> None:
    one, two, three = pictures(endpoint.invoke("anna", asked("a man", "a woman", "a man", format="png")))
    assert mean_difference(one, three) < 1 < mean_difference(one, two)


def test_an_unloaded_model_leaves_stub_and_engine_and_comes_back(
    here: World, endpoint: Endpoint, server: TritonServer
) -> None:
    before = pictures(endpoint.invoke("bert", asked(format="png")))[0]
    held = here.engine()["slots_held"]
    assert endpoint.unload("bert").status == 200
    assert not [line for line in server.stubs().values() if "/bert/" in line]
    assert here.engine()["slots_held"] == int(str(held)) - 1
    assert endpoint.invoke("bert", asked()).status == 404
    assert endpoint.load("bert").status == 200
    assert mean_difference(pictures(endpoint.invoke("bert", asked(format="png")))[0], before) < 1


def test_refusals_name_their_reason_and_repeat_nothing(endpoint: Endpoint) -> None:
    foreign = endpoint.load("foreign")
    steps = endpoint.invoke("hugo", asked("OOM in my ROOM", steps=0))
    body = json.loads(asked())
    body["inputs"] = [{"name": "prompt", "shape": [1, 2], "datatype": "BYTES", "data": ["a", "b"]}]
    two_texts = endpoint.invoke("hugo", json.dumps(body).encode())
    assert "base" in foreign.text
    assert "UsageError: expected steps" in steps.text
    assert "one UTF-8 text" in two_texts.text
    assert {reply.status for reply in (foreign, steps, two_texts)} == {400}  # SageMaker unloads other models at 507
    assert "OOM" not in steps.text
    assert pictures(endpoint.invoke("hugo", asked()))


def test_an_engine_killed_under_load(here: World, endpoint: Endpoint) -> None:
    """Requests that wait are answered by the next engine; those in progress, four at most, get one clear error."""
    names = NAMES[:7]
    engine = here.engine()

    def kill() -> None:
        until(lambda: here.engine()["running"] == 4)
        os.kill(int(str(engine["pid"])), signal.SIGKILL)

    def ask(name: str) -> Reply:
        return endpoint.invoke(name, asked(steps=80))

    with ThreadPoolExecutor(1) as killer:
        killed = killer.submit(kill)
        replies = together({name: partial(ask, name) for name in names})
        killed.result()
    failed = [reply for reply in replies.values() if reply.status != 200]
    assert [reply.text for reply in failed if "EngineStopped" not in reply.text] == []
    assert 1 <= len(failed) <= 4  # one of the four may end between the ping and the kill
    assert all(pictures(reply) for reply in replies.values() if reply.status == 200)
    assert all(pictures(endpoint.invoke(name, asked())) for name in names)
    assert here.engine()["pid"] != engine["pid"]


def test_a_dead_engine_is_started_again_by_the_next_request(
    here: World, endpoint: Endpoint, server: TritonServer
) -> None:
    engine, stubs = here.engine(), server.stubs()
    os.kill(int(str(engine["pid"])), signal.SIGKILL)
    assert pictures(endpoint.invoke("anna", asked()))
    assert here.engine()["pid"] != engine["pid"]
    assert server.stubs() == stubs
