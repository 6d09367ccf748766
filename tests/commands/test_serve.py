"""`likeness serve` as a process of its own, and `likeness keys`."""

import errno
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fixtures.waiting import HANG_S, until
from likeness.cli import app
from likeness.diffusion import base as base_module
from likeness.errors import StorageError
from likeness.http.server import Bind, listening, url_of

SRC = str(Path(__file__).parents[2] / "src")


@pytest.fixture(scope="module")
def base(tiny_base_folder: Path) -> str:
    return str(tiny_base_folder)


@contextmanager
def serving(home: Path, base: str, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server of its own process that answers."""
    environment = os.environ | {"LIKENESS_HOME": str(home), "LIKENESS_BASE": base, "PYTHONPATH": SRC}
    call = [sys.executable, "-m", "likeness.cli", "serve", "--port", "0", "--workers", "0", *words]
    with (
        (home / "server.log").open("w") as said,
        subprocess.Popen(call, env=environment, stderr=said, stdout=subprocess.PIPE) as process,
    ):
        try:
            yield process, port_of(process, home / "server.log")
        finally:
            process.kill()


def port_of(process: subprocess.Popen[bytes], log: Path) -> int:
    """Where a server says that it answers; fails with its log where it ends instead."""
    assert process.stdout is not None
    said = process.stdout.readline().decode()
    assert said.startswith("serving at http://"), log.read_text()
    port = int(said.rpartition(":")[2])
    ask(port, "GET", "/healthz")
    return port


def ask(port: int, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_S)) as connection:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def has_begun(port: int, headers: dict[str, str]) -> bool:
    """Whether the second picture is in the batch, or done already."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_S)) as connection:
        connection.request("GET", "/metrics", headers=headers)
        said = connection.getresponse().read()
    return b"\nlikeness_engine_running 1.0\n" in said or b"\nlikeness_engine_images_total 2.0\n" in said


def call(home: Path, *words: str) -> Any:
    """The document of a command that goes well."""
    result = CliRunner().invoke(app, ["--home", str(home), *words, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.services
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="children are looked for in /proc")
def test_a_server_asks_for_keys_makes_pictures_logs_json_and_ends_in_order(tmp_path: Path, base: str) -> None:
    """With its training worker, which ends with it."""
    key = call(tmp_path, "keys", "new", "--tenant", "anna", "--label", "laptop")["key"]
    mine = {"Authorization": f"Bearer {key}"}
    operator = {"Authorization": f"Bearer {call(tmp_path, 'keys', 'new')['key']}"}
    with serving(tmp_path, base, "--require-keys", "--workers", "1") as (process, port):
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (worker,) = [pid for pid in listed if b"work" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
        assert ask(port, "GET", "/v1/adapters")[0] == 401
        assert ask(port, "GET", "/v1/adapters", **mine) == (200, {"adapters": [], "next": None})
        asked = {"prompt": "secret words", "steps": 1}
        status, document = ask(port, "POST", "/v1/images", asked, **mine, **{"X-Request-Id": "mine-1"})
        assert status == 200 and document["images"][0]["data"]
        form = {**mine, "Content-Type": "multipart/form-data; boundary=b"}
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_S)) as connection:
            connection.request("POST", "/v1/subjects/anna/photos", "--x", form)  # which its parser warns of
            assert connection.getresponse().status == 400
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_S)) as connection:
            long = json.dumps({"prompt": "secret words", "steps": 40})
            connection.request("POST", "/v1/images", long, {**mine, "Content-Type": "application/json"})
            until(lambda: has_begun(port, operator), pause_s=0.01)
            process.send_signal(signal.SIGTERM)  # what is under way is finished first
            assert connection.getresponse().status == 200
        assert process.wait() == 0
        until(lambda: not is_alive(worker))
    said = (tmp_path / "server.log").read_text().splitlines()
    lines = [json.loads(line) for line in said if line.startswith("{")]  # the others are the worker's
    requests = [line for line in lines if line["logger"] == "likeness.http"]
    assert any(line.get("request_id") == "mine-1" and line["status"] == 200 for line in requests)
    assert "secret" not in (tmp_path / "server.log").read_text()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "likeness.example", ""])
def test_other_machines_are_not_served_without_a_key(tmp_path: Path, host: str) -> None:
    result = CliRunner().invoke(app, ["--home", str(tmp_path), "serve", "--host", host, "--json"])
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert (error["code"], error["hint"]) == ("SettingsError", "create one with `likeness keys new`")
    made = call(tmp_path, "keys", "new")
    call(tmp_path, "keys", "revoke", made["id"])  # a revoked key is none
    assert CliRunner().invoke(app, ["--home", str(tmp_path), "serve", "--host", host]).exit_code == 2


@pytest.mark.parametrize("words", [["serve"], ["serve", "--sagemaker"]])
def test_a_port_that_is_taken_is_an_error_before_anything_is_loaded(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_module, "load_base", lambda *given, **more: pytest.fail("the base was loaded"))
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["--home", str(tmp_path), *words, "--port", str(port), "--json"])
    assert result.exit_code == 1 and result.stdout, repr(result.exception)
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "PortUnavailable"
    assert error["message"] == f"expected a free port, got {port}, which another program uses"
    assert "--port 0" in error["hint"]


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "a..b"])
def test_a_host_that_is_not_this_machines_is_said_to_be(host: str) -> None:
    with pytest.raises(StorageError, match="--host"), listening(Bind(host, 0)):
        pass


def test_a_port_without_the_right_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refused)
    with pytest.raises(StorageError, match="may listen on, got 80"), listening(Bind("127.0.0.1", 80)):
        pass


def test_a_free_port_is_held_until_it_is_served(tmp_path: Path) -> None:
    with listening(Bind("localhost", 0)) as sockets:
        (port,) = {one.getsockname()[1] for one in sockets}  # one for all addresses of the name
        assert url_of(Bind("localhost", 0), sockets) == f"http://localhost:{port}"
        assert url_of(Bind("::1", 0, tmp_path, tmp_path), sockets) == f"https://[::1]:{port}"
    assert all(one.fileno() == -1 for one in sockets)


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    made = call(tmp_path, "keys", "new", "--tenant", "anna", "--label", "laptop")
    listed = CliRunner().invoke(app, ["--home", str(tmp_path), "keys", "list", "--json"]).stdout
    assert made["key"].split("_", 2)[2] not in listed
    (row,) = json.loads(listed)["keys"]
    assert (row["id"], row["tenant"], row["label"], row["revoked"]) == (made["id"], "anna", "laptop", None)
    call(tmp_path, "keys", "revoke", made["id"])
    again = CliRunner().invoke(app, ["--home", str(tmp_path), "keys", "revoke", made["id"]])
    assert again.exit_code == 2
    assert "laptop" in CliRunner().invoke(app, ["--home", str(tmp_path), "keys", "list"]).stdout


@pytest.mark.services
@pytest.mark.skipif(sys.platform != "linux", reason="a child that ends with its parent: prctl(2)")
def test_the_training_worker_ends_with_a_server_that_was_killed(tmp_path: Path, base: str) -> None:
    code = (
        "import sys, time; from pathlib import Path; from likeness.commands.workers import start_worker\n"
        "print(start_worker(Path(sys.argv[1]), 'w-0').pid, flush=True); time.sleep(600)"
    )
    environment = os.environ | {"LIKENESS_BASE": base, "PYTHONPATH": SRC}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        worker = process.stdout.readline().decode().strip()
        assert is_alive(worker)
        process.kill()
    until(lambda: not is_alive(worker))


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_half_a_tls_pair_is_refused(tmp_path: Path) -> None:
    words = ["--home", str(tmp_path), "serve", "--certificate", str(tmp_path / "no.pem")]
    assert CliRunner().invoke(app, words).exit_code == 2
    both = CliRunner().invoke(app, [*words, "--key", str(tmp_path / "no.pem")])
    assert both.exit_code == 2 and "PEM" in both.stderr


@pytest.mark.parametrize("words", [("serve", "--port", "0", "--workers", "0"), ("list",), ("keys", "list")])
def test_a_damaged_catalog_or_a_home_that_cannot_be_made_is_said_in_one_line(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("LIKENESS_BASE", base)
    (tmp_path / "catalog.sqlite").write_bytes(b"no database" * 1000)
    (tmp_path / "file").write_bytes(b"")
    for home, code in ((tmp_path, "StorageDamaged"), (tmp_path / "file" / "home", "SettingsError")):
        result = CliRunner().invoke(app, ["--home", str(home), *words, "--json"])
        assert result.exit_code in (1, 2)
        assert json.loads(result.stdout)["error"]["code"] == code


def test_a_catalog_of_another_version_is_said_before_the_port_is_opened(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIKENESS_BASE", base)
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE catalog_version (version_num VARCHAR(32) PRIMARY KEY)")
        connection.execute("INSERT INTO catalog_version VALUES ('9999')")
    result = CliRunner().invoke(app, ["--home", str(tmp_path), "serve", "--port", "0", "--workers", "0", "--json"])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["code"] == "SettingsError"
