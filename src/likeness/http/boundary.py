"""What every request passes before and after the application: identity, size, time, one line in the log, metrics.

Pure ASGI, so that a streamed answer stays a stream and a client that goes away is noticed. Nothing of a request's
content is logged: neither path parameters nor bodies nor keys. Sources: ASGI 3.0; CWE-400.
"""

import asyncio
import logging
import re
import time
import uuid
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import LikenessError, RequestCancelled
from ..storage.files import file_failed
from .auth import OPEN_PATHS, Access
from .failures import MediaTypeRefused, RequestTooLarge, RequestTooSlow, Unforeseen, failure
from .metrics import Traffic
from .origins import Origins

log = logging.getLogger("likeness.http")

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_FORM = "multipart/form-data"
CLIENT_GONE = 499  # by convention; nobody reads it


@dataclass(frozen=True)
class BodyLimits:
    """What a body may cost. A slow line may take its time, as long as it is a line."""

    json_bytes: int = 1 << 20
    invocation_bytes: int = 6 << 20  # SageMaker's own limit
    upload_bytes: int = 256 << 20
    patience_s: float = 15.0  # before the first bytes, on top of what the least rate gives
    least_bytes_per_s: float = 16_384.0

    def of(self, path: str) -> int:
        """The most bytes that a request to `path` may send."""
        if path.startswith("/endpoints/"):
            return self.invocation_bytes
        return self.upload_bytes if takes_form(path) else self.json_bytes


class Boundary:
    """The outermost ring of the application.

    Args:
        access: who may come in, and how often.
        traffic: where requests are counted.
        limits: of bodies.
        origins: on a server without keys: by which names it is reached. None: the key decides.
    """

    def __init__(
        self, app: ASGIApp, *, access: Access, traffic: Traffic, limits: BodyLimits, origins: Origins | None
    ) -> None:
        self._app, self._access, self._traffic, self._limits = app, access, traffic, limits
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = _Passage(scope, receive, send, limits=self._limits)
        try:
            with self._traffic.in_flight():
                await self._serve(passage, scope)
        finally:
            seconds = passage.seconds
            route = getattr(scope.get("route"), "path", "unmatched")  # the template: names stay out of the log
            self._traffic.observe(scope["method"], route, passage.status, seconds)
            caller = scope["state"].get("caller")
            log.info(
                "request", extra={
                    "request_id": passage.id, "method": scope["method"], "route": route, "status": passage.status,
                    "seconds": round(seconds, 4), "bytes_in": passage.received, "bytes_out": passage.sent,
                    "tenant": caller and caller.tenant, "key": caller and caller.key_id,
                },
            )  # fmt: skip

    async def _serve(self, passage: "_Passage", scope: Scope) -> None:
        try:
            headers = Headers(scope=scope)
            if self._origins is not None and scope["path"] not in OPEN_PATHS:
                self._origins.refuse_strangers(headers)
            passage.refuse_length(headers)
            async with self._access.admitted(scope["path"], headers) as caller:
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
        except OSError as error:  # of this machine's disk or network: no room, no right
            log.exception("a file or connection failed", extra={"request_id": passage.id})
            await passage.refuse(file_failed(error))
        except Exception:
            log.exception("an error that nobody foresaw", extra={"request_id": passage.id})
            await passage.refuse(Unforeseen("something went wrong here", hint="tell the operator the request's id"))


class _Passage:
    """One request on its way through."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, limits: BodyLimits) -> None:
        self._receive, self._send, self._limits, self._path = receive, send, limits, scope["path"]
        self._started_s = time.perf_counter()
        self._most, self._body_done, self._answering = limits.of(self._path), False, False
        said = Headers(scope=scope).get("x-request-id", "")
        self.id = said if _ID.fullmatch(said) else uuid.uuid4().hex
        self.status, self.received, self.sent = 0, 0, 0
        # Why the body was broken off. The framework takes that for a body that cannot be parsed; its answer is dropped.
        self.broken_off: LikenessError | None = None
        scope.setdefault("state", {})["request_id"] = self.id

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started_s

    def refuse_length(self, headers: Headers) -> None:
        """Raises RequestTooLarge when the header says so already."""
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:20]) > self._most:
            raise self._too_large()

    async def receive(self) -> Message:
        if self._body_done:
            return await self._receive()  # waits for the client to go away: no limit
        left_s = self._limits.patience_s + self.received / self._limits.least_bytes_per_s - self.seconds
        try:
            async with asyncio.timeout(max(left_s, 0.0)):
                message = await self._receive()
        except TimeoutError:
            self.broken_off = RequestTooSlow("the request's body came too slowly", hint="send it again, in one go")
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
            headers.setdefault("Cache-Control", "no-store")
        else:
            self.sent += len(message.get("body", b""))
        await self._send(message)

    async def refuse(self, error: LikenessError) -> None:
        """Answer with the error, unless an answer is on its way: then the stream just ends."""
        if self._answering:
            return
        await failure(error, self._path, self.id).response()({"type": "http"}, self._receive, self._pass)

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(f"expected a body of at most {self._most} bytes", hint="send less at once")


def takes_form(path: str) -> bool:
    """Whether a POST to `path` is a form with files."""
    return path.startswith("/v1/") and path.endswith(("/photos", "/import"))


def refuse_other_forms(headers: Headers) -> None:
    """Refuse a body that is not a multipart form, before the framework parses it.

    The framework accepts urlencoded forms on the same routes. Its parser works on the event loop, byte by byte, and
    does not count empty fields, so that one body of `&` alone would stop all other requests (CWE-400).

    Raises:
        MediaTypeRefused: another media type. Where none is said nothing is parsed, and the form lacks its fields.
    """
    media_type = headers.get("content-type", _FORM).partition(";")[0].strip().lower()
    if media_type != _FORM:
        raise MediaTypeRefused(f"expected a body of {_FORM}", hint="send the file as a part of a form")
