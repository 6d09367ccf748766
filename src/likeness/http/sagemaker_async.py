"""InvokeEndpointAsync of SageMaker's runtime protocol: photographs in by reference or inline, results as objects.

What the reference solution's notebook does works with nothing changed but endpoint URLs: upload a tar of photographs,
invoke, poll OutputLocation, take TargetModel from the result. Two differences, both in the caller's favour: the time
limit is an hour unless said (SageMaker's 15 minutes would end its own trainings), and a body may have 6 MiB, where
SageMaker takes 128,000 bytes. A third protects the person: config.json in the archive says `consent`, or the subject of
the adapter's name has it on record, or the training is refused.
Sources: botocore's model of sagemaker-runtime 2017-05-13; SageMaker Developer Guide, 'Asynchronous inference'.
"""

import asyncio
import json
import re
import uuid
from dataclasses import dataclass
from pathlib import PurePosixPath

from fastapi import APIRouter, Request, Response

from ..errors import LikenessError, QueueFull, StorageUnavailable, UsageError
from ..jobs.types import Invocation, JobOrder, Notice
from ..service.training import Training
from ..storage.objects import checked_key
from ..types import RESULTS, checked_new_name
from .auth import Asking
from .failures import SageMakerRefusal
from .jobs import training_of_app

router = APIRouter(tags=["sagemaker"])

DEFAULT_TIME_LIMIT_S, DEFAULT_TTL_S = 3600, 21_600
_PREFIX = "x-amzn-sagemaker-"
_ASCII, _PRINTED = r"[\x00-\x7f]*", r"[!-~][ -~]*"
# header -> most characters, pattern; as botocore's model has them, whose maxima clients do not check
_HEADERS = {
    "content-type": (1024, _ASCII),
    "accept": (1024, _ASCII),
    "custom-attributes": (1024, _ASCII),
    "inference-id": (64, _PRINTED),
    "inputlocation": (1024, r"(https|s3|file)://[^/]+.+|file:///.+"),
    "requestttlseconds": (5, r"[0-9]+"),
    "invocationtimeoutseconds": (4, r"[0-9]+"),
    "s3outputpathextension": (512, r"[a-zA-Z0-9!_.*'()/-]*"),
    "filename": (32, r"[a-zA-Z0-9_-]+(\.[a-zA-Z0-9_-]+)?"),
}


@dataclass(frozen=True)
class _Asked:
    """The headers, checked."""

    said: dict[str, str]

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        value = int(self.said.get(name, default))
        if not low <= value <= high:
            raise _refusal(name, f"be between {low} and {high}")
        return value


@router.post("/endpoints/{endpoint}/async-invocations", status_code=202, response_class=Response)
async def invoke_endpoint_async(request: Request, asking: Asking, endpoint: str) -> Response:
    """InvokeEndpointAsync."""
    training = training_of_app(request)
    if endpoint != training.settings.training_endpoint:
        raise SageMakerRefusal("The endpoint of this name was not found, or does not take asynchronous invocations.")
    asked, body = _checked(request), await request.body()
    location = asked.said.get("inputlocation")
    if (location is None) == (not body):
        raise SageMakerRefusal("Expected exactly one of InputLocation and a body.")
    try:
        call = await asyncio.to_thread(_submit, training, asking.tenant, asked, body)
    except (QueueFull, StorageUnavailable, SageMakerRefusal):
        raise
    except LikenessError as error:
        raise SageMakerRefusal(str(error)) from error
    headers = {
        "X-Amzn-SageMaker-OutputLocation": call.output_location,
        "X-Amzn-SageMaker-FailureLocation": call.failure_location,
    }
    content = json.dumps({"InferenceId": call.inference_id})
    return Response(content, 202, headers=headers, media_type="application/json")


def _submit(training: Training, tenant: str, asked: _Asked, body: bytes) -> Invocation:
    said, id = asked.said, uuid.uuid4().hex
    name = _name(said.get("filename"), id)
    output, failure = _places(training, tenant, said, id)
    elsewhere = said.get("inputlocation")
    call = Invocation(
        endpoint=training.settings.training_endpoint, inference_id=said.get("inference-id") or str(uuid.UUID(id)),
        input_location=elsewhere or "", output_location=output, failure_location=failure,
        content_type=said.get("content-type", "application/x-tar"), accept=said.get("accept", ""),
        custom_attributes=said.get("custom-attributes", ""),
    )  # fmt: skip
    order = JobOrder(
        tenant, name, elsewhere or "", training.class_noun(tenant, name), invocation=call,
        notices=tuple(_topics(training)), replace=False,
        time_limit_s=asked.whole("invocationtimeoutseconds", DEFAULT_TIME_LIMIT_S, 1, 3600),
        queue_limit_s=asked.whole("requestttlseconds", DEFAULT_TTL_S, 60, 21_600),
    )  # fmt: skip
    training.submit(order, archive=None if elsewhere else body)
    return call


def _places(training: Training, tenant: str, said: dict[str, str], id: str) -> tuple[str, str]:
    """Where result and failure will be written: below the tenant's own part of the outputs, whatever was asked for."""
    extension = said.get("s3outputpathextension", "").strip("/")
    parts = [tenant, *([extension] if extension else [])]
    file = said.get("filename") or f"{id}.out"
    output, failure = "/".join([*parts, file]), "/".join([tenant, "failures", f"{id}-error.out"])
    for key in (output, failure):
        checked_key(f"{RESULTS}/{key}")  # raises UsageError where it cannot be an object's
    return f"{training.outputs_url}/{output}", f"{training.outputs_url}/{failure}"


def _name(file: str | None, id: str) -> str:
    """The adapter's: the file's name without its ending where that can be one, else a new one."""
    try:
        return checked_new_name(PurePosixPath(file or "").stem)
    except UsageError:
        return f"avatar-{id[:8]}"


def _topics(training: Training) -> list[Notice]:
    settings = training.settings
    topics = {"success": settings.sns_success_topic, "failure": settings.sns_error_topic}
    return [Notice("sns", topic, when) for when, topic in topics.items() if topic]  # type: ignore[arg-type]


def _checked(request: Request) -> _Asked:
    """Raises SageMakerRefusal: a header longer or of another form than the protocol allows."""
    said = {}
    for name, (most, pattern) in _HEADERS.items():
        value = request.headers.get(_PREFIX + name)
        if value is None:
            continue
        if len(value) > most or not re.fullmatch(pattern, value):
            raise _refusal(name, f"have length less than or equal to {most} and satisfy its pattern")
        said[name] = value
    if said.get("inputlocation", "").startswith("https://"):
        raise SageMakerRefusal("Expected an input location of s3://; fetching from the web is not supported.")
    return _Asked(said)


def _refusal(name: str, rule: str) -> SageMakerRefusal:
    return SageMakerRefusal(
        f"1 validation error detected: Value at '{name}' failed to satisfy constraint: Member must {rule}"
    )
