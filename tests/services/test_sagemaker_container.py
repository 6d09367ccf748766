"""`likeness serve --sagemaker` as SageMaker starts it. It binds every interface, so here it has none but loopback."""

import base64
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from fixtures import isolated_network
from fixtures.contrast import build_contrasted_folder
from fixtures.triton_server import namespace
from fixtures.waiting import HANG_S, until
from likeness.errors import MissingPart

pytestmark = [pytest.mark.services, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lk-", ignore_cleanup_errors=True) as name:  # short: a socket lies there
        yield Path(name)


@pytest.fixture(scope="module")
def process(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    try:
        alone = namespace()
    except MissingPart as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))
    base = build_contrasted_folder(folder / "base")
    runner = [*alone, sys.executable, isolated_network.__file__, "--relay", f"8080={folder / 'http.sock'}"]
    serve = [sys.executable, "-m", "likeness.cli", "serve", "--sagemaker", "--port", "8080"]
    environment = os.environ | {"LIKENESS_HOME": str(folder / "home"), "LIKENESS_BASE": str(base)}
    with (
        (folder / "server.log").open("wb") as log,
        subprocess.Popen(
            [*runner, "--", *serve], stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment
        ) as run,
    ):
        yield run
        run.kill()


@pytest.fixture(scope="module")
def client(folder: Path, process: subprocess.Popen[bytes]) -> Iterator[httpx2.Client]:
    transport = httpx2.HTTPTransport(uds=str(folder / "http.sock"))
    with httpx2.Client(transport=transport, base_url="http://container:8080", timeout=HANG_S) as opened:

        def answers() -> bool:
            assert process.poll() is None, (folder / "server.log").read_text()
            with suppress(httpx2.TransportError):
                return (folder / "http.sock").exists() and opened.get("/ping").status_code == 200
            return False

        until(answers)
        yield opened


def portrait(prompt: str, **gen_args: object) -> dict[str, object]:
    columns = {"prompt": prompt, "negative_prompt": "a dog", "gen_args": json.dumps(gen_args)}
    inputs = [{"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [text]} for name, text in columns.items()]
    return {"inputs": inputs}


def test_it_pings_draws_refuses_and_hosts_nothing_yet(client: httpx2.Client) -> None:
    assert client.get("/ping").status_code == 200
    assert client.get("/models").json() == {"models": []}
    answer = client.post("/invocations", json=portrait("a knight", num_inference_steps=2, seed=1))
    assert answer.status_code == 200, answer.text
    output = answer.json()["outputs"][0]
    assert output["name"] == "generated_image"
    with Image.open(io.BytesIO(base64.b64decode(output["data"][0]))) as picture:
        assert picture.format == "JPEG"
    refused = client.post("/invocations", json=portrait("a knight", num_inference_steps=0))
    assert (refused.status_code, "UsageError" in refused.json()["error"]) == (400, True)
    assert client.post("/models", json={"model_name": "h", "url": "/etc"}).status_code == 400


def test_it_ends_in_order_when_the_platform_says_so(
    folder: Path, client: httpx2.Client, process: subprocess.Popen[bytes]
) -> None:
    client.close()
    process.terminate()
    assert process.wait(HANG_S) == 0, (folder / "server.log").read_text()
    lines = [line for line in (folder / "server.log").read_text().splitlines() if "Traceback" in line]
    assert lines == []
