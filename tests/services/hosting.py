"""Eight random people on the tiny base, as archives, and how to ask a Triton model for one of them."""

import base64
import io
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from likeness.artifacts.triton.engine_client import EngineClient, EnginePlace
from likeness.artifacts.triton.export import artifact
from likeness.deploy.triton.server import Reply, is_installed, namespace
from likeness.diffusion.base import BaseModel, load_base
from likeness.errors import LikenessError, MissingPart
from likeness.storage.objects import FileObjects
from tests.contrast import build_contrasted_folder
from tests.engine.people import of_another_base, person

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
        place = EnginePlace(self.folder / engines, self.base.sha256)
        return EngineClient(place, ["false"], {}, start_s=5.0).ask({"verb": "ping"}, 5.0)[0]


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
        for seed, name in enumerate((*NAMES, "iris"), 1):
            objects.put(f"{name}.tar.gz", artifact(person(base, name, seed)))
        objects.put("foreign.tar.gz", artifact(of_another_base(person(base, "foreign", 99))))
        objects.put("damaged.tar.gz", objects.get("anna.tar.gz")[:-2000])
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


def pictures(reply: object) -> list[np.ndarray]:
    """The pictures (H, W, 3) of an answer; what happened together may be an exception instead."""
    assert isinstance(reply, Reply), reply
    assert reply.status == 200, reply.text
    output = json.loads(reply.body)["outputs"][0]
    assert output["name"] == "generated_image"
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in output["data"]]


def together(work: Mapping[str, object]) -> dict[str, object]:
    """Call every function on a thread of its own; name -> what it returned or raised."""
    outcomes: dict[str, object] = {}

    def call(name: str) -> None:
        try:
            outcomes[name] = work[name]()  # type: ignore[operator]
        except LikenessError as error:
            outcomes[name] = error

    threads = [threading.Thread(target=call, args=(name,)) for name in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def several_rows(engine: Mapping[str, object]) -> int:
    """Steps of more than one guided picture, so far."""
    histogram = engine["rows_per_step"]
    assert isinstance(histogram, dict)
    bounds: Sequence[float] = (*histogram["bounds"], float("inf"))
    return sum(count for bound, count in zip(bounds, histogram["counts"], strict=True) if bound > 2)
