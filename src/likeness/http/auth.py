"""Authentication by API key, and rate limits per key.

A key is sent as `Authorization: Bearer KEY`, as `X-Api-Key`, or, by AWS clients, as the access key id of their
signature. The signature itself is not checked, so such a key needs TLS like any bearer token. On a server without keys
(loopback only), requests belong to the tenant `local`, unless they carry a valid key.

The web app sends the cookie of a session instead (`storage.sessions`). A page of another origin cannot use it
(CWE-352): the cookie is SameSite=Strict, and because another port of the same host is the same site, a request with it
must also name this origin if it changes anything. Source: OWASP, 'Cross-Site Request Forgery Prevention', 'Verifying
Origin'.
"""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import Headers

from ..errors import KeyRefused
from ..storage.api_keys import PREFIX, ApiKey, key_of
from ..storage.catalog import LOCAL, Catalog
from ..storage.sessions import COOKIE, key_of_session
from .failures import OriginRefused, TooManyRequests
from .web import is_page

OPEN_PATHS = frozenset({"/healthz", "/openapi.json"})
_SIGN_IN = "/v1/session"
_OPERATOR_PATHS = ("/metrics", "/v1/operator")  # and everything below: they cover all tenants
_SAFE_METHODS = frozenset({"GET", "HEAD"})
_CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 .{0,200}?Credential=([^/,\s]{1,128})/")
_REMEMBERED, _REMEMBER_S = 4096, 10.0  # a revoked key is accepted for at most this long


@dataclass(frozen=True)
class Caller:
    """The authenticated caller; it can see only its tenant's data."""

    tenant: str
    key_id: str | None = None
    has_session: bool = False


@dataclass(frozen=True)
class KeyLimits:
    """Rate limits of one key."""

    requests_per_minute: int = 600
    concurrent: int = 32

    @property
    def of_sessions(self) -> "KeyLimits":
        """Of a browser that is signed in with the key: a page of the gallery alone is 60 thumbnails."""
        return replace(self, requests_per_minute=10 * self.requests_per_minute)


class Access:
    """Authenticates requests and applies rate limits.

    Args:
        needs_keys: whether a request without a key is refused.
        clock: seconds.
    """

    def __init__(
        self, catalog: Catalog, *, needs_keys: bool, limits: KeyLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._catalog, self._needs_keys, self._limits, self._clock = catalog, needs_keys, limits, clock
        # hash of the key -> time of the look-up, key
        self._known: OrderedDict[str, tuple[float, ApiKey]] = OrderedDict()
        self._buckets: dict[str, _Bucket] = {}

    @asynccontextmanager
    async def admitted(self, path: str, headers: Headers, method: str = "GET") -> AsyncIterator[Caller | None]:
        """Admit a request for its duration; None on paths that need no key.

        Raises:
            KeyRefused: no key, or not a valid one.
            OriginRefused: a page of another origin used the cookie of a session.
            TooManyRequests: the key's rate or concurrency limit is reached.
        """
        if path in OPEN_PATHS or is_page(path) or (path == _SIGN_IN and method == "POST"):
            yield None
            return
        caller = await self._caller(headers, method)
        if path.startswith(_OPERATOR_PATHS) and caller.tenant != LOCAL:
            raise KeyRefused("expected an operator's API key", hint=f"use a key of the tenant {LOCAL}")
        if caller.key_id is None:
            yield caller
            return
        limits = self._limits.of_sessions if caller.has_session else self._limits
        bucket = self._buckets.setdefault(f"{caller.key_id} {limits}", _Bucket(limits, self._clock))
        bucket.enter()
        try:
            yield caller
        finally:
            bucket.leave()

    def forget_session(self, token: str) -> None:
        """Look a session up again at its next use: it was ended."""
        self._known.pop(_mark(token, is_session=True), None)

    async def _caller(self, headers: Headers, method: str) -> Caller:
        text = presented(headers)
        if not self._needs_keys and not text.startswith(PREFIX):
            return Caller(LOCAL)  # clients of other protocols must send some key; it is ignored
        find: Callable[[Catalog, str], ApiKey] = key_of
        if not text and (text := session_token(headers)):
            refuse_other_pages(headers, method)
            find = key_of_session
        if not text:
            raise KeyRefused("expected an API key, got none", hint="send the header `Authorization: Bearer KEY`")
        mark, now_s = _mark(text, is_session=find is key_of_session), self._clock()
        known = self._known.get(mark)
        if known is None or now_s - known[0] > _REMEMBER_S:
            known = now_s, await asyncio.to_thread(find, self._catalog, text)
            self._known[mark] = known
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return Caller(known[1].tenant, known[1].id, has_session=find is key_of_session)


class _Bucket:
    """Rate (a token bucket with one minute's requests) and concurrency of one key."""

    def __init__(self, limits: KeyLimits, clock: Callable[[], float]) -> None:
        self._limits, self._clock = limits, clock
        self._tokens, self._filled_s, self._inside = float(limits.requests_per_minute), clock(), 0

    def enter(self) -> None:
        now_s, per_s = self._clock(), self._limits.requests_per_minute / 60
        self._tokens = min(self._tokens + (now_s - self._filled_s) * per_s, self._limits.requests_per_minute)
        self._filled_s = now_s
        if self._inside >= self._limits.concurrent:
            raise TooManyRequests(
                f"expected at most {self._limits.concurrent} requests at once",
                retry_after_s=1,
                hint="wait until one of them has finished",
            )
        if self._tokens < 1:
            raise TooManyRequests(
                f"expected at most {self._limits.requests_per_minute} requests per minute",
                retry_after_s=(1 - self._tokens) / per_s, hint="slow down",
            )  # fmt: skip
        self._tokens -= 1
        self._inside += 1

    def leave(self) -> None:
        self._inside -= 1


def presented(headers: Headers) -> str:
    """The key in the request's headers; empty if there is none."""
    said = headers.get("authorization", "")
    scheme, _, rest = said.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    signed = _CREDENTIAL.match(said)
    return signed[1] if signed else headers.get("x-api-key", "")


def session_token(headers: Headers) -> str:
    """The token of the session in the request's cookies; empty if there is none."""
    cookies = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
    return next((value for name, _, value in cookies if name == COOKIE), "")


def refuse_other_pages(headers: Headers, method: str) -> None:
    """Raises OriginRefused: a request that changes something and is not from a page of this origin."""
    if method not in _SAFE_METHODS and headers.get("origin", "").partition("://")[2] != headers.get("host"):
        raise OriginRefused(
            "expected a request from a page of this server, got one from another origin",
            hint="sign in at this server's own page, or send an API key",
        )


def _mark(text: str, *, is_session: bool) -> str:
    return hashlib.sha256(f"{is_session} {text}".encode()).hexdigest()


def caller_of(request: Request) -> Caller:
    """The caller, as authenticated by the boundary."""
    caller: Caller = request.state.caller
    return caller


Asking = Annotated[Caller, Depends(caller_of)]
