"""Random people on the tiny base as exported archives, and SageMaker's calls to a container that hosts them."""

import base64
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from likeness.artifacts.package import unpack
from likeness.deploy.triton.engine_client import EngineAddress, EngineClient
from likeness.deploy.triton.export import archive
from likeness.diffusion.base import BaseModel, load_base
from likeness.errors import MissingPart
from likeness.storage.objects import FileObjects
from tests.contrast import build_contrasted_folder
from tests.engine.people import of_another_base, person
from tests.services.triton_server import Reply, TritonServer, is_installed, namespace

NAMES = ("anna", "bert", "cleo", "dora", "emil", "fred", "gina", "hugo")
PROMPT = "portrait in the snow"
SLOTS = 5  # four people at once


@dataclass(frozen=True)
class World:
    """A folder with a base, archives and room for servers."""

    folder: Path
    base: BaseModel
    objects: FileObjects

    def environment(self, engines: str = "engines", **more: str) -> dict[str, str]:
        """What the thin models and their engine need."""
        return {
            "ENGINE_FOLDER": str(self.folder / engines), "ENGINE_PYTHON": sys.executable, "OMP_NUM_THREADS": "1",
            "LIKENESS_BASE": str(self.folder / "base"), "LIKENESS_SLOTS": str(SLOTS), **more,
        }  # fmt: skip

    def engine(self, engines: str = "engines") -> Mapping[str, object]:
        """What the engine says of itself. Raises EngineFailed."""
        address = EngineAddress(self.folder / engines, self.base.sha256)
        return EngineClient(address, ["false"], {}, start_s=5.0).ask({"verb": "ping"}, 5.0)[0]


JSON = "application/json"
LIMIT_S = 360.0  # of one call: SageMaker's own limit of a load; a busy machine is slow


@dataclass(frozen=True)
class Endpoint:
    """What SageMaker does with a multi-model container: fetch and unpack an archive, load, invoke, unload.

    Args:
        archives: NAME.tar.gz.
    """

    server: TritonServer
    archives: FileObjects

    def load(self, name: str) -> Reply:
        folder = self._folder(name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        unpack(self.archives.get(f"{name}.tar.gz"), folder)
        return self.call("POST", name, "", json.dumps({"model_name": name, "url": str(folder)}).encode())

    def invoke(self, name: str, body: bytes) -> Reply:
        return self.call("POST", name, f"/{name}/invoke", body)

    def unload(self, name: str) -> Reply:
        """The model must have no request: tritonserver 2.51 blocks for 350 s otherwise."""
        reply = self.call("DELETE", name, f"/{name}")
        shutil.rmtree(self._folder(name).parent)
        return reply

    def call(self, method: str, name: str, path: str, body: bytes = b"") -> Reply:
        headers = {"Content-Type": JSON, "X-Amzn-SageMaker-Target-Model": f"{name}.tar.gz"}
        return self.server.call(method, f"/models{path}", body=body, headers=headers, timeout_s=LIMIT_S)

    def _folder(self, name: str) -> Path:
        return self.server.folder / "models" / name / "model"


def skip_without_triton() -> None:
    """Skip where there is no tritonserver or no namespace; in CI both must be there."""
    try:
        if not is_installed():
            raise MissingPart("tritonserver is not installed (the wheel nvidia-pytriton)")
        namespace()
    except MissingPart as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))


@contextmanager
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="lk-", ignore_cleanup_errors=True) as name:  # short: sockets lie there
        folder = Path(name)
        base = load_base(str(build_contrasted_folder(folder / "base")), device=torch.device("cpu"), dtype=torch.float32)
        objects = FileObjects(folder / "archives")
        for seed, name in enumerate(NAMES, 1):
            objects.put(f"{name}.tar.gz", archive(person(base, name, seed)))
        objects.put("foreign.tar.gz", archive(of_another_base(person(base, "foreign", 99))))
        yield World(folder, base, objects)


def asked(*prompts: str, steps: int = 3, seed: int = 5, **gen_args: object) -> bytes:
    """A request as the reference solution's client makes it."""
    options = json.dumps({"num_inference_steps": steps, "guidance_scale": 7.5, "seed": seed, **gen_args})
    rows = prompts or (PROMPT,)
    columns = {"prompt": list(rows), "negative_prompt": ["a dog"] * len(rows), "gen_args": [options] * len(rows)}
    inputs = [
        {"name": name, "shape": [len(rows), 1], "datatype": "BYTES", "data": texts} for name, texts in columns.items()
    ]
    return json.dumps({"inputs": inputs}).encode()


def pictures(reply: Reply) -> list[np.ndarray]:
    """The pictures (H, W, 3) of an answer."""
    assert reply.status == 200, reply.text
    output = json.loads(reply.body)["outputs"][0]
    assert output["name"] == "generated_image"
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in output["data"]]


def together(works: Mapping[str, Callable[[], Reply]]) -> dict[str, Reply]:
    """Call every function on a thread of its own; name -> what it returned."""
    with ThreadPoolExecutor(len(works)) as pool:
        futures = {name: pool.submit(work) for name, work in works.items()}
        return {name: future.result() for name, future in futures.items()}


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def several_rows(engine: Mapping[str, object]) -> int:
    """Steps of more than one guided picture, so far."""
    histogram = engine["rows_per_step"]
    assert isinstance(histogram, dict)
    bounds: Sequence[float] = (*histogram["bounds"], float("inf"))
    return sum(count for bound, count in zip(bounds, histogram["counts"], strict=True) if bound > 2)
