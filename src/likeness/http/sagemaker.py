"""SageMaker's runtime protocol: POST /endpoints/{name}/invocations of a multi-model endpoint with Triton behind it.

Clients written for the reference solution work with nothing changed but `endpoint_url`: TargetModel is NAME.tar.gz,
the inputs are `prompt`, `negative_prompt` and `gen_args` (a JSON text), the output is `generated_image`, a JPEG in
base64. Sources: botocore's model of sagemaker-runtime 2017-05-13, whose maxima clients do not check; the reference
solution's config.pbtxt.
"""

import base64
import re
from typing import Any

from fastapi import APIRouter, Request, Response

from ..errors import UsageError
from ..portraits import JPEG
from ..types import ImageRequest
from . import kserve
from .auth import Asking
from .failures import SageMakerRefusal
from .pictures import adapter_asked, encoded, likeness_of, made

router = APIRouter(tags=["sagemaker"])

VARIANT = "AllTraffic"
SETUP_MODEL = "model_setup"  # the reference solution's clients invoke it first; here nothing is to set up
_TARGET = re.compile(r"([a-z0-9][a-z0-9_-]{0,62})\.tar\.gz")
_ARGUMENTS = frozenset({"num_inference_steps", "guidance_scale", "seed"})
_DEFAULT_STEPS, _DEFAULT_GUIDANCE = 50, 7.5  # of diffusers' own pipeline, for gen_args that leave them out

_ASCII, _PRINTED, _LABEL = r"[\x00-\x7f]*", r"[!-~][ -~]*", r"[a-zA-Z0-9](-*[a-zA-Z0-9])*"
# header -> most characters, pattern; as botocore's model has them
_HEADERS: dict[str, tuple[int, str]] = {
    "content-type": (1024, _ASCII),
    "accept": (1024, _ASCII),
    "x-amzn-sagemaker-custom-attributes": (1024, _ASCII),
    "x-amzn-sagemaker-target-model": (1024, _PRINTED),
    "x-amzn-sagemaker-target-variant": (63, _LABEL),
    "x-amzn-sagemaker-target-container-hostname": (63, _LABEL),
    "x-amzn-sagemaker-inference-id": (64, _PRINTED),
    "x-amzn-sagemaker-enable-explanations": (64, _ASCII),
    "x-amzn-sagemaker-inference-component": (63, _LABEL),
    "x-amzn-sagemaker-session-id": (256, rf"NEW_SESSION|{_LABEL}"),
}


@router.post("/endpoints/{endpoint}/invocations", response_class=Response)
async def invoke_endpoint(request: Request, asking: Asking, endpoint: str) -> Response:
    """InvokeEndpoint."""
    check_headers(request)
    check_endpoint(request, endpoint)
    name = target_model(request.headers.get("x-amzn-sagemaker-target-model"))
    inference = kserve.read(await request.body(), request.headers.get("content-type", ""))
    if name == SETUP_MODEL:
        return _answer(request, name, "output", ["nothing to set up: the base is resident"], inference.binary_output)
    asked = [_order(name, inference, row) for row in range(inference.rows)]
    images = await made(request, asked, tenant=asking.tenant)
    files = await encoded(likeness_of(request), images, JPEG)
    texts = [base64.b64encode(file).decode() for file in files]
    return _answer(request, name, "generated_image", texts, inference.binary_output)


def check_headers(request: Request) -> None:
    """Raises SageMakerRefusal: a header longer or of another form than the protocol allows."""
    for header, (most, pattern) in _HEADERS.items():
        value = request.headers.get(header)
        if value is not None and (len(value) > most or not re.fullmatch(pattern, value)):
            raise SageMakerRefusal(
                f"1 validation error detected: Value at '{header}' failed to satisfy constraint: "
                f"Member must have length less than or equal to {most} and satisfy its pattern"
            )


def check_endpoint(request: Request, endpoint: str) -> None:
    """Raises SageMakerRefusal: no such endpoint, or one that takes asynchronous invocations only."""
    settings = likeness_of(request).settings
    if endpoint == settings.training_endpoint:
        raise SageMakerRefusal(
            f"Endpoint {settings.training_endpoint} accepts asynchronous invocations only. Use InvokeEndpointAsync."
        )
    if endpoint != settings.portrait_endpoint:
        raise SageMakerRefusal("The endpoint of this name was not found.")


def target_model(target: str | None) -> str:
    """NAME of NAME.tar.gz. Raises SageMakerRefusal."""
    if target is None:
        raise SageMakerRefusal(
            "This is a multi-model endpoint: expected the header X-Amzn-SageMaker-Target-Model, NAME.tar.gz.",
            error_code="TARGET_MODEL_HEADER_MISSING",
        )
    found = _TARGET.fullmatch(target.removeprefix("/"))
    if found is None:
        raise SageMakerRefusal("Failed to download model data. Expected a target model of the form NAME.tar.gz.")
    return found[1]


def _order(name: str, inference: kserve.Inference, row: int) -> ImageRequest:
    """What one row asks for. Raises UsageError."""
    if not {"prompt"} <= inference.inputs.keys() <= {"prompt", "negative_prompt", "gen_args"}:
        raise UsageError("expected the inputs prompt and, if need be, negative_prompt and gen_args")
    given = {key: texts[row] for key, texts in inference.inputs.items()}
    arguments = kserve.read_object(given.get("gen_args", "{}"))
    if not arguments.keys() <= _ARGUMENTS:
        raise UsageError(f"expected gen_args of {', '.join(sorted(_ARGUMENTS))}")
    guidance = _number(arguments, "guidance_scale", _DEFAULT_GUIDANCE)
    return ImageRequest(
        given["prompt"], adapter_asked(name), given.get("negative_prompt", ""),
        seed=_whole(arguments, "seed", 0),
        steps=_whole(arguments, "num_inference_steps", _DEFAULT_STEPS),
        # To diffusers, whatever is at most 1 means not guided; its clients send 0 for it.
        guidance_scale=1.0 if 0 <= guidance < 1 else guidance,
    )  # fmt: skip


def _number(arguments: dict[str, object], name: str, default: float) -> float:
    value = arguments.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e9:
        raise UsageError(f"expected {name} as a number")
    return float(value)


def _whole(arguments: dict[str, object], name: str, default: int) -> int:
    value: Any = arguments.get(name, default)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:  # sliders send 50.0
        value = int(value)
    if type(value) is not int:
        raise UsageError(f"expected {name} as a whole number")
    return value


def _answer(request: Request, model: str, name: str, texts: list[str], binary: bool) -> Response:
    body, content_type = kserve.write(model, name, texts, binary=binary)
    headers = {
        "Content-Type": content_type,
        "x-Amzn-Invoked-Production-Variant": VARIANT,
        "x-amzn-RequestId": request.state.request_id,
    }
    return Response(body, headers=headers)
