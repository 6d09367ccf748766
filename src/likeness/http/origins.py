"""Host names and origins that a server without API keys accepts.

A web page of another site can send requests to this machine, or point its own host name to this machine (CWE-350, DNS
rebinding). A server with API keys is safe, because such a page has no key. A server without keys accepts only requests
for this machine's names and for configured host names and origins. Source: Fetch, 'CORS protocol'.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.datastructures import Headers

from ..config import Settings, listed
from ..errors import SettingsError, UsageError
from ..net.urls import WebUrl, is_host, web_url
from .failures import OriginRefused

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_.-]+))(?::[0-9]{0,5})?")  # RFC 9110, section 7.2
_SCHEMES = ("http", "https")
ANY = "*"


@dataclass(frozen=True)
class Origins:
    """Host names and origins allowed by the settings, in addition to this machine's names."""

    host_names: frozenset[str] = frozenset()
    pages: tuple[str, ...] = ()  # origins of web pages that may read responses (CORS); `*`: all

    @classmethod
    def of(cls, settings: Settings, *, needs_keys: bool) -> "Origins":
        """From LIKENESS_HOST_NAMES and LIKENESS_CORS_ORIGINS.

        Raises:
            SettingsError: not a host name or origin; `*` on a server without keys.
        """
        names, pages = (listed((text or "").lower()) for text in (settings.host_names, settings.cors_origins))
        if not all(is_host(f"[{name}]" if ":" in name else name) for name in names):
            raise SettingsError(
                "expected host_names to be comma-separated host names, without scheme and port",
                hint="for example: portraits.example.com",
            )
        if not all(page == ANY or _page(page) for page in pages):
            raise SettingsError(
                "expected cors_origins to be comma-separated origins, without a path",
                hint="for example: https://app.example.com",
            )
        if ANY in pages and not needs_keys:
            raise SettingsError(
                "expected a list of cors_origins on a server without API keys, got *",
                hint="list the origins, or use --require-keys",
            )
        return cls(frozenset(names), tuple(page.origin if (page := _page(text)) else text for text in pages))

    def refuse_strangers(self, headers: Headers) -> None:
        """For a server without keys. Raises OriginRefused: another host name, or a page of another site."""
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        found = _HOST.fullmatch(host)
        name = "" if found is None else found[1] or found[2]
        if name not in _LOOPBACK and name not in self.host_names:
            raise OriginRefused(
                "expected a request to a host name of this machine",
                hint="use 127.0.0.1 or localhost; behind a proxy, use --require-keys or set LIKENESS_HOST_NAMES",
            )
        if origin in self.pages:
            return
        if origin is None:
            # An element of a page, such as <img>, sends no Origin. Source: W3C, 'Fetch Metadata Request Headers'.
            if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
                raise _foreign_page()
            return
        page = _page(origin.lower())
        is_own = origin.lower().rpartition("/")[2] == host
        if page is None or not (is_own or page.host in self.host_names):
            raise _foreign_page()


def loopback(hosts: Iterable[str]) -> bool:
    """Whether all addresses are loopback addresses."""
    return all(host in _LOOPBACK for host in hosts)


def _foreign_page() -> OriginRefused:
    return OriginRefused(
        "expected a request from a web page of this machine, got one from another site",
        hint="set LIKENESS_CORS_ORIGINS to the page's origin, or use --require-keys",
    )


def _page(origin: str) -> WebUrl | None:
    """The parts of an origin, which has no path and is in lower case; None if it is malformed."""
    try:
        url = web_url(origin, schemes=_SCHEMES, what="the origin")
    except UsageError:
        return None
    return url if url.user is None and origin in (url.origin, f"{url.origin}:{url.port}") else None
