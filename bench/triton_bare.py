"""A Triton model that loads nothing and returns a file: the cost of any Python model. For bench.triton.

Runs in Triton's stub, as `1/model.py`.
"""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """The class that Triton's stub loads."""

    def initialize(self, args: dict[str, str]) -> None:
        folder = Path(args["model_repository"]) / args["model_version"]
        self.text = base64.b64encode((folder / "picture").read_bytes())

    def execute(self, requests: list[Any]) -> list[Any]:
        tensor = pb_utils.Tensor("generated_image", np.array([[self.text]], dtype=np.object_))
        return [pb_utils.InferenceResponse(output_tensors=[tensor]) for _ in requests]
