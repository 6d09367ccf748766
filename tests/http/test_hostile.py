"""Malformed, too large and too slow requests and disconnects get clear errors and do not affect other requests."""

import asyncio
import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock
from urllib.parse import urlsplit

import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from starlette.types import Message, Scope

from fixtures.waiting import HANG_S, until
from likeness.deploy.extension import protocols
from likeness.diffusion import sampling
from likeness.http import app as app_module
from likeness.http import boundary, server
from likeness.http.app import create_app
from likeness.http.failures import RequestTooSlow
from likeness.service import Likeness
from likeness.service.training import Training
from likeness.types import Adapter
from tests.http.conftest import pixels, running

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "prompt",
    "adapter",
    "negative_prompt",
    "n",
    "seed",
    "steps",
    "guidance_scale",
    "sampler",
    "model",
    "size",
    "name",
]
JSON = {"content-type": "application/json"}
BOMBS = [b"[" * 300_000, b'{"a":' * 60_000, b"9" * 300_000, b"\xff\xfe", b'"\\ud800"', b"", b"1e999"]
BODIES = st.dictionaries(st.sampled_from(FIELDS), ANY_JSON, max_size=4) | ANY_JSON
ROUTES = ["/v1/images", "/v1/subjects", "/openai/v1/images/generations", "/endpoints/avatars/invocations"]
SHAPES: dict[str, Callable[[Any], bool]] = {
    "/v1": lambda said: said["error"].keys() == {"code", "message", "hint"},
    "/ope": lambda said: said["error"].keys() == {"message", "type", "param", "code"},
    "/end": lambda said: "Message" in said,
}


def is_shaped(path: str, answer: Any) -> bool:
    """Whether an error is in its protocol's own shape."""
    return next(check(answer.json()) for start, check in SHAPES.items() if path.startswith(start))


@given(route=st.sampled_from(ROUTES), body=BODIES)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_sent_gets_an_answer_in_the_protocols_shape(client: TestClient, route: str, body: object) -> None:
    if isinstance(body, dict) and set(body) <= {"name", "prompt"}:
        body = {**body, "steps": 0}  # nothing that would make pictures or subjects for minutes
    content = json.dumps(body).encode()
    headers = {"content-type": "application/json", "X-Amzn-SageMaker-Target-Model": "anna.tar.gz"}
    answer = client.post(route, content=content, headers=headers)
    assert 400 <= answer.status_code < 500
    assert is_shaped(route, answer)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("body", BOMBS)
def test_json_bombs(client: TestClient, route: str, body: bytes) -> None:
    headers = {"content-type": "application/json", "X-Amzn-SageMaker-Target-Model": "anna.tar.gz"}
    answer = client.post(route, content=body, headers=headers)
    assert 400 <= answer.status_code < 500
    assert is_shaped(route, answer)


@pytest.mark.parametrize("route", ROUTES)
def test_a_prompt_of_a_megabyte(client: TestClient, route: str) -> None:
    words = "x" * (1 << 20)
    tensor = {"name": "prompt", "shape": [1, 1], "datatype": "BYTES", "data": [words]}
    body = {"inputs": [tensor]} if route.startswith("/endpoints") else {"prompt": words}
    answer = client.post(route, json=body, headers={"X-Amzn-SageMaker-Target-Model": "anna.tar.gz"})
    assert answer.status_code in (400, 413, 424)
    assert is_shaped(route, answer) and "xxxx" not in answer.text


FORMS = ["/v1/adapters/import", "/v1/backup", "/v1/jobs/photos", "/v1/subjects/anna/photos"]


@pytest.mark.parametrize("route", FORMS)
@pytest.mark.parametrize(
    "media_type",
    [
        "application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded ; charset=utf-8", "text/plain", "",
        "application/json", "multipart/mixed; boundary=x",
    ],
)  # fmt: skip
def test_a_form_is_multipart_or_not_parsed_at_all(
    client: TestClient, route: str, media_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsing(*given: object, **more: object) -> None:
        raise AssertionError("the body was parsed")

    monkeypatch.setattr("starlette.requests.FormParser.parse", parsing)
    answer = client.post(route, content=b"&" * 100_000, headers={"content-type": media_type})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "MediaTypeRefused")


def test_every_route_with_a_form_is_known_to_the_boundary(app: FastAPI) -> None:
    with_form = {
        path
        for path, verbs in app.openapi()["paths"].items()
        if "multipart/form-data" in verbs.get("post", {}).get("requestBody", {}).get("content", ())
    }
    assert with_form == {route.replace("anna", "{name}") for route in FORMS}
    assert all(boundary.takes_form(route) for route in with_form)


def test_a_length_that_lies_and_one_that_is_missing(client: TestClient) -> None:
    headers = {"content-type": "application/json", "content-length": str(10**18)}
    assert client.post("/v1/images", content=b"{}", headers=headers).status_code == 413
    streamed = client.post("/v1/images", content=(b" " * 65536 for _ in range(40)), headers=JSON)
    assert streamed.status_code == 413


def test_an_adapter_deleted_under_way_fails_or_finishes_and_the_next_is_not_found(
    client: TestClient, likeness: Likeness
) -> None:
    anna = likeness.adapter("anna")
    likeness.library.publish(Adapter(replace(anna.card, name="brief"), anna.weights), "local")
    answers: list[Any] = []
    asked = {"prompt": "x", "adapter": "brief", "steps": 30}
    thread = threading.Thread(target=lambda: answers.append(client.post("/v1/images", json=asked)))
    thread.start()
    until(lambda: likeness.engine.facts().running or not thread.is_alive())
    assert client.delete("/v1/adapters/brief").status_code == 200
    thread.join()
    assert answers[0].status_code in (200, 404)
    assert client.post("/v1/images", json=asked).status_code == 404
    assert client.post("/v1/images", json={"prompt": "x", "adapter": "anna", "steps": 1}).status_code == 200


def test_an_error_that_nobody_foresaw_says_nothing_but_its_id(
    likeness: Likeness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*given: object, **more: object) -> None:
        raise ZeroDivisionError("secret inner workings")

    monkeypatch.setattr(Likeness, "submit", failing)
    client = TestClient(create_app(likeness), base_url="http://localhost")
    for route, body in (("/v1/images", {"prompt": "x"}), ("/openai/v1/images/generations", {"prompt": "x"})):
        answer = client.post(route, json=body, headers={"X-Request-Id": "abc-1"})
        assert answer.status_code == 500 and is_shaped(route, answer)
        assert "secret" not in answer.text and answer.headers["x-request-id"] == "abc-1"
    assert any(record.exc_info and record.request_id == "abc-1" for record in caplog.records)  # type: ignore[attr-defined]


def test_the_log_tells_requests_by_id_and_no_words_of_theirs(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    from likeness.http.logs import JsonLines

    caplog.set_level("INFO")
    asked = {"prompt": "secret words", "adapter": "secret-name"}
    client.post("/v1/images", json=asked, headers={"X-Request-Id": "id-7"})
    client.get("/v1/secret-path", headers={"X-Request-Id": "has spaces and \x7f"})
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records if record.name == "likeness.http"]
    assert lines[0]["request_id"] == "id-7" and lines[0]["route"] == "/v1/images" and lines[0]["status"] == 404
    assert lines[1]["route"] == "unmatched" and len(lines[1]["request_id"]) == 32
    assert "secret" not in json.dumps(lines)


def test_a_background_task_goes_on_after_an_error_and_the_error_is_counted(
    likeness: Likeness, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, runs, errors = threading.Event(), [], [KeyError("x"), ZeroDivisionError()]

    def deliver(training: object) -> None:
        if errors:
            raise errors.pop()
        again.set()

    monkeypatch.setattr(app_module, "TEND_EVERY_S", 0.01)
    monkeypatch.setattr(Training, "deliver", deliver)
    monkeypatch.setattr(Training, "expire", lambda training: runs.append(1))
    with TestClient(create_app(likeness), base_url="http://localhost") as client:
        assert again.wait(HANG_S)
        until(lambda: runs)  # the others went on
        metrics = client.get("/metrics").text
    assert 'likeness_background_errors_total{task="deliver messages"} 2.0' in metrics


# over a real port


@pytest.fixture
def impatient(likeness: Likeness, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server whose patience is a fraction of a second."""
    monkeypatch.setattr(server, "HEAD_S", 0.5)
    app = create_app(likeness, protocols=protocols())
    app.user_middleware[0].kwargs["limits"] = boundary.BodyLimits(patience_s=0.5, least_bytes_per_s=1e5)
    with running(app) as address:
        yield address


def connected(address: str) -> socket.socket:
    parts = urlsplit(address)
    return socket.create_connection((parts.hostname, parts.port), timeout=HANG_S)


def head(length: int, path: str = "/v1/images", extra: str = "") -> bytes:
    kind = "Content-Type: application/json\r\n"
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{kind}Content-Length: {length}\r\n{extra}\r\n".encode()


def rest_of(line: socket.socket) -> bytes:
    got = b""
    while chunk := line.recv(65536):
        got += chunk
    return got


def healthy(address: str) -> bool:
    with connected(address) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        return b" 200 " in rest_of(line)[:20]


@pytest.mark.parametrize("start", [b"", b"POST /v1/im", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "])
def test_a_head_that_never_ends_is_hung_up_on(impatient: str, start: bytes) -> None:
    lines = [connected(impatient) for _ in range(20)]
    for line in lines:
        line.sendall(start)
    until(lambda: healthy(impatient))
    assert [rest_of(line) for line in lines] == [b""] * 20
    for line in lines:
        line.close()


def test_a_body_that_trickles_is_answered_408_in_the_protocols_shape(impatient: str) -> None:
    for path, status, word in (
        ("/v1/images", b"408", b"RequestTooSlow"),
        ("/endpoints/avatars/invocations", b"400", b"ValidationError"),
    ):
        with connected(impatient) as line:
            line.sendall(head(1000, path, "X-Amzn-SageMaker-Target-Model: anna.tar.gz\r\n") + b'{"prompt"')
            got = rest_of(line)
            assert got.startswith(b"HTTP/1.1 " + status) and word in got
            assert b"connection: close" in got.lower()


@pytest.mark.parametrize(("piece_bytes", "received"), [(200_000, 2_000_000), (20_000, 40_000)])
def test_an_upload_that_is_slow_but_steady_is_waited_for(
    piece_bytes: int, received: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece every ten seconds: more than the least rate, and less."""
    passed_s = [0.0]
    monkeypatch.setattr("likeness.http.boundary.time", SimpleNamespace(perf_counter=lambda: passed_s[0]))

    async def receive() -> Message:
        await asyncio.sleep(0)
        passed_s[0] += 10.0
        return {"type": "http.request", "body": bytes(piece_bytes), "more_body": passed_s[0] < 100.0}

    async def upload() -> int:
        scope: Scope = {"type": "http", "path": "/v1/images", "headers": []}
        limits = boundary.BodyLimits(json_bytes=1 << 22)
        passage = boundary.Passage(scope, receive, send=AsyncMock(), limits=limits, shapes={})
        with suppress(RequestTooSlow):
            while (await passage.receive())["more_body"]:
                pass
        return passage.received

    assert asyncio.run(upload()) == received


def test_a_body_of_two_lengths_is_refused_and_nothing_after_it_is_read(address: str) -> None:
    with connected(address) as line:
        line.sendall(head(5, extra="Transfer-Encoding: chunked\r\n") + b"2\r\n{}\r\n0\r\n\r\n")
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        got = rest_of(line)
    assert got.startswith(b"HTTP/1.1 400") and got.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in got.lower()


def test_what_is_no_http_is_hung_up_on(impatient: str) -> None:
    for nonsense in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"A" * 100_000 + b"\r\n\r\n", b"\0" * 100):
        with connected(impatient) as line:
            line.sendall(nonsense)
            assert b" 200 " not in rest_of(line)
    until(lambda: healthy(impatient))


def test_pictures_of_whoever_hangs_up_are_taken_back(likeness: Likeness, address: str) -> None:
    before = likeness.engine.facts()
    body = json.dumps({"prompt": "x", "adapter": "anna", "steps": 200, "n": 2, "guidance_scale": 1}).encode()
    for extra in ("", "Accept: text/event-stream\r\n"):
        with connected(address) as line:
            line.sendall(head(len(body), extra=extra) + body)
            until(lambda: likeness.engine.facts().running, pause_s=0.01)
        until(lambda: not likeness.engine.facts().running)
    after = likeness.engine.facts()
    assert after.cancelled - before.cancelled == 4
    assert after.images == before.images


def test_half_a_request_and_silence_is_no_request(address: str, likeness: Likeness) -> None:
    before = likeness.engine.facts().images
    with connected(address) as line:
        line.sendall(head(1000) + b'{"prompt": "x"}')
    assert healthy(address)
    assert likeness.engine.facts().images == before


def test_overload_is_said_at_once_and_what_was_taken_is_finished(
    fresh: Likeness, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses: list[tuple[int, str | None]] = []
    refused_some = threading.Event()

    def advance(*given: Any) -> None:
        assert refused_some.wait(HANG_S)
        sampling.advance(*given)

    monkeypatch.setattr("likeness.engine.device.advance", advance)
    client = TestClient(create_app(fresh), base_url="http://localhost")
    with client:

        def ask(seed: int) -> None:
            answer = client.post("/v1/images", json={"prompt": "x", "adapter": "anna", "steps": 4, "seed": seed})
            statuses.append((answer.status_code, answer.headers.get("retry-after")))

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(12)]
        for thread in threads:
            thread.start()
        until(lambda: statuses)
        refused_some.set()
        for thread in threads:
            thread.join()
        refused = [retry for status, retry in statuses if status == 503]
        assert {status for status, _ in statuses} == {200, 503}
        assert all(retry is not None and int(retry) >= 1 for retry in refused)
        assert client.post("/v1/images", json={"prompt": "x", "steps": 1}).status_code == 200  # at once again


def test_one_persons_broken_adapter_disturbs_nobody(client: TestClient) -> None:
    answers: dict[str, Any] = {}

    def ask(name: str) -> None:
        answers[name] = client.post("/v1/images", json={"prompt": "x", "adapter": name, "steps": 4, "seed": 3})

    ask("anna")
    alone = answers["anna"].json()["images"][0]["data"]

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("anna", "broken", "bert", "stranger", "zoe")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "anna": 200, "bert": 200, "broken": 422, "stranger": 409, "zoe": 404,
    }  # fmt: skip
    together = answers["anna"].json()["images"][0]["data"]
    assert np.abs(pixels(base64.b64decode(together)) - pixels(base64.b64decode(alone))).max() <= 1
