"""Messages about a job that has ended: SageMaker's asynchronous inference message, its result and failure objects.

Pure: a job in, messages out. Fields as in the SageMaker Developer Guide, 'Check prediction results' (asynchronous
inference); a failure has `failureReason` and no `responseParameters`. A message's id depends on the job and the
recipient only, so a receiver can recognise a message that is delivered twice.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from ..types import TRAINING_ENDPOINT
from .job import Job, Notice
from .locations import artifact_url

LOCAL_REGION = "local"
COMPLETED = "Training Completed!"  # what the reference solution's notebook waits for
TEST_NOTIFICATION = {"eventVersion": "1.0", "eventSource": "aws:sagemaker", "eventName": "TestNotification"}


@dataclass(frozen=True)
class Message:
    """One message to one recipient."""

    id: str
    job: str
    tenant: str
    kind: str  # a NoticeKind
    target: str
    body: str  # JSON
    place: int  # among the job's messages: a result object is written before the messages that mention it


def messages_about(job: Job) -> Iterator[Message]:
    """All messages about a job that has ended."""
    good = job.state == "succeeded"
    place = 0
    if (call := job.order.invocation) is not None:
        location = call.output_location if good else call.failure_location
        yield _message(job, Notice("object", location), json.dumps(result_document(job)), place)
    for notice in job.order.notices:
        if notice.when == "always" or (notice.when == "success") == good:
            place += 1
            region = notice.target.split(":")[3] if notice.kind == "sns" else LOCAL_REGION
            yield _message(job, notice, json.dumps(inference_message(job, region)), place)


def inference_message(job: Job, region: str) -> dict[str, object]:
    """SageMaker's message about a job that is over."""
    call = job.order.invocation
    request = {
        "contentType": call.content_type if call else "application/x-tar",
        "endpointName": call.endpoint if call else TRAINING_ENDPOINT,
        "inputLocation": call.input_location if call else job.order.photos,
    }
    if call and call.accept:
        request["accept"] = call.accept
    if call and call.custom_attributes:
        request["customAttributes"] = call.custom_attributes
    message: dict[str, object] = {
        "awsRegion": region,
        "eventTime": iso_time(job.finished_s or job.submitted_s),
        "receivedTime": iso_time(job.submitted_s),
        "invocationStatus": "Completed" if job.state == "succeeded" else "Failed",
        "requestParameters": request,
    }
    if job.state == "succeeded":
        location = call.output_location if call else f"/v1/adapters/{job.order.name}"
        message["responseParameters"] = {"contentType": "application/json", "outputLocation": location}
    else:
        message["failureReason"] = f"ClientError: {failure_text(job)}"
    return message | {
        "inferenceId": call.inference_id if call else job.id,
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }


def result_document(job: Job) -> dict[str, object]:
    """The result or failure object; its first two keys are the reference solution's own."""
    facts: dict[str, object] = {"job": job.id, "name": job.order.name}
    if job.state == "succeeded":
        return {
            "status": COMPLETED,
            "output_location": artifact_url(job.order),
            "adapter_sha256": job.adapter_sha256,
            **facts,
        }
    failure = job.failure
    return {
        "status": job.state, "error": failure.code if failure else job.state, "message": failure_text(job), **facts
    }  # fmt: skip


def failure_text(job: Job) -> str:
    """Reason and hint in one line."""
    if job.failure is None:
        return job.state
    return f"{job.failure.reason} ({job.failure.hint})" if job.failure.hint else job.failure.reason


def iso_time(at_s: float) -> str:
    """2022-01-25T22:46:00.608Z"""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(job: Job, notice: Notice, body: str, place: int) -> Message:
    id = hashlib.sha256(f"{job.id} {notice.kind} {notice.target}".encode()).hexdigest()[:32]
    return Message(id, job.id, job.order.tenant, notice.kind, notice.target, body, place)
