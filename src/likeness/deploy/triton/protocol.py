"""What the front says to tritonserver in SageMaker's multi-model mode, and what its refusals mean.

Sources: SageMaker Developer Guide, 'Contract for custom containers for multi-model endpoints'; measurements of
tritonserver 2.51, whose words for a dead process are not documented.
"""

import json
from pathlib import Path

from ...errors import ModelFailed
from .server import Reply

TARGET = "X-Amzn-SageMaker-Target-Model"
JSON = {"Content-Type": "application/json"}
DEAD = "is not healthy"  # Triton's words for a stub that has died
_CANARY = {"num_inference_steps": 1, "guidance_scale": 1.0}  # the least that a picture can take


def load_body(model: str, folder: Path) -> bytes:
    """For POST /models."""
    return json.dumps({"model_name": model, "url": str(folder)}).encode()


def canary_body() -> bytes:
    """For POST /models/ID/invoke: the smallest picture."""
    columns = {"prompt": "", "negative_prompt": "", "gen_args": json.dumps(_CANARY)}
    inputs = [{"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [text]} for name, text in columns.items()]
    return json.dumps({"inputs": inputs}).encode()


def failure(reply: Reply) -> ModelFailed:
    """The error that a refusal is, in the server's words."""
    try:
        said = json.loads(reply.body).get("error", "")
    except (ValueError, AttributeError):
        said = ""
    return ModelFailed(str(said)[:1000] or "the model server gave no reason", status=reply.status)
