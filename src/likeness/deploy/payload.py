"""The reference solution's request for portraits -> image requests; files of images -> its response.

The inputs are texts: `prompt`, `negative_prompt` and `gen_args`, which is JSON with the reference solution's keys
(num_inference_steps, guidance_scale, seed) and ours (adapter_scale, negative_scale, sampler, format: jpeg or png).
The output is `generated_image`, a file in base64.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UsageError
from ..portraits import JPEG, PNG, check_request
from ..types import ImageRequest
from . import kserve

INPUTS = ("prompt", "negative_prompt", "gen_args")
MEDIA_TYPES = {"jpeg": JPEG, "png": PNG}  # the first is the default, as in the reference solution
STEPS, GUIDANCE_SCALE = 50, 7.5  # defaults of diffusers' StableDiffusionPipeline
_KEYS = ("num_inference_steps", "guidance_scale", "seed", "adapter_scale", "negative_scale", "sampler", "format")

Asked = tuple[ImageRequest, str]  # without its adapter; the media type of the file


def requests_of(inference: kserve.Inference) -> list[Asked]:
    """One image request a row. Raises UsageError: missing or unknown inputs, or as `request_of`."""
    if not {"prompt"} <= inference.inputs.keys() <= set(INPUTS):
        raise UsageError(f"expected the input prompt and optionally {' and '.join(INPUTS[1:])}")
    rows = [{name: texts[row] for name, texts in inference.inputs.items()} for row in range(inference.rows)]
    return [request_of(*(row.get(name, "") for name in INPUTS)) for row in rows]


def response(model: str, files: Sequence[bytes], *, binary: bool) -> tuple[bytes, str]:
    """Body and content type of a response with these files."""
    texts = [base64.b64encode(file).decode() for file in files]
    return kserve.write(model, "generated_image", texts, binary=binary)


def request_of(prompt: str, negative_prompt: str, gen_args: str) -> Asked:
    """The image request of three texts; `gen_args` may be empty.

    Raises:
        UsageError: gen_args is not a JSON object, has an unknown key, or a value of another type or out of range.
    """
    try:
        values = json.loads(gen_args) if gen_args.strip() else {}
    except (ValueError, RecursionError) as error:
        raise UsageError(f"expected gen_args to be JSON, got {type(error).__name__}") from None
    if not isinstance(values, dict) or not values.keys() <= set(_KEYS):
        raise UsageError(f"expected gen_args to be an object with keys of {', '.join(_KEYS)}")
    sampler, format = values.get("sampler", ImageRequest.sampler), values.get("format", next(iter(MEDIA_TYPES)))
    if not isinstance(sampler, str) or not isinstance(format, str) or format not in MEDIA_TYPES:
        raise UsageError(f"expected sampler to be a text, and format one of {', '.join(MEDIA_TYPES)}")
    guidance = _number(values, "guidance_scale", GUIDANCE_SCALE)
    request = ImageRequest(
        prompt, None, negative_prompt, seed=_integer(values, "seed", ImageRequest.seed),
        steps=_integer(values, "num_inference_steps", STEPS),
        guidance_scale=1.0 if 0 <= guidance < 1 else guidance,  # diffusers: at most 1 is no guidance; clients send 0
        adapter_scale=_number(values, "adapter_scale", ImageRequest.adapter_scale), sampler=sampler,
        negative_scale=_number(values, "negative_scale", 0) if "negative_scale" in values else None,
    )  # fmt: skip
    return check_request(request), MEDIA_TYPES[format]


def _number(values: Mapping[str, Any], name: str, default: float) -> float:
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e9:
        raise UsageError(f"expected {name} to be a number")
    return float(value)


def _integer(values: Mapping[str, Any], name: str, default: int) -> int:
    value = values.get(name, default)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:  # sliders of web pages send 50.0
        value = int(value)
    if type(value) is not int:
        raise UsageError(f"expected {name} to be an integer")
    return value
