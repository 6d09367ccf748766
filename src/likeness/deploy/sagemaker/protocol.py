"""SageMaker's runtime protocol as one `WireProtocol` of the HTTP application: its routes, headers and errors.

Source: botocore's model of sagemaker-runtime 2017-05-13. Clients do not check its limits, so the server does.
"""

import json
import re
from collections.abc import Mapping

from fastapi import Request

from ...errors import EngineBusy, KeyRefused, LikenessError, NotFound, StorageUnavailable
from ...http.failures import AccessError, Failure, NoSuchRoute, TooManyRequests, Unforeseen

PREFIX = "/endpoints/"
MAX_BODY_BYTES = 6 << 20  # SageMaker's own limit
ASCII, PRINTED, LABEL = r"[\x00-\x7f]*", r"[!-~][ -~]*", r"[a-zA-Z0-9](-*[a-zA-Z0-9])*"

Rule = tuple[int, str]  # of a header: most characters, pattern


class SageMakerRefusal(LikenessError):
    """A ValidationError: refused by the endpoint, not by the model.

    Args:
        error_code: SageMaker's own ErrorCode, where it has one.
    """

    def __init__(self, message: str, *, error_code: str = "") -> None:
        super().__init__(message)
        self.error_code = error_code


def checked_headers(request: Request, rules: Mapping[str, Rule], *, prefix: str = "") -> dict[str, str]:
    """The headers that a request has of `rules`, by their names without prefix. Raises SageMakerRefusal."""
    found = {name: value for name in rules if (value := request.headers.get(prefix + name)) is not None}
    for name, value in found.items():
        most, pattern = rules[name]
        if len(value) > most or not re.fullmatch(pattern, value):
            raise constraint_failed(name, f"have length less than or equal to {most} and satisfy its pattern")
    return found


def constraint_failed(name: str, rule: str) -> SageMakerRefusal:
    """The error of a value that is out of its range, worded as SageMaker does."""
    return SageMakerRefusal(
        f"1 validation error detected: Value at '{name}' failed to satisfy constraint: Member must {rule}"
    )


def failure(error: LikenessError, request_id: str) -> Failure:
    """The error in SageMaker's shape."""
    match error:
        case KeyRefused():
            name, status = "UnrecognizedClientException", 403
        case TooManyRequests():
            name, status = "ThrottlingException", 429
        case EngineBusy(code="EngineBusy"):
            name, status = "ServiceUnavailable", 503
        case StorageUnavailable():
            name, status = "ModelNotReadyException", 429  # clients retry it
        case SageMakerRefusal() | AccessError() | NoSuchRoute() | NotFound():
            name, status = "ValidationError", 400
        case Unforeseen():
            name, status = "InternalFailure", 500
        case _:
            return _model_error(error, request_id)
    document: dict[str, object] = {"Message": str(error)}
    if isinstance(error, SageMakerRefusal) and error.error_code:
        document["ErrorCode"] = error.error_code
    return Failure(status, document, {"x-amzn-ErrorType": name, "x-amzn-RequestId": request_id})


def _model_error(error: LikenessError, request_id: str) -> Failure:
    """An error of the model's container, wrapped as SageMaker wraps it."""
    status = 0 if isinstance(error, EngineBusy) else error.http_status
    kind = "client" if 400 <= status < 500 else "server"
    document = {
        "Message": f'Received {kind} error ({status}) from model with message "{error}"',
        "OriginalStatusCode": status,
        "OriginalMessage": json.dumps({"error": str(error)}),
        "LogStreamArn": "",
    }
    return Failure(424, document, {"x-amzn-ErrorType": "ModelError", "x-amzn-RequestId": request_id})
