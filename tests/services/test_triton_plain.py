"""The same model repository in Triton's own mode, asked by NVIDIA's client; and an engine that ends with its server."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import isolated_network
from fixtures.hosting import World, skip_without_triton, world
from fixtures.triton_server import TritonServer, namespace
from fixtures.waiting import HANG_S, until
from likeness.artifacts.package import unpack
from likeness.deploy.triton.engine_client import EngineFailed

pytestmark = [pytest.mark.services, pytest.mark.slow]
PORT = 8000
CLIENT = """
import base64, json, sys
import numpy as np
import tritonclient.http as triton

client = triton.InferenceServerClient("127.0.0.1:8000")
for name in sys.argv[1:]:
    assert client.is_model_ready(name)
    metadata = client.get_model_metadata(name)
    texts = {
        "prompt": "a portrait", "negative_prompt": "a dog",
        "gen_args": json.dumps({"num_inference_steps": 2, "guidance_scale": 5, "seed": 1, "format": "png"}),
    }
    inputs = []
    for key, text in texts.items():
        tensor = triton.InferInput(key, [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[text]], dtype=object))
        inputs.append(tensor)
    answer = client.infer(name, inputs)
    picture = base64.b64decode(answer.as_numpy("generated_image")[0][0])
    assert picture.startswith(bytes([137]) + b"PNG"), picture[:8]
    assert answer.as_numpy("warnings").tolist() == [[b""]]
    print(name, [one["name"] for one in metadata["inputs"]])
"""


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    skip_without_triton()
    with world() as made:
        yield made


@pytest.fixture(scope="module")
def server(here: World) -> Iterator[TritonServer]:
    repository = here.folder / "repository"
    repository.mkdir()
    for name in ("anna", "bert"):
        unpack(here.objects.get(f"{name}.tar.gz"), here.folder / name)
        (here.folder / name / name).rename(repository / name)
    plain = [
        f"--model-repository={repository}", f"--http-port={PORT}", "--http-address=127.0.0.1", "--allow-grpc=false",
        "--allow-metrics=false",
    ]  # fmt: skip
    running = TritonServer(here.folder / "t", environment=here.environment(), arguments=plain, ports=[PORT])
    running.start(ready="/v2/health/ready")
    yield running
    running.stop()


def test_nvidias_client_asks_two_people_and_the_engine_ends_with_the_server(here: World, server: TritonServer) -> None:
    script = here.folder / "client.py"
    script.write_text(CLIENT)
    enter = [shutil.which("nsenter") or "nsenter", f"--target={server.pid}", "--net"]
    if os.geteuid() != 0:
        enter += ["--user", "--preserve-credentials"]
    ran = subprocess.run(
        [*enter, sys.executable, str(script), "anna", "bert"], capture_output=True, text=True, timeout=HANG_S
    )
    assert ran.returncode == 0, ran.stderr
    inputs = "['prompt', 'negative_prompt', 'gen_args']"
    assert ran.stdout.splitlines() == [f"anna {inputs}", f"bert {inputs}"]
    engine = int(str(here.engine()["pid"]))
    server.stop()
    until(lambda: not Path(f"/proc/{engine}").exists())
    with pytest.raises(EngineFailed):
        here.engine()


def test_no_server_is_started_where_another_interface_is_up(tmp_path: Path) -> None:
    if not isolated_network.interfaces_up() - {isolated_network.LOOPBACK}:
        pytest.skip("this machine has no interface but loopback: there is nothing to refuse")
    mark = tmp_path / "started"
    command = [sys.executable, isolated_network.__file__, "--", "touch", str(mark)]
    ran = subprocess.run(command, stdin=subprocess.PIPE, capture_output=True, text=True, timeout=HANG_S)
    assert ran.returncode == 1 and ran.stderr.startswith("refused: expected a network with nothing but loopback")
    assert not mark.exists()


def test_a_server_ends_with_its_starters_standard_input(tmp_path: Path) -> None:
    skip_without_triton()
    mark = str(tmp_path / "started")
    runs = ["sh", "-c", "touch $0; exec sleep 600", mark]
    command = [*namespace(), sys.executable, isolated_network.__file__, "--", *runs]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as running:
        assert running.stdin is not None
        until(lambda: Path(mark).exists())
        assert running.poll() is None
        running.stdin.close()
        assert running.wait(HANG_S) != 0  # ended by a signal, not by itself
