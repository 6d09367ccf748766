"""InvokeEndpoint: POST /endpoints/{name}/invocations, as of a multi-model endpoint with Triton in its container.

A client of the reference solution changes nothing but `endpoint_url`: TargetModel is NAME.tar.gz, payload and response
are those of `deploy.payload`. Sources: botocore's model of sagemaker-runtime; the reference solution's config.pbtxt.
"""

import asyncio
import re
from dataclasses import replace

from fastapi import APIRouter, Request, Response

from ...engine.prompts import unread_of
from ...http.auth import Asking
from ...http.generation import likeness_of, made
from ...types import SETUP_MODEL, blend_of
from .. import kserve
from ..payload import requests_of, response
from .protocol import ASCII, LABEL, PRINTED, SageMakerRefusal, checked_headers

router = APIRouter(tags=["sagemaker"])

VARIANT = "AllTraffic"
_TARGET = re.compile(r"/?([a-z0-9][a-z0-9_-]{0,62})\.tar\.gz")
_PREFIX = "x-amzn-sagemaker-"
_HEADERS = {
    "content-type": (1024, ASCII),
    "accept": (1024, ASCII),
    f"{_PREFIX}custom-attributes": (1024, ASCII),
    f"{_PREFIX}target-model": (1024, PRINTED),
    f"{_PREFIX}target-variant": (63, LABEL),
    f"{_PREFIX}target-container-hostname": (63, LABEL),
    f"{_PREFIX}inference-id": (64, PRINTED),
    f"{_PREFIX}enable-explanations": (64, ASCII),
    f"{_PREFIX}inference-component": (63, LABEL),
    f"{_PREFIX}session-id": (256, rf"NEW_SESSION|{LABEL}"),
}


@router.post("/endpoints/{endpoint}/invocations", response_class=Response)
async def invoke_endpoint(request: Request, asking: Asking, endpoint: str) -> Response:
    """InvokeEndpoint."""
    headers = checked_headers(request, _HEADERS)
    _check_endpoint(request, endpoint)
    name = _adapter_name(headers.get(f"{_PREFIX}target-model"))
    inference = kserve.read(await request.body(), headers.get("content-type", ""))
    if name == SETUP_MODEL:
        texts = ["nothing to set up: the base is resident"]
        return _response(request, *kserve.write(name, {"output": texts}, binary=inference.binary_output))
    asked = [
        (replace(one, adapters=blend_of(name) + one.adapters), media_type) for one, media_type in requests_of(inference)
    ]
    images = await made(request, [one for one, _ in asked], tenant=asking.tenant)
    likeness = likeness_of(request)
    files = await asyncio.to_thread(
        lambda: [likeness.encode(image, media_type) for image, (_, media_type) in zip(images, asked, strict=True)]
    )
    remarks = [unread_of(likeness.base, image.request).remarks for image in images]
    return _response(request, *response(name, files, remarks, binary=inference.binary_output))


def _check_endpoint(request: Request, endpoint: str) -> None:
    settings = likeness_of(request).settings
    if endpoint == settings.training_endpoint:
        raise SageMakerRefusal(
            f"Endpoint {settings.training_endpoint} accepts asynchronous invocations only. Use InvokeEndpointAsync."
        )
    if endpoint != settings.portrait_endpoint:
        raise SageMakerRefusal("The endpoint of this name was not found.")


def _adapter_name(target_model: str | None) -> str:
    """NAME of NAME.tar.gz. Raises SageMakerRefusal."""
    if target_model is None:
        raise SageMakerRefusal(
            "This is a multi-model endpoint: expected the header X-Amzn-SageMaker-Target-Model, NAME.tar.gz.",
            error_code="TARGET_MODEL_HEADER_MISSING",
        )
    found = _TARGET.fullmatch(target_model)
    if found is None:
        raise SageMakerRefusal("Failed to download model data. Expected a target model of the form NAME.tar.gz.")
    return found[1]


def _response(request: Request, body: bytes, content_type: str) -> Response:
    headers = {
        "Content-Type": content_type,
        "x-Amzn-Invoked-Production-Variant": VARIANT,
        "x-amzn-RequestId": request.state.request_id,
    }
    return Response(body, headers=headers)
