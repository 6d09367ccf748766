"""`likeness train --remote` and `likeness jobs`: the same words on another machine, and what the queue says here."""

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fixtures.installation import PHOTOS, picture
from fixtures.waiting import until
from likeness.cli import app
from likeness.commands.remote import Remote, RemoteRefusal
from likeness.config import Settings
from likeness.errors import StorageUnavailable, UsageError
from likeness.http.app import create_app
from likeness.jobs.job import Failure, Job
from likeness.service import Likeness, build
from tests.http.conftest import running
from tests.worker.claims import claimed


@pytest.fixture(scope="module")
def likeness(tmp_path_factory: pytest.TempPathFactory, tiny_base_folder: Path) -> Iterator[Likeness]:
    made = build(Settings(home=tmp_path_factory.mktemp("home"), base=str(tiny_base_folder)))
    yield made
    made.close()


@pytest.fixture(scope="module")
def address(likeness: Likeness) -> Iterator[str]:
    with running(create_app(likeness)) as found:
        yield found


@pytest.fixture
def photo(tmp_path: Path) -> str:
    path = tmp_path / "1.jpg"
    path.write_bytes(picture(1))
    return str(path)


def fail(likeness: Likeness, failure: Failure) -> None:
    """What a worker would do, as soon as there is a job."""
    queue = likeness.training.queue

    def waiting() -> list[Job]:
        return [job for job in queue.jobs_of("local") if job.state == "queued"]

    until(waiting)
    claim = claimed(queue.database, job=waiting()[0].id)
    queue.store.tell(claim, "progress", {"stage": "train", "done": 3, "total": 9, "loss": 0.5, "images_per_s": 2.0})
    queue.store.finish(claim, "failed", failure=failure, keep_photos_s=0)


def test_the_photographs_go_there_and_the_end_comes_back(likeness: Likeness, address: str, photo: str) -> None:
    worker = threading.Thread(target=fail, args=(likeness, Failure("PhotosRefused", "too few photos", "send more")))
    worker.start()
    words = ["--json", "train", photo, "--name", "rex", "--class-noun", "dog", "--remote", address, "--steps", "5"]
    ran = CliRunner().invoke(app, words)
    worker.join()
    over = json.loads(ran.stdout)
    assert (ran.exit_code, over["state"], over["failure"]["hint"]) == (1, "failed", "send more")
    job = likeness.training.queue.status(over["id"], "local")
    assert (job.order.name, job.order.class_noun, dict(job.order.changes)) == ("rex", "dog", {"steps": 5})


@contextmanager
def cut_once(address: str, behind: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A way to the server that breaks off one response behind these bytes; its URL, and what was asked."""
    port, asked, cuts = int(address.rpartition(":")[2]), list[bytes](), [behind]

    class Way(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += self.rfile.readline()
            asked.append(request)
            with socket.create_connection(("127.0.0.1", port)) as server:
                server.sendall(request)
                while part := server.recv(1 << 16):
                    head, found, _ = part.partition(cuts[0] if cuts else b"\0")
                    self.wfile.write(head + found)
                    if found:
                        cuts.clear()
                        return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Way) as way:
        thread = threading.Thread(target=way.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{way.server_address[1]}", asked
        way.shutdown()
        thread.join()


def test_a_connection_that_breaks_loses_no_event(
    likeness: Likeness, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("likeness.commands.remote.RECONNECT_S", 0.0)
    job = Remote(address).submit(PHOTOS, {"name": "fido", "class_noun": "dog"})
    fail(likeness, Failure("PhotosRefused", "too few photos"))
    with cut_once(address, b'"running"') as (way, asked):  # in the middle of an event
        told = list(Remote(way).events(job["id"]))
    assert [facts["state"] for kind, facts in told if kind in ("state", "end")] == [
        "queued", "running", "failed", "failed"
    ]  # fmt: skip
    assert [b"last-event-id" in request.lower() for request in asked] == [False, True]


def test_a_refusal_is_told_in_the_servers_words(address: str, photo: str) -> None:
    ran = CliRunner().invoke(app, ["--json", "train", photo, "--name", "petra", "--remote", address])
    assert (ran.exit_code, json.loads(ran.stdout)["error"]["code"]) == (1, "RemoteRefusal")
    with pytest.raises(RemoteRefusal, match="consent"):
        Remote(address).submit(PHOTOS, {"name": "petra"})
    with pytest.raises(StorageUnavailable):
        Remote("http://127.0.0.1:1").submit(PHOTOS, {})


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("ftp://x", None),
        ("http://", None),
        ("https://a:b@x", None),
        ("http://example.com", "lk_secret"),
        ("x", None),
        ("http://[", None),
        ("http://[x]/", None),
        ("http://h:x/", None),
    ],
)
def test_where_nothing_is_sent(url: str, key: str | None) -> None:
    with pytest.raises(UsageError):
        Remote(url, key)
    Remote("http://127.0.0.1:8000", "lk_secret")
    Remote("https://example.com", "lk_secret")


def test_the_queue_at_the_command_line(likeness: Likeness, photo: str) -> None:
    home = str(likeness.home.root)

    def run(*words: str, code: int = 0) -> dict[str, object]:
        ran = CliRunner().invoke(app, ["--json", "--home", home, "jobs", *words])
        assert ran.exit_code == code, ran.output
        found: dict[str, object] = json.loads(ran.stdout)
        return found

    job = run("submit", photo, "--name", "max", "--class-noun", "dog", "--recipe", "fast", "--key", "once")
    assert (job["state"], job["name"]) == ("queued", "max")
    id = str(job["id"])
    assert run("submit", photo, "--name", "max", "--class-noun", "dog", "--recipe", "fast", "--key", "once")["id"] == id
    assert [found["id"] for found in run("list", "--name", "max")["jobs"]] == [id]  # type: ignore[attr-defined]
    assert run("cancel", id)["state"] == "cancelled"
    shown = run("show", id)
    assert [event["kind"] for event in shown["events"]] == ["state", "state"]  # type: ignore[attr-defined]
    assert run("follow", id, code=1)["failure"]["code"] == "Cancelled"  # type: ignore[index]
    assert run("replay", id)["messages"] == 0
    assert run("show", "none", code=1)["error"]["code"] == "JobNotFound"  # type: ignore[index]
    for words in (("list",), ("show", id)):
        assert CliRunner().invoke(app, ["--home", home, "jobs", *words]).exit_code == 0
