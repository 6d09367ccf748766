"""`gen_args` of the reference solution: a JSON text with the numbers of one portrait, as Triton's clients send it.

theirs: {"num_inference_steps": 30, "guidance_scale": 7.5, "seed": 1}
ours:   {"adapter_scale": 1.0, "sampler": "dpmpp_2m", "format": "png"}
"""

import json

from ..errors import UsageError
from ..portraits import JPEG, PNG, check_request
from ..types import ImageRequest

MEDIA_TYPES = {"png": PNG, "jpeg": JPEG}
_NUMBERS = ("num_inference_steps", "guidance_scale", "seed", "adapter_scale")
_KNOWN = (*_NUMBERS, "sampler", "format")


def request_of(prompt: str, negative_prompt: str, gen_args: str, *, guidance_scale: float) -> tuple[ImageRequest, str]:
    """The request and the media type of its picture.

    Args:
        gen_args: empty for none.
        guidance_scale: where gen_args has none. Below 1 theirs means 'not guided', which is 1 here.

    Raises:
        UsageError: no JSON object, an unknown key, a value of another kind or out of its range.
    """
    try:
        said = json.loads(gen_args) if gen_args.strip() else {}
    except (ValueError, RecursionError) as error:
        raise UsageError(f"expected gen_args to be JSON, got {type(error).__name__}") from None
    if not isinstance(said, dict) or not said.keys() <= set(_KNOWN):
        raise UsageError(f"expected gen_args to be an object with keys of {', '.join(_KNOWN)}")
    for name in _NUMBERS:
        if name in said and (isinstance(said[name], bool) or not isinstance(said[name], int | float)):
            raise UsageError(f"expected {name} to be a number, got {type(said[name]).__name__}")
    for name in ("num_inference_steps", "seed"):
        if not isinstance(said.get(name, 0), int):
            raise UsageError(f"expected {name} to be a whole number")
    sampler, format = said.get("sampler", ImageRequest.sampler), said.get("format", "png")
    if not isinstance(sampler, str) or format not in MEDIA_TYPES:
        raise UsageError(f"expected sampler to be a text, and format one of {', '.join(MEDIA_TYPES)}")
    request = ImageRequest(
        prompt, None, negative_prompt, said.get("seed", ImageRequest.seed),
        said.get("num_inference_steps", ImageRequest.steps), max(1.0, said.get("guidance_scale", guidance_scale)),
        said.get("adapter_scale", ImageRequest.adapter_scale), sampler,
    )  # fmt: skip
    return check_request(request), MEDIA_TYPES[format]
