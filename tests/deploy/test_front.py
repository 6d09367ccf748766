"""What SageMaker does around a container, over a server that is only played: whatever it answers, somebody is answered.

tests/services/test_triton.py has the same front before a real tritonserver.
"""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from likeness.artifacts.triton.export import artifact
from likeness.deploy.triton.front import Front
from likeness.deploy.triton.hosted import HostedModel
from likeness.deploy.triton.server import Reply
from likeness.deploy.triton.sources import ArchiveSource, LibrarySource
from likeness.diffusion.base import load_base
from likeness.errors import (
    EngineBusy,
    HostUnavailable,
    LikenessError,
    ModelFailed,
    NotFound,
    StorageUnavailable,
)
from likeness.storage.objects import FileObjects
from likeness.types import Adapter
from tests.engine.people import person
from tests.tiny import build_tiny_folder
from tests.waiting import HANG_S, until

NAMES = ("anna", "bert", "cleo")


@dataclass
class PlayedServer:
    """Answers as tritonserver does in SageMaker's mode, with room for so many models."""

    folder: Path
    room: int = 99
    is_alive: bool = True
    starts: int = 0
    urls: dict[str, str] = field(default_factory=dict)  # by the id of a loaded model
    calls: Counter[str] = field(default_factory=Counter)
    gate: threading.Event | None = None  # invocations wait for it
    refuse_start: bool = False
    answer: Callable[[str], Reply | None] = lambda id: None  # instead of a picture
    dead: set[str] = field(default_factory=set)  # folders whose process has died

    def start(self) -> None:
        if self.refuse_start:
            raise HostUnavailable("tritonserver ended at its start")
        self.folder.mkdir(exist_ok=True)
        self.starts, self.is_alive = self.starts + 1, True
        self.urls.clear()
        self.dead.clear()

    def stop(self) -> None:
        self.is_alive = False

    def stubs(self) -> dict[int, str]:
        return {i: f"stub {url}/x" for i, url in enumerate(self.urls.values()) if url not in self.dead}

    def call(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None, timeout_s: float
    ) -> Reply:
        if not self.is_alive:
            raise HostUnavailable("expected an answer of tritonserver, got ConnectionRefusedError")
        _, first, id, verb = (*path.split("/"), "", "")[:4]
        self.calls[f"{method} {verb or first}"] += 1
        if path == "/ping":
            return said(200)
        if (method, path) == ("POST", "/models"):
            asked = json.loads(body)
            if len(self.urls) >= self.room:
                return said(507, "no room")
            assert list(Path(asked["url"]).glob("*/config.pbtxt"))
            self.urls[asked["model_name"]] = asked["url"]
            return said(200)
        if id not in self.urls:
            return said(404, "not loaded")
        if method == "DELETE":
            del self.urls[id]
            return said(200)
        if self.gate is not None:
            assert self.gate.wait(HANG_S)
        if self.urls.get(id) in self.dead:
            return said(400, "Stub process 'x' is not healthy.")
        return self.answer(id) or Reply(200, "application/json", id.encode())


def said(status: int, error: str = "") -> Reply:
    return Reply(status, "application/json", json.dumps({"error": error}).encode())


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> FileObjects:
    folder = tmp_path_factory.mktemp("front")
    base = load_base(str(build_tiny_folder(folder / "base")), device=torch.device("cpu"), dtype=torch.float32)
    objects = FileObjects(folder / "archives")
    for seed, name in enumerate(NAMES, 1):
        objects.put(f"{name}.tar.gz", artifact(person(base, name, seed)))
    return objects


@pytest.fixture
def server(tmp_path: Path) -> PlayedServer:
    return PlayedServer(tmp_path / "t")


@pytest.fixture
def front(server: PlayedServer, objects: FileObjects) -> Iterator[Front]:
    with Front(server, ArchiveSource(objects), most_models=2, most_waiting=4, invoke_s=HANG_S, check_s=0) as opened:  # type: ignore[arg-type]
        yield opened


def ask(front: Front, name: str = "anna") -> Reply:
    return front.invoke(f"{name}.tar.gz", b"{}", content_type="application/json")


def at_once(count: int, call: Callable[[], Reply]) -> list[Reply | LikenessError]:
    outcomes: list[Reply | LikenessError] = []

    def one() -> None:
        try:
            outcomes.append(call())
        except LikenessError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_many_who_ask_together_load_once(front: Front, server: PlayedServer) -> None:
    outcomes = at_once(8, lambda: ask(front))
    assert len({outcome.body for outcome in outcomes if isinstance(outcome, Reply)}) == 1 and len(outcomes) == 8
    assert (server.calls["POST models"], server.calls["POST invoke"]) == (1, 8)


def test_a_load_that_fails_fails_for_all_who_wait_and_leaves_nothing(front: Front, server: PlayedServer) -> None:
    server.room = 0
    outcomes = at_once(4, lambda: ask(front))
    assert [type(outcome) for outcome in outcomes] == [HostUnavailable] * 4
    assert front.loaded == () and not list(server.folder.rglob("config.pbtxt"))
    server.room = 9
    assert ask(front).status == 200


def test_no_room_unloads_whoever_was_not_asked_for_longest(front: Front, server: PlayedServer) -> None:
    server.room = 1
    ask(front, "anna")
    ask(front, "bert")
    assert front.loaded == ("bert.tar.gz",)
    assert (server.calls["POST models"], server.calls["DELETE models"], len(server.urls)) == (3, 1, 1)


def test_the_third_of_two_waits_for_an_idle_place(
    front: Front, server: PlayedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model in use is never unloaded: its DELETE would block the server."""
    server.gate = threading.Event()
    busy = [front.submit(f"{name}.tar.gz", b"{}", content_type="application/json") for name in ("anna", "bert")]
    until(lambda: server.calls["POST invoke"] == 2)
    waits = threading.Event()
    idle = front._idle

    def looked() -> list[HostedModel]:
        waits.set()
        return idle()

    monkeypatch.setattr(front, "_idle", looked)
    third = front.submit("cleo.tar.gz", b"{}", content_type="application/json")
    assert waits.wait(HANG_S)
    assert len(server.urls) == 2 and not third.done()
    server.gate.set()
    assert all(one.result(HANG_S).body for one in (*busy, third))
    assert "cleo.tar.gz" in front.loaded and len(front.loaded) == 2


def test_when_all_places_stay_in_use_the_host_says_so(
    front: Front, server: PlayedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "_invoke_s", 0.1)
    server.gate = threading.Event()
    for name in ("anna", "bert"):
        front.submit(f"{name}.tar.gz", b"{}", content_type="application/json")
    until(lambda: server.calls["POST invoke"] == 2)
    with pytest.raises(HostUnavailable, match="in use"):
        ask(front, "cleo")
    server.gate.set()


def test_a_server_that_forgot_a_model_is_told_again_once(front: Front, server: PlayedServer) -> None:
    ask(front)
    server.urls.clear()
    assert ask(front).status == 200
    assert server.calls["POST models"] == 2
    server.answer = lambda id: said(404, "gone")
    with pytest.raises(ModelFailed):
        ask(front)


def test_a_refusal_is_passed_on_and_not_tried_again(front: Front, server: PlayedServer) -> None:
    server.answer = lambda id: said(400, "UsageError: expected steps")
    with pytest.raises(ModelFailed, match="expected steps") as refused:
        ask(front)
    assert refused.value.status == 400 and server.calls["POST invoke"] == 1
    server.answer = lambda id: Reply(500, "text/html", b"<html>")
    with pytest.raises(ModelFailed, match="no reason"):
        ask(front)


def test_a_dead_process_that_a_request_reaches_costs_a_restart_not_the_request(
    front: Front, server: PlayedServer
) -> None:
    ask(front)
    server.dead.update(server.urls.values())
    assert ask(front).status == 200
    assert server.starts == 2


def test_a_check_unloads_who_has_no_process_and_restarts_who_does_not_answer(
    front: Front, server: PlayedServer
) -> None:
    ask(front, "anna")
    ask(front, "bert")
    server.dead.add(next(iter(server.urls.values())))
    front.check()
    assert (front.loaded, server.starts) == (("bert.tar.gz",), 1)
    server.is_alive = False
    front.check()
    assert (list(front.loaded), server.starts) == ([], 2)
    assert ask(front, "bert").status == 200


def test_a_check_asks_for_a_picture_when_nobody_had_one_for_a_while(server: PlayedServer, objects: FileObjects) -> None:
    """/ping answers 200 whatever hangs behind it."""
    with Front(server, ArchiveSource(objects), check_s=0, canary_s=0) as front:  # type: ignore[arg-type]
        front.check()  # nothing is loaded
        ask(front)
        front.check()
        assert (server.calls["POST invoke"], server.starts) == (2, 1)
        server.answer = lambda id: said(400, "EngineBusy: many wait already")
        front.check()  # a refusal is an answer
        assert (server.calls["POST invoke"], server.starts) == (3, 1)
        server.answer = lambda id: said(400, "Stub process 'x' is not healthy.")
        front.check()
        assert (front.loaded, server.starts) == ((), 2)
        server.answer = lambda id: None
        ask(front)
        server.answer = hang
        front.check()
        assert (front.loaded, server.starts) == ((), 3)
        server.answer = lambda id: None
        assert ask(front).status == 200


def hang(id: str) -> Reply:
    raise HostUnavailable("expected an answer of tritonserver, got TimeoutError")


def test_a_check_asks_nobody_who_is_busy_nor_soon_after_a_picture(front: Front, server: PlayedServer) -> None:
    ask(front)
    front.check()
    assert server.calls["POST invoke"] == 1


def test_a_model_may_be_loaded_before_anybody_asks(front: Front, server: PlayedServer) -> None:
    for _ in range(2):
        front.load("anna.tar.gz")
    assert front.loaded == ("anna.tar.gz",)
    assert (server.calls["POST models"], server.calls["POST invoke"]) == (1, 0)
    with pytest.raises(NotFound):
        front.load("nobody.tar.gz")


def test_a_server_that_does_not_start_is_an_error_and_may_come_back(front: Front, server: PlayedServer) -> None:
    server.is_alive, server.refuse_start = False, True
    with pytest.raises(HostUnavailable, match="start"):
        front.check()
    with pytest.raises(HostUnavailable):
        ask(front)
    server.refuse_start = False
    front.check()
    assert ask(front).status == 200


def test_too_many_who_wait_are_told_at_once(front: Front, server: PlayedServer) -> None:
    server.gate = threading.Event()
    waiting = [front.submit("anna.tar.gz", b"{}", content_type="application/json") for _ in range(4)]
    with pytest.raises(EngineBusy):
        front.submit("anna.tar.gz", b"{}", content_type="application/json")
    server.gate.set()
    assert all(one.result(HANG_S).body for one in waiting)


def test_an_archive_that_is_deleted_is_unloaded(front: Front, server: PlayedServer, objects: FileObjects) -> None:
    content = objects.get("cleo.tar.gz")
    ask(front, "cleo")
    objects.delete("cleo.tar.gz")
    try:
        with pytest.raises(NotFound):
            ask(front, "cleo")
        assert front.loaded == () and server.urls == {} and not list(server.folder.rglob("config.pbtxt"))
    finally:
        objects.put("cleo.tar.gz", content)


@dataclass
class ChangingSource:
    """Archives whose versions a test decides about."""

    archives: ArchiveSource
    versions: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    is_away: bool = False

    def version(self, target: str) -> str:
        if self.is_away:
            raise StorageUnavailable("expected an answer of the catalog's database, got OperationalError")
        if target in self.deleted:
            raise NotFound("there is no adapter of this name", code="AdapterNotFound")
        return self.versions.get(target, "1")

    def read(self, target: str) -> Adapter:
        return self.archives.read(target)


@pytest.fixture
def source(objects: FileObjects) -> ChangingSource:
    return ChangingSource(ArchiveSource(objects))


@pytest.fixture
def watching(server: PlayedServer, source: ChangingSource) -> Iterator[Front]:
    """A front that asks its source at every check."""
    with Front(server, source, check_s=0, source_s=0) as opened:  # type: ignore[arg-type]
        yield opened


def test_who_is_deleted_or_trained_anew_is_unloaded_though_nobody_asks(
    watching: Front, server: PlayedServer, source: ChangingSource
) -> None:
    for name in NAMES:
        ask(watching, name)
    watching.check()
    assert list(watching.loaded) == [f"{name}.tar.gz" for name in NAMES]
    source.deleted.add("anna.tar.gz")
    source.versions["bert.tar.gz"] = "2"
    watching.check()
    assert (list(watching.loaded), server.starts) == (["cleo.tar.gz"], 1)
    assert len(server.urls) == 1 and len(list(server.folder.rglob("config.pbtxt"))) == 1


def test_a_source_that_is_away_for_a_moment_unloads_nobody(
    watching: Front, server: PlayedServer, source: ChangingSource
) -> None:
    ask(watching)
    source.is_away = True
    watching.check()
    with pytest.raises(StorageUnavailable):  # whether anna is still there is not known
        ask(watching)
    assert watching.loaded == ("anna.tar.gz",)
    source.is_away = False
    assert ask(watching).status == 200
    assert server.calls["POST models"] == 1


def test_the_source_is_not_asked_at_every_check(server: PlayedServer, source: ChangingSource) -> None:
    with Front(server, source, check_s=0) as front:  # type: ignore[arg-type]
        ask(front)
        source.deleted.add("anna.tar.gz")
        front.check()
        assert front.loaded == ("anna.tar.gz",)


def test_a_check_that_fails_is_not_the_last(
    server: PlayedServer, source: ChangingSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Front(server, source, check_s=0.01, source_s=0) as front:  # type: ignore[arg-type]
        ask(front)
        asked = threading.Event()

        def fail(target: str) -> str:
            asked.set()
            raise ZeroDivisionError

        with monkeypatch.context() as broken:
            broken.setattr(source, "version", fail)
            assert asked.wait(HANG_S)
        source.deleted.add("anna.tar.gz")
        until(lambda: front.loaded == ())


class Untouched:
    """A catalog that nobody may ask."""

    def find_adapter(self, tenant: str, name: str) -> None:
        raise AssertionError("the catalog was asked")


@pytest.mark.parametrize(
    "target", ["anna.tar.gz", "a/../b.tar.gz", "a/b.zip", "/a/b.tar.gz", "a/b.tar.gz\n", "A/b.tar.gz"]
)
def test_a_target_that_names_no_tenant_and_adapter_reaches_no_catalog(target: str) -> None:
    with pytest.raises(NotFound):
        LibrarySource(SimpleNamespace(catalog=Untouched())).version(target)  # type: ignore[arg-type]
