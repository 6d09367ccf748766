"""A client of the stack's endpoints, with the steps of the reference solution's notebook: fine-tune, wait, invoke."""

import base64
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ...jobs.inputs import pack_photos
from ...types import Photo
from ..payload import INPUTS
from .aws import Aws, HostUnavailable, ModelFailed, Refused
from .stack import Stack

POLL_S = 10.0
_ABSENT = ("NoSuchKey", "404")


def fine_tune(stack: Stack, photos: Sequence[Photo], config: Mapping[str, Any]) -> dict[str, str]:
    """Upload photographs and queue a fine-tune.

    Args:
        config: the content of config.json: name, class_noun, recipe, seed and fields of the recipe.

    Returns:
        `inference_id`, `output_location`, `failure_location`.

    Raises:
        Refused, HostUnavailable: of AWS.
    """
    bucket, key = stack.bucket(), f"inputs/{secrets.token_hex(16)}.tar"
    stack.calls.call("s3", "put_object", Bucket=bucket, Key=key, Body=pack_photos(photos, config))
    answer = stack.calls.call(
        "sagemaker-runtime", "invoke_endpoint_async", EndpointName=stack.endpoint("TuningEndpoint"),
        ContentType="application/x-tar", InputLocation=f"s3://{bucket}/{key}", InvocationTimeoutSeconds=3600,
    )  # fmt: skip
    return {
        "inference_id": answer.get("InferenceId", ""), "output_location": answer.get("OutputLocation", ""),
        "failure_location": answer.get("FailureLocation", ""),
    }  # fmt: skip


def wait_for(calls: Aws, queued: Mapping[str, str], *, limit_s: float, poll_s: float = POLL_S) -> dict[str, Any]:
    """The result of a fine-tune; polls the output and failure objects, as SageMaker's SDK does.

    Raises:
        ModelFailed: the failure's text.
        HostUnavailable: neither object within `limit_s`; a job that never began leaves none, only a notification.
    """
    end_s = time.monotonic() + limit_s
    while True:
        output = _object_at(calls, queued["output_location"])
        if output is not None:
            document: dict[str, Any] = json.loads(output)
            return document
        failure = _object_at(calls, queued["failure_location"]) if queued["failure_location"] else None
        if failure is not None:
            raise ModelFailed(failure.decode(errors="replace")[:1000])
        if time.monotonic() > end_s:
            raise HostUnavailable("the fine-tune was not done in time", hint="its topic reports failures too")
        time.sleep(poll_s)


def portrait(stack: Stack, target_model: str, texts: Sequence[str]) -> bytes:
    """A portrait's file; empty in a dry run.

    Args:
        texts: prompt, negative prompt, and gen_args as JSON.

    Raises:
        Refused, HostUnavailable: of AWS.
    """
    inputs = [
        {"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [[text]]}
        for name, text in zip(INPUTS, texts, strict=True)
    ]
    answer = stack.calls.call(
        "sagemaker-runtime", "invoke_endpoint", EndpointName=stack.endpoint("HostingEndpoint"),
        TargetModel=target_model, ContentType="application/json", Body=json.dumps({"inputs": inputs}).encode(),
    )  # fmt: skip
    if "Body" not in answer:
        return b""
    output = json.loads(answer["Body"].read())["outputs"][0]
    return base64.b64decode(output["data"][0])


def _object_at(calls: Aws, url: str) -> bytes | None:
    parts = urlsplit(url)
    try:
        content: bytes = calls.call("s3", "get_object", Bucket=parts.netloc, Key=parts.path[1:])["Body"].read()
    except Refused as error:
        if error.reason in _ABSENT:
            return None
        raise
    return content
