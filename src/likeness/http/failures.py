"""Error responses in the format of the protocol (ours, SageMaker's or OpenAI's), chosen by the path.

Messages are those of `errors`, which never repeat user text. An unexpected error is reported without details. Sources:
the model of botocore's `sagemaker-runtime`; OpenAI's API reference, 'Error codes'.
"""

import json
from dataclasses import dataclass
from math import ceil

from starlette.responses import Response

from ..errors import (
    AccessError,
    AdapterNotFound,
    DeadlinePassed,
    EngineBusy,
    HostUnavailable,
    KeyRefused,
    LikenessError,
    ModelFailed,
    RequestTooLarge,
    StorageUnavailable,
    TooManyRequests,
)

SAGEMAKER, OPENAI = "/endpoints/", "/openai/"


class Unforeseen(LikenessError):
    """The response to an unexpected error."""

    http_status = 500


class NoSuchRoute(LikenessError):
    """Unknown path or method."""

    def __init__(self, status: int) -> None:
        super().__init__("expected a path and method of this API", hint="/openapi.json lists all paths")
        self.http_status = status


class SageMakerRefusal(LikenessError):
    """A ValidationError: an error of SageMaker itself, not of the model.

    Args:
        code: SageMaker's ErrorCode, if it has one.
    """

    def __init__(self, message: str, *, error_code: str = "") -> None:
        super().__init__(message)
        self.error_code = error_code


@dataclass(frozen=True)
class Failure:
    """An error response."""

    status: int
    document: dict[str, object]
    headers: dict[str, str]

    def response(self) -> Response:
        return Response(json.dumps(self.document), self.status, headers=self.headers, media_type="application/json")


def failure(error: LikenessError, path: str, request_id: str) -> Failure:
    """The error in the format of the protocol of `path`."""
    if path.startswith(SAGEMAKER):
        shaped = _sagemaker(error)
    elif path.startswith(OPENAI):
        shaped = _openai(error)
    else:
        shaped = _ours(error)
    headers = shaped.headers
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None and shaped.status in (429, 503):  # it has no meaning with other statuses
        headers["Retry-After"] = str(max(ceil(retry_after_s), 1))
    if isinstance(error, AccessError):
        headers["Connection"] = "close"  # the rest of the body is not read
    headers["X-Request-Id"] = request_id
    if path.startswith(SAGEMAKER):
        headers["x-amzn-RequestId"] = request_id
    return shaped


def _ours(error: LikenessError) -> Failure:
    said = {"code": error.code, "message": error.message, "hint": error.hint}
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, KeyRefused) else {}
    return Failure(error.http_status, {"error": said}, headers)


def _sagemaker(error: LikenessError) -> Failure:
    message = str(error)
    match error:
        case KeyRefused():
            name, status = "UnrecognizedClientException", 403
        case TooManyRequests():
            name, status = "ThrottlingException", 429
        case EngineBusy() | HostUnavailable():
            name, status = "ServiceUnavailable", 503
        case StorageUnavailable():
            name, status = "ModelNotReadyException", 429  # temporarily unavailable; clients retry
        case SageMakerRefusal() | AccessError() | NoSuchRoute() | AdapterNotFound():
            name, status = "ValidationError", 400
        case Unforeseen():
            name, status = "InternalFailure", 500
        case _:
            return _model_error(error)
    document: dict[str, object] = {"Message": message}
    if isinstance(error, SageMakerRefusal) and error.error_code:
        document["ErrorCode"] = error.error_code
    return Failure(status, document, {"x-amzn-ErrorType": name})


def _model_error(error: LikenessError) -> Failure:
    """The container's error response, wrapped as by SageMaker."""
    status = error.status if isinstance(error, ModelFailed) else error.http_status
    if isinstance(error, DeadlinePassed):
        status = 0
    kind = "client" if 400 <= status < 500 else "server"
    document = {
        "Message": f'Received {kind} error ({status}) from model with message "{error}"',
        "OriginalStatusCode": status,
        "OriginalMessage": json.dumps({"error": str(error)}),
        "LogStreamArn": "",
    }
    return Failure(424, document, {"x-amzn-ErrorType": "ModelError"})


def _openai(error: LikenessError) -> Failure:
    status, kind, code, param = error.http_status, "invalid_request_error", None, getattr(error, "param", None)
    match error:
        case KeyRefused():
            code = "invalid_api_key"
        case AdapterNotFound():
            code, param = "model_not_found", "model"
        case TooManyRequests():
            kind = code = "rate_limit_exceeded"
        case EngineBusy():
            kind, code = "server_error", "overloaded"
        case RequestTooLarge():
            code = "request_too_large"
        case _ if status >= 500:
            kind = "server_error"
    return Failure(status, {"error": {"message": str(error), "type": kind, "param": param, "code": code}}, {})
