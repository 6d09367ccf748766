"""SageMaker's runtime protocol: POST /endpoints/{name}/invocations of a multi-model endpoint with Triton behind it.

Clients written for the reference solution work with nothing changed but `endpoint_url`: TargetModel is NAME.tar.gz,
the inputs are `prompt`, `negative_prompt` and `gen_args` (a JSON text), the outputs are `generated_image`, a JPEG in
base64, and `warnings`: which words were not read, mostly empty. Sources: botocore's model of sagemaker-runtime
2017-05-13, whose maxima clients do not check; the reference solution's config.pbtxt.
"""

import asyncio
import base64
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Protocol

from fastapi import APIRouter, Request, Response

from ..engine.gen_args import request_of
from ..engine.prompts import unread_of
from ..errors import UsageError
from ..types import SETUP_MODEL, ImageRequest, adapter_named
from . import kserve
from .auth import Asking
from .failures import SageMakerRefusal
from .generation import likeness_of, made, unless_gone

router = APIRouter(tags=["sagemaker"])

VARIANT = "AllTraffic"
_TARGET = re.compile(r"([a-z0-9][a-z0-9_-]{0,62})\.tar\.gz")

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


class Reply(Protocol):
    """What a model server answered, as it came."""

    @property
    def content_type(self) -> str: ...
    @property
    def body(self) -> bytes: ...


class Backend(Protocol):
    """A model server that stands between this protocol and the engine, such as Triton."""

    def submit(self, target: str, body: bytes, *, content_type: str, accept: str = "") -> Future[Reply]:
        """Ask TENANT/NAME.tar.gz. The future raises LikenessError; ModelFailed is what the server said.

        Raises:
            EngineBusy: too many requests wait.
        """


@router.post("/endpoints/{endpoint}/invocations", response_class=Response)
async def invoke_endpoint(request: Request, asking: Asking, endpoint: str) -> Response:
    """InvokeEndpoint."""
    check_headers(request)
    check_endpoint(request, endpoint)
    name = target_model(request.headers.get("x-amzn-sagemaker-target-model"))
    body, content_type = await request.body(), request.headers.get("content-type", "")
    backend: Backend | None = request.app.state.portrait_backend
    if backend is not None and name != SETUP_MODEL:
        accept = request.headers.get("accept", "")
        target = f"{asking.tenant}/{name}.tar.gz"
        work = asyncio.wrap_future(backend.submit(target, body, content_type=content_type, accept=accept))
        reply = await unless_gone(request, work)
        return _response(request, reply.body, reply.content_type)
    inference = kserve.read(body, content_type)
    if name == SETUP_MODEL:
        said = {"output": ["nothing to set up: the base is resident"]}
        return _answer(request, name, said, binary=inference.binary_output)
    asked = [_order(name, inference, row) for row in range(inference.rows)]
    images = await made(request, [order for order, _ in asked], tenant=asking.tenant)
    likeness = likeness_of(request)
    files = await asyncio.to_thread(
        lambda: [likeness.encode(image, media_type) for image, (_, media_type) in zip(images, asked, strict=True)]
    )
    columns = {
        "generated_image": [base64.b64encode(file).decode() for file in files],
        "warnings": ["; ".join(unread_of(likeness.base, image.request).remarks) for image in images],
    }
    return _answer(request, name, columns, binary=inference.binary_output)


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


def _order(name: str, inference: kserve.Inference, row: int) -> tuple[ImageRequest, str]:
    """What one row asks for, and the media type. Raises UsageError."""
    if not {"prompt"} <= inference.inputs.keys() <= {"prompt", "negative_prompt", "gen_args"}:
        raise UsageError("expected the inputs prompt and, if need be, negative_prompt and gen_args")
    given = {key: texts[row] for key, texts in inference.inputs.items()}
    order, media_type = request_of(given["prompt"], given.get("negative_prompt", ""), given.get("gen_args", ""))
    return replace(order, adapter=adapter_named(name)), media_type


def _answer(request: Request, model: str, columns: Mapping[str, Sequence[str]], *, binary: bool) -> Response:
    body, content_type = kserve.write(model, columns, binary=binary)
    return _response(request, body, content_type)


def _response(request: Request, body: bytes, content_type: str) -> Response:
    headers = {
        "Content-Type": content_type,
        "x-Amzn-Invoked-Production-Variant": VARIANT,
        "x-amzn-RequestId": request.state.request_id,
    }
    return Response(body, headers=headers)
