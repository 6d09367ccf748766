"""Middleware around the application: authentication, limits on size and time, log line, metrics.

Pure ASGI, so that streamed responses are not buffered and disconnects are detected. The content of requests is not
logged: neither path parameters nor bodies nor keys. Sources: ASGI 3.0; CWE-400.
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import LikenessError, RequestCancelled
from ..storage.files import file_failed
from .auth import OPEN_PATHS, Access
from .failures import AccessError, MediaTypeRefused, RequestTooLarge, RequestTooSlow, Shape, Unforeseen, failure
from .metrics import Traffic
from .operator import FailedRequests
from .origins import Origins

log = logging.getLogger("likeness.http")

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_FORM = "multipart/form-data"
CLIENT_GONE = 499  # by convention; not sent


@dataclass(frozen=True)
class BodyLimits:
    """Limits of a request body: size, and minimum rate of arrival."""

    json_bytes: int = 1 << 20
    upload_bytes: int = 256 << 20
    patience_s: float = 15.0  # allowed delay, in addition to the time at the minimum rate
    least_bytes_per_s: float = 16_384.0
    by_prefix: Mapping[str, int] = field(default_factory=dict)  # of paths of other protocols

    def of(self, path: str) -> int:
        """Largest body of a request to `path`, in bytes."""
        for prefix, most in self.by_prefix.items():
            if path.startswith(prefix):
                return most
        return self.upload_bytes if takes_form(path) else self.json_bytes


class Boundary:
    """The outermost middleware.

    Args:
        access: authentication and rate limits.
        traffic: counts requests.
        failed_requests: records responses with a status of 500 or above.
        limits: of bodies.
        origins: allowed host names and origins of a server without keys. None: the key decides.
        shapes: of errors, by path prefix.
    """

    def __init__(
        self, app: ASGIApp, *, access: Access, traffic: Traffic, limits: BodyLimits, origins: Origins | None,
        shapes: Mapping[str, Shape], failed_requests: FailedRequests,
    ) -> None:  # fmt: skip
        self._app, self._access, self._traffic, self._limits = app, access, traffic, limits
        self._origins, self._shapes, self._failed_requests = origins, shapes, failed_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = Passage(scope, receive, send, limits=self._limits, shapes=self._shapes)
        try:
            with self._traffic.in_flight():
                await self._serve(passage, scope)
        finally:
            seconds = passage.seconds
            route = getattr(scope.get("route"), "path", "unmatched")  # the template, so that no names are logged
            self._traffic.observe(scope["method"], route, passage.status, seconds)
            if passage.status >= 500:
                self._failed_requests.add(passage.id, scope["method"], route, passage.status)
            caller = scope["state"].get("caller")
            log.info(
                "request", extra={
                    "request_id": passage.id, "method": scope["method"], "route": route, "status": passage.status,
                    "seconds": round(seconds, 4), "bytes_in": passage.received, "bytes_out": passage.sent,
                    "tenant": caller and caller.tenant, "key": caller and caller.key_id,
                },
            )  # fmt: skip

    async def _serve(self, passage: "Passage", scope: Scope) -> None:
        try:
            headers = Headers(scope=scope)
            if self._origins is not None and scope["path"] not in OPEN_PATHS:
                self._origins.refuse_strangers(headers)
            passage.refuse_framing(headers)
            async with self._access.admitted(scope["path"], headers, scope["method"]) as caller:
                scope["state"]["caller"] = caller
                if scope["method"] == "POST" and takes_form(scope["path"]):
                    refuse_other_forms(headers)
                await self._app(scope, passage.receive, passage.send)
            if passage.broken_off is not None:
                raise passage.broken_off
        except (ClientDisconnect, RequestCancelled):
            passage.status = CLIENT_GONE
        except LikenessError as error:
            await passage.refuse(error)
        except OSError as error:  # of this machine's disk or network: disk full, no permission
            log.exception("a file or connection failed", extra={"request_id": passage.id})
            await passage.refuse(file_failed(error))
        except Exception:
            log.exception("unexpected error", extra={"request_id": passage.id})
            await passage.refuse(
                Unforeseen("internal error", hint="report the X-Request-Id of this response to the operator")
            )


class Passage:
    """The state of one request."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, limits: BodyLimits, shapes: Mapping[str, Shape]
    ) -> None:
        self._receive, self._send, self._limits, self._path = receive, send, limits, scope["path"]
        self._shapes = shapes
        self._started_s = time.perf_counter()
        self._most, self._body_done, self._answering = limits.of(self._path), False, False
        said = Headers(scope=scope).get("x-request-id", "")
        self.id = said if _ID.fullmatch(said) else uuid.uuid4().hex
        self.status, self.received, self.sent = 0, 0, 0
        self._closes = False
        # Why reading the body was aborted. To the framework the body cannot be parsed; its response is replaced.
        self.broken_off: LikenessError | None = None
        scope.setdefault("state", {})["request_id"] = self.id

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started_s

    def refuse_framing(self, headers: Headers) -> None:
        """Refuse a body that is too long by its Content-Length, or whose length is given twice.

        A proxy could read another length than this server and take the rest for a further request (CWE-444), so the
        connection is closed. Source: RFC 9112, section 6.1.

        Raises:
            RequestTooLarge: of more bytes than the limit.
            AccessError: with Content-Length and Transfer-Encoding.
        """
        if "transfer-encoding" in headers and "content-length" in headers:
            self._closes = True
            raise AccessError("expected Content-Length or Transfer-Encoding, got both")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:20]) > self._most:
            raise self._too_large()

    async def receive(self) -> Message:
        if self._body_done:
            return await self._receive()  # waits for a disconnect: no limit
        left_s = self._limits.patience_s + self.received / self._limits.least_bytes_per_s - self.seconds
        try:
            async with asyncio.timeout(max(left_s, 0.0)):
                message = await self._receive()
        except TimeoutError:
            self.broken_off = RequestTooSlow(
                "the request's body arrived too slowly",
                hint="send the request again over a faster connection, or with a smaller body",
            )
            raise self.broken_off from None
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self._body_done = not message.get("more_body", False)
            if self.received > self._most:
                self.broken_off = self._too_large()
                raise self.broken_off
        return message

    async def send(self, message: Message) -> None:
        if self.broken_off is None:
            await self._pass(message)

    async def _pass(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self._answering = message["status"], True
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.id
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
            if self._closes:
                headers["Connection"] = "close"
            headers.setdefault("Cache-Control", "no-store")
        else:
            self.sent += len(message.get("body", b""))
        await self._send(message)

    async def refuse(self, error: LikenessError) -> None:
        """Respond with the error; if the response has started, end the stream."""
        if self._answering:
            return
        await failure(error, self._path, self.id, self._shapes).response()({"type": "http"}, self._receive, self._pass)

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(
            f"expected a body of at most {self._most} bytes", hint="send fewer or smaller files per request"
        )


def takes_form(path: str) -> bool:
    """Whether a POST to `path` is a multipart form."""
    return path.startswith("/v1/") and path.endswith(("/photos", "/import", "/backup"))


def refuse_other_forms(headers: Headers) -> None:
    """Refuse a body that is not a multipart form before the framework parses it.

    The framework also accepts urlencoded forms on these routes. Its parser runs on the event loop, byte by byte, and
    does not count empty fields, so a body of `&` characters would block all other requests (CWE-400).

    Raises:
        MediaTypeRefused: another media type. Without a media type nothing is parsed, and the form has no fields.
    """
    media_type = headers.get("content-type", _FORM).partition(";")[0].strip().lower()
    if media_type != _FORM:
        raise MediaTypeRefused(f"expected a body of {_FORM}", hint="send the file as a part of a multipart form")
