"""InvokeEndpointAsync: POST /endpoints/{name}/async-invocations. Photographs in, an adapter and a result object out.

The reference solution's notebook changes nothing but endpoint URLs: it uploads a tar of photographs, invokes, polls
OutputLocation and takes TargetModel from the result. Differences to SageMaker:

* the default time limit is an hour; SageMaker's 15 minutes would end its own trainings;
* a body may have 6 MiB; SageMaker takes 128,000 bytes;
* a person is trained only with consent: in config.json of the archive, or on record for the adapter's name.

Sources: botocore's model of sagemaker-runtime; SageMaker Developer Guide, 'Asynchronous inference'.
"""

import asyncio
import json
import uuid
from collections.abc import Mapping
from pathlib import PurePosixPath

from fastapi import APIRouter, Request, Response

from ...errors import LikenessError, QueueFull, StorageUnavailable, UsageError
from ...http.auth import Asking
from ...http.job_routes import training_of_app
from ...jobs.job import Invocation, JobOrder, Notice
from ...service.training import Training
from ...storage.objects import checked_key
from ...types import RESULTS, checked_new_name
from .protocol import ASCII, PRINTED, SageMakerRefusal, checked_headers, constraint_failed

router = APIRouter(tags=["sagemaker"])

_HEADERS = {
    "content-type": (1024, ASCII),
    "accept": (1024, ASCII),
    "custom-attributes": (1024, ASCII),
    "inference-id": (64, PRINTED),
    "inputlocation": (1024, r"(https|s3|file)://[^/]+.+|file:///.+"),
    "requestttlseconds": (5, r"[0-9]+"),
    "invocationtimeoutseconds": (4, r"[0-9]+"),
    "s3outputpathextension": (512, r"[a-zA-Z0-9!_.*'()/-]*"),
    "filename": (32, r"[a-zA-Z0-9_-]+(\.[a-zA-Z0-9_-]+)?"),
}


@router.post("/endpoints/{endpoint}/async-invocations", status_code=202, response_class=Response)
async def invoke_endpoint_async(request: Request, asking: Asking, endpoint: str) -> Response:
    """InvokeEndpointAsync."""
    training = training_of_app(request)
    if endpoint != training.settings.training_endpoint:
        raise SageMakerRefusal("The endpoint of this name was not found, or does not take asynchronous invocations.")
    headers, body = checked_headers(request, _HEADERS, prefix="x-amzn-sagemaker-"), await request.body()
    location = headers.get("inputlocation", "")
    if location.startswith("https://"):
        raise SageMakerRefusal("Expected an input location of s3://; fetching from the web is not supported.")
    if bool(location) == bool(body):
        raise SageMakerRefusal("Expected exactly one of InputLocation and a body.")
    try:
        invocation = await asyncio.to_thread(_submit, training, asking.tenant, headers, body)
    except (QueueFull, StorageUnavailable, SageMakerRefusal):
        raise
    except LikenessError as error:
        raise SageMakerRefusal(str(error)) from error
    locations = {
        "X-Amzn-SageMaker-OutputLocation": invocation.output_location,
        "X-Amzn-SageMaker-FailureLocation": invocation.failure_location,
    }
    content = json.dumps({"InferenceId": invocation.inference_id})
    return Response(content, 202, headers=locations, media_type="application/json")


def _submit(training: Training, tenant: str, headers: Mapping[str, str], body: bytes) -> Invocation:
    id = uuid.uuid4().hex
    name, location = _adapter_name(headers.get("filename"), id), headers.get("inputlocation", "")
    output, failure = _locations(training, tenant, headers, id)
    invocation = Invocation(
        endpoint=training.settings.training_endpoint, inference_id=headers.get("inference-id") or str(uuid.UUID(id)),
        input_location=location, output_location=output, failure_location=failure,
        content_type=headers.get("content-type", "application/x-tar"), accept=headers.get("accept", ""),
        custom_attributes=headers.get("custom-attributes", ""),
    )  # fmt: skip
    order = JobOrder(
        tenant, name, location, training.class_noun(tenant, name), invocation=invocation,
        notices=tuple(_topics(training)), replace=False,
        time_limit_s=_integer(headers, "invocationtimeoutseconds", JobOrder.time_limit_s, 1, 3600),
        queue_limit_s=_integer(headers, "requestttlseconds", JobOrder.queue_limit_s, 60, 21_600),
    )  # fmt: skip
    training.submit(order, archive=None if location else body)
    return invocation


def _locations(training: Training, tenant: str, headers: Mapping[str, str], id: str) -> tuple[str, str]:
    """URLs of result and failure, always below the tenant's own folder of the outputs."""
    extension = headers.get("s3outputpathextension", "").strip("/")
    parts = [tenant, *([extension] if extension else [])]
    file = headers.get("filename") or f"{id}.out"
    output, failure = "/".join([*parts, file]), "/".join([tenant, "failures", f"{id}-error.out"])
    for key in (output, failure):
        checked_key(f"{RESULTS}/{key}")  # raises UsageError
    return f"{training.outputs_url}/{output}", f"{training.outputs_url}/{failure}"


def _adapter_name(file: str | None, id: str) -> str:
    """The file's name without its ending if an adapter may have it, else a new name."""
    try:
        return checked_new_name(PurePosixPath(file or "").stem)
    except UsageError:
        return f"avatar-{id[:8]}"


def _topics(training: Training) -> list[Notice]:
    settings = training.settings
    topics = {"success": settings.sns_success_topic, "failure": settings.sns_error_topic}
    return [Notice("sns", topic, when) for when, topic in topics.items() if topic]  # type: ignore[arg-type]


def _integer(headers: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    value = int(headers.get(name, default))
    if not low <= value <= high:
        raise constraint_failed(name, f"be between {low} and {high}")
    return value
