"""One person as a model of Triton's Python backend: passes each request on to the engine of its device.

Runs in Triton's stub, a process of its own: standard library, the stub's module, and the numpy that the stub itself
needs; no torch. Inputs and the first output are the reference solution's:

    prompt, negative_prompt (optional), gen_args (optional, JSON: num_inference_steps, guidance_scale, seed, ...)
    -> generated_image: a JPEG, or a PNG where gen_args' "format" says so, in base64
       warnings: which words were not read; empty mostly

The adapter is found from the model's folder, never from its name, which in SageMaker is the client's choice. Errors are
texts of ours: they repeat nothing of the request, and none of the words by which Triton takes an error for a full
memory, as to unload other models would free none.

Environment (not LIKENESS_...: those are the engine's own settings, and it refuses what it does not know):

    ENGINE_FOLDER      sockets, locks and logs; default likeness-UID in the folder for temporary files
    ENGINE_PYTHON      the interpreter that has Likeness installed; default python3
    ENGINE_DEVICES     comma-separated CUDA devices, one engine each; default: one engine that sees what there is
    ENGINE_WATCH_PID   with this process the engine ends; default Triton itself
    ENGINE_DEADLINE_S  for one request; default 55, SageMaker gives up after 60
"""

import base64
import json
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from engine_client import EngineClient, EngineFailed, EnginePlace

ENGINE_MODULE = "likeness.deploy.triton.engine_process"
# Substrings by which Triton's SageMaker frontend answers 507 (src/sagemaker_server.cc).
MEMORY_WORDS = ("ut of memory", "OUT_OF_MEMORY", "ut Of Memory", "MemoryError", "OutOfMemory", "OOM", "No space left")
Wanted = tuple[str, str, str]  # prompt, negative prompt, gen_args


class TritonPythonModel:
    """What the stub looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        folder = Path(args["model_repository"]) / args["model_version"]
        card = json.loads((folder / "card.json").read_text("utf-8"))
        self.adapter = {"path": str(folder / "adapter.safetensors"), "sha256": card["content_sha256"]}
        self.deadline_s = float(os.environ.get("ENGINE_DEADLINE_S", "55"))
        self.engine = engine_of(card["base_sha256"], str(folder))
        try:
            self.engine.ensure()
            self.engine.ask({"verb": "admit", "adapter": self.adapter}, self.deadline_s)
        except EngineFailed as error:
            raise pb_utils.TritonModelException(plain(error)) from None

    def execute(self, requests: list[Any]) -> list[Any]:
        wanted: list[list[Wanted] | None] = []
        for request in requests:
            try:
                wanted.append(rows_of(request))
            except ValueError:  # UnicodeDecodeError is one
                wanted.append(None)
        rows = [row for asked in wanted for row in asked or ()]
        outcomes = iter(self.engine.ask_all([self.question(row) for row in rows], self.deadline_s))
        return [
            refused("expected one UTF-8 text per row and input")
            if asked is None
            else answer([next(outcomes) for _ in asked])
            for asked in wanted
        ]

    def question(self, row: Wanted) -> dict[str, Any]:
        prompt, negative_prompt, gen_args = row
        return {
            "verb": "generate", "adapter": self.adapter, "prompt": prompt, "negative_prompt": negative_prompt,
            "gen_args": gen_args,
        }  # fmt: skip

    def finalize(self) -> None:
        self.engine.tell({"verb": "release", "adapter": self.adapter})


def engine_of(base_sha256: str, folder: str) -> EngineClient:
    """The engine that serves the model of this folder."""
    default = Path(tempfile.gettempdir()) / f"likeness-{os.getuid()}"
    devices = [word for word in os.environ.get("ENGINE_DEVICES", "").split(",") if word]
    environment = dict(os.environ)
    device = "0"
    if devices:
        device = devices[zlib.crc32(folder.encode()) % len(devices)]
        environment["CUDA_VISIBLE_DEVICES"] = device
    place = EnginePlace(Path(os.environ.get("ENGINE_FOLDER", default)), base_sha256, device)
    watched = os.environ.get("ENGINE_WATCH_PID", str(os.getppid()))
    command = [
        os.environ.get("ENGINE_PYTHON", "python3"), "-m", ENGINE_MODULE,
        "--socket", str(place.socket), "--base-sha256", base_sha256, "--watch-pid", watched,
    ]  # fmt: skip
    return EngineClient(place, command, environment)


def rows_of(request: Any) -> list[Wanted]:
    """The rows of one request. Raises ValueError: several texts in a row, or no UTF-8."""
    columns: list[list[str]] = []
    for name in ("prompt", "negative_prompt", "gen_args"):
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        texts = [] if tensor is None else [one.decode("utf-8") for one in tensor.as_numpy().reshape(-1)]
        count = len(texts) if tensor is None else tensor.as_numpy().shape[0]
        if len(texts) != count:
            raise ValueError("several texts in a row")
        columns.append(texts)
    prompts, negatives, options = columns
    negatives, options = negatives or [""] * len(prompts), options or [""] * len(prompts)
    return list(zip(prompts, negatives, options, strict=True))


def answer(outcomes: list[Any]) -> Any:
    """One response: every picture, or the first error."""
    for outcome in outcomes:
        if isinstance(outcome, EngineFailed):
            return refused(plain(outcome))
    columns = {
        "generated_image": [base64.b64encode(content) for _, content in outcomes],
        "warnings": ["; ".join(header.get("warnings", ())).encode() for header, _ in outcomes],
    }
    tensors = [
        pb_utils.Tensor(name, np.array(column, dtype=np.object_).reshape(-1, 1)) for name, column in columns.items()
    ]
    return pb_utils.InferenceResponse(output_tensors=tensors)


def refused(text: str) -> Any:
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(text))


def plain(error: EngineFailed) -> str:
    """The error's text, unless Triton would misread it."""
    text = f"{error.code}: {error}"
    if any(word in text for word in MEMORY_WORDS):
        return "DeviceFailed: the engine could not do this request"
    return text
