"""Error responses in the format of the protocol (ours, OpenAI's or a `WireProtocol`'s), chosen by the path.

Messages are those of `errors`, which never repeat user text. An unexpected error is reported without details. Source:
OpenAI's API reference, 'Error codes'.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

from starlette.responses import Response

from ..errors import (
    EngineBusy,
    KeyRefused,
    LikenessError,
    NotFound,
)


class AccessError(LikenessError):
    """The request is refused before its body is read; the connection is closed."""


class TooManyRequests(AccessError):
    """Args: retry_after_s: when the key may be used again."""

    http_status = 429

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class OriginRefused(AccessError):
    """A web page of another site sent the request, or it names another host."""

    http_status = 403


class RequestTooLarge(AccessError):
    http_status = 413


class MediaTypeRefused(AccessError):
    """The body is of a media type that the route does not take."""

    http_status = 415


class RequestTooSlow(AccessError):
    """The body did not arrive in time."""

    http_status = 408


class Unforeseen(LikenessError):
    """The response to an unexpected error."""

    http_status = 500


class NoSuchRoute(LikenessError):
    """Unknown path or method."""

    def __init__(self, status: int) -> None:
        super().__init__("expected a path and method of this API", hint="/openapi.json lists all paths")
        self.http_status = status


@dataclass(frozen=True)
class Failure:
    """An error response."""

    status: int
    document: dict[str, object]
    headers: dict[str, str]

    def response(self) -> Response:
        return Response(json.dumps(self.document), self.status, headers=self.headers, media_type="application/json")


Shape = Callable[[LikenessError, str], Failure]  # error and id of the request -> answer


def failure(error: LikenessError, path: str, request_id: str, shapes: Mapping[str, Shape] | None = None) -> Failure:
    """The error in the format of the protocol of `path`.

    Args:
        shapes: by path prefix; ours elsewhere.
    """
    found = (shape for prefix, shape in (shapes or SHAPES).items() if path.startswith(prefix))
    shaped = next(found, _ours)(error, request_id)
    headers = shaped.headers
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None and shaped.status in (429, 503):  # it has no meaning with other statuses
        headers["Retry-After"] = str(max(ceil(retry_after_s), 1))
    if isinstance(error, AccessError | KeyRefused):
        headers["Connection"] = "close"  # the rest of the body is not read
    headers["X-Request-Id"] = request_id
    return shaped


def _ours(error: LikenessError, request_id: str) -> Failure:
    said = {"code": error.code, "message": error.message, "hint": error.hint}
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, KeyRefused) else {}
    return Failure(error.http_status, {"error": said}, headers)


def _openai(error: LikenessError, request_id: str) -> Failure:
    status, kind, code, param = error.http_status, "invalid_request_error", None, getattr(error, "param", None)
    match error:
        case KeyRefused():
            code = "invalid_api_key"
        case NotFound():
            code, param = "model_not_found", "model"
        case TooManyRequests():
            kind = code = "rate_limit_exceeded"
        case EngineBusy(code="EngineBusy"):
            kind, code = "server_error", "overloaded"
        case RequestTooLarge():
            code = "request_too_large"
        case _ if status >= 500:
            kind = "server_error"
    return Failure(status, {"error": {"message": str(error), "type": kind, "param": param, "code": code}}, {})


SHAPES: dict[str, Shape] = {"/openai/": _openai}
