"""The reference solution's request for portraits -> image requests; files of images -> its response.

The inputs are texts: `prompt`, `negative_prompt` and `gen_args`, which is JSON with the reference solution's keys
(num_inference_steps, guidance_scale, seed), width and height in pixels as of diffusers' pipelines, and ours
(adapter_scale, negative_scale, sampler, format: jpeg or png, and also: further adapters beside the model's, such as
oil@0.6).
The outputs are `generated_image`, a file in base64, and `warnings`: which words were not read, mostly empty.
"""

import base64
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from ..errors import UsageError
from ..http.asked import Asked, Integer
from ..http.invalid import invalid
from ..types import JPEG, MAX_BLEND_TEXT, PNG, ImageRequest, blend_of
from . import kserve

INPUTS = ("prompt", "negative_prompt", "gen_args")
MEDIA_TYPES = {"jpeg": JPEG, "png": PNG}

AskedImage = tuple[ImageRequest, str]  # without the model's adapter; the media type of the file


class GenArgs(Asked):
    """`gen_args`. What is left out is the base's own default; the file is a JPEG."""

    num_inference_steps: Integer | None = None
    guidance_scale: float | None = None
    seed: Integer = ImageRequest.seed
    adapter_scale: float = ImageRequest.adapter_scale
    negative_scale: float | None = None
    sampler: str | None = None
    width: Integer | None = None  # both: the base's own, by default
    height: Integer | None = None
    format: Literal["jpeg", "png"] = "jpeg"
    also: Annotated[str, Field(max_length=MAX_BLEND_TEXT)] = ""


def requests_of(inference: kserve.Inference) -> list[AskedImage]:
    """One image request a row. Raises UsageError: missing or unknown inputs, or as `request_of`."""
    if not {"prompt"} <= inference.inputs.keys() <= set(INPUTS):
        raise UsageError(f"expected the input prompt and optionally {' and '.join(INPUTS[1:])}")
    rows = [{name: texts[row] for name, texts in inference.inputs.items()} for row in range(inference.rows)]
    return [request_of(*(row.get(name, "") for name in INPUTS)) for row in rows]


def response(
    model: str, files: Sequence[bytes], remarks: Sequence[Sequence[str]], *, binary: bool
) -> tuple[bytes, str]:
    """Body and content type of a response: for each row a file, and remarks on words that were not read."""
    images, warnings = [base64.b64encode(file).decode() for file in files], ["; ".join(row) for row in remarks]
    return kserve.write(model, {"generated_image": images, "warnings": warnings}, binary=binary)


def request_of(prompt: str, negative_prompt: str, gen_args: str) -> AskedImage:
    """The image request of three texts; `gen_args` may be empty.

    Raises:
        UsageError: gen_args is not a JSON object, has an unknown key, or a value of another type or out of range.
    """
    try:
        values = GenArgs.model_validate_json(gen_args if gen_args.strip() else "{}")
    except ValidationError as error:
        hint = f"gen_args is a JSON object with keys of {', '.join(GenArgs.model_fields)}"
        raise invalid(error.errors(), hint=hint) from None
    guidance = values.guidance_scale
    if guidance is not None and 0 <= guidance < 1:
        guidance = 1.0  # no guidance; clients send 0 for it
    request = ImageRequest(
        prompt, blend_of(values.also), negative_prompt, values.seed, values.num_inference_steps, guidance,
        values.adapter_scale, values.negative_scale, values.sampler, width=values.width, height=values.height,
    )  # fmt: skip
    return request, MEDIA_TYPES[values.format]
