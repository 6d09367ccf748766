"""One adapter as a model of Triton's Python backend: passes each request on to the engine process of its device.

It runs in a stub process of Triton's, with the standard library, numpy and the stub's own module; without torch. Inputs
and output are the reference solution's:

    prompt, negative_prompt (optional), gen_args (optional, JSON: num_inference_steps, guidance_scale, seed, ...)
    -> generated_image: a JPEG, or a PNG if gen_args has "format": "png", in base64
       warnings: which words were not read, mostly empty

The adapter is found from the model's folder, never from the model's name, which SageMaker's client chooses. Error
messages repeat nothing of the request, and none of the words that Triton reads as 'out of memory'.

Environment (not LIKENESS_...: those are the engine's settings, and an unknown one is an error):

    ENGINE_FOLDER      sockets, locks and logs; default likeness-UID in the folder for temporary files
    ENGINE_PYTHON      the interpreter that has Likeness installed; default python3
    ENGINE_DEVICES     comma-separated CUDA devices, one engine each; default: one engine that sees all devices
    ENGINE_WATCH_PID   the engine ends with this process; default Triton itself
    ENGINE_DEADLINE_S  of one request; default 55, SageMaker's own limit is 60
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
from engine_client import EngineAddress, EngineClient, EngineFailed

ENGINE_MODULE = "likeness.deploy.triton.engine_process"
INPUTS = ("prompt", "negative_prompt", "gen_args")
# Substrings that Triton's SageMaker frontend answers with 507 (src/sagemaker_server.cc). SageMaker then unloads other
# models, which would free nothing here.
MEMORY_WORDS = ("ut of memory", "OUT_OF_MEMORY", "ut Of Memory", "MemoryError", "OutOfMemory", "OOM", "No space left")
Row = tuple[str, str, str]  # of INPUTS


class TritonPythonModel:
    """The class that the stub looks for."""

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
            raise pb_utils.TritonModelException(message_of(error)) from None

    def execute(self, requests: list[Any]) -> list[Any]:
        batches: list[list[Row] | None] = []
        for request in requests:
            try:
                batches.append(rows_of(request))
            except ValueError:  # UnicodeDecodeError is one
                batches.append(None)
        rows = [row for batch in batches for row in batch or ()]
        outcomes = iter(self.engine.ask_all([self.question(row) for row in rows], self.deadline_s))
        return [
            error_response("expected one UTF-8 text per row and input")
            if batch is None
            else response([next(outcomes) for _ in batch])
            for batch in batches
        ]

    def question(self, row: Row) -> dict[str, Any]:
        return {"verb": "generate", "adapter": self.adapter, **dict(zip(INPUTS, row, strict=True))}

    def finalize(self) -> None:
        self.engine.notify({"verb": "release", "adapter": self.adapter})


def engine_of(base_sha256: str, folder: str) -> EngineClient:
    """The engine that serves the model of this folder."""
    default = Path(tempfile.gettempdir()) / f"likeness-{os.getuid()}"
    devices = [word for word in os.environ.get("ENGINE_DEVICES", "").split(",") if word]
    environment = dict(os.environ)
    device = "0"
    if devices:
        device = devices[zlib.crc32(folder.encode()) % len(devices)]
        environment["CUDA_VISIBLE_DEVICES"] = device
    address = EngineAddress(Path(os.environ.get("ENGINE_FOLDER", default)), base_sha256, device)
    command = [
        os.environ.get("ENGINE_PYTHON", "python3"), "-m", ENGINE_MODULE, "--socket", str(address.file("sock")),
        "--base-sha256", base_sha256, "--watch-pid", os.environ.get("ENGINE_WATCH_PID", str(os.getppid())),
    ]  # fmt: skip
    return EngineClient(address, command, environment)


def rows_of(request: Any) -> list[Row]:
    """The rows of one request. Raises ValueError: several texts in a row, or not UTF-8."""
    columns: list[list[str]] = []
    for name in INPUTS:
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        texts = [] if tensor is None else [one.decode("utf-8") for one in tensor.as_numpy().reshape(-1)]
        if tensor is not None and len(texts) != tensor.as_numpy().shape[0]:
            raise ValueError("several texts in a row")
        columns.append(texts)
    prompts, negatives, options = columns
    negatives, options = negatives or [""] * len(prompts), options or [""] * len(prompts)
    return list(zip(prompts, negatives, options, strict=True))


def response(outcomes: list[Any]) -> Any:
    """One response: all images, or the first error."""
    for outcome in outcomes:
        if isinstance(outcome, EngineFailed):
            return error_response(message_of(outcome))
    columns = {
        "generated_image": [base64.b64encode(content) for _, content in outcomes],
        "warnings": ["; ".join(header.get("warnings", ())).encode() for header, _ in outcomes],
    }
    tensors = [
        pb_utils.Tensor(name, np.array(column, dtype=np.object_).reshape(-1, 1)) for name, column in columns.items()
    ]
    return pb_utils.InferenceResponse(output_tensors=tensors)


def error_response(text: str) -> Any:
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(text))


def message_of(error: EngineFailed) -> str:
    """The error's message, unless Triton would read it as 'out of memory'."""
    text = f"{error.code}: {error}"
    if any(word in text for word in MEMORY_WORDS):
        return "DeviceFailed: the engine could not do this request"
    return text
