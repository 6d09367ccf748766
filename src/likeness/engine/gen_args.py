"""`gen_args` of the reference solution: a JSON text with the numbers of one portrait, as its clients send it.

theirs: {"num_inference_steps": 50, "guidance_scale": 7.5, "seed": 1}
ours:   {"adapter_scale": 1.0, "negative_scale": 0.0, "sampler": "dpmpp_2m", "format": "jpeg"}
"""

import json
from typing import Any

from ..errors import UsageError
from ..types import JPEG, PNG, ImageRequest

MEDIA_TYPES = {"jpeg": JPEG, "png": PNG}  # the first by default, as there
STEPS, GUIDANCE_SCALE = 50, 7.5  # of diffusers' own pipeline, for gen_args that leave them out
_KNOWN = ("num_inference_steps", "guidance_scale", "seed", "adapter_scale", "negative_scale", "sampler", "format")


def request_of(prompt: str, negative_prompt: str, gen_args: str) -> tuple[ImageRequest, str]:
    """The request, without its adapter, and the media type of its picture.

    Args:
        gen_args: empty for none.

    Raises:
        UsageError: no JSON object, an unknown key, a value of another kind or out of its range.
    """
    try:
        said = json.loads(gen_args) if gen_args.strip() else {}
    except (ValueError, RecursionError) as error:
        raise UsageError(f"expected gen_args to be JSON, got {type(error).__name__}") from None
    if not isinstance(said, dict) or not said.keys() <= set(_KNOWN):
        raise UsageError(f"expected gen_args to be an object with keys of {', '.join(_KNOWN)}")
    sampler, format = said.get("sampler", ImageRequest.sampler), said.get("format", next(iter(MEDIA_TYPES)))
    if not isinstance(sampler, str) or not isinstance(format, str) or format not in MEDIA_TYPES:
        raise UsageError(f"expected sampler to be a text, and format one of {', '.join(MEDIA_TYPES)}")
    guidance = _number(said, "guidance_scale", GUIDANCE_SCALE)
    request = ImageRequest(
        prompt, None, negative_prompt, seed=_whole(said, "seed", ImageRequest.seed),
        steps=_whole(said, "num_inference_steps", STEPS),
        # To diffusers, whatever is at most 1 means not guided; its clients send 0 for it.
        guidance_scale=1.0 if 0 <= guidance < 1 else guidance,
        adapter_scale=_number(said, "adapter_scale", ImageRequest.adapter_scale), sampler=sampler,
        negative_scale=_number(said, "negative_scale", 0) if "negative_scale" in said else None,
    )  # fmt: skip
    return request, MEDIA_TYPES[format]


def _number(said: dict[str, Any], name: str, default: float) -> float:
    value = said.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e9:
        raise UsageError(f"expected {name} as a number")
    return float(value)


def _whole(said: dict[str, Any], name: str, default: int) -> int:
    value = said.get(name, default)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:  # sliders send 50.0
        value = int(value)
    if type(value) is not int:
        raise UsageError(f"expected {name} as a whole number")
    return value
