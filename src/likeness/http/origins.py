"""Host names and origins that a server without API keys accepts.

A web page of another site can send requests to this machine, or point its own host name to this machine (CWE-350, DNS
rebinding). A server with API keys is safe, because such a page has no key. A server without keys accepts only requests
for this machine's names and for configured host names and origins. Source: Fetch, 'CORS protocol'.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers

from ..config import Settings
from ..errors import SettingsError
from .failures import OriginRefused

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:]+")
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_.-]+))(?::[0-9]{0,5})?")  # RFC 9110, section 7.2
_ORIGIN = re.compile(r"https?://([a-z0-9_.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
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
        names, pages = _words(settings.host_names), tuple(_words(settings.cors_origins))
        if not all(_HOST_NAME.fullmatch(name) for name in names):
            raise SettingsError(
                "expected host_names to be comma-separated host names, without scheme and port",
                hint="for example: portraits.example.com",
            )
        if not all(page == ANY or _ORIGIN.fullmatch(page) for page in pages):
            raise SettingsError(
                "expected cors_origins to be comma-separated origins, without a path",
                hint="for example: https://app.example.com",
            )
        if ANY in pages and not needs_keys:
            raise SettingsError(
                "expected a list of cors_origins on a server without API keys, got *",
                hint="list the origins, or use --require-keys",
            )
        return cls(frozenset(names), pages)

    def refuse_strangers(self, headers: Headers) -> None:
        """For a server without keys. Raises OriginRefused: another host name, or a page of another site."""
        host, origin = headers.get("host", ""), headers.get("origin")
        found = _HOST.fullmatch(host.lower())
        name = "" if found is None else found[1] or found[2]
        if name not in _LOOPBACK and name not in self.host_names:
            raise OriginRefused(
                "expected a request to a host name of this machine",
                hint="use 127.0.0.1 or localhost; behind a proxy, use --require-keys or set LIKENESS_HOST_NAMES",
            )
        if origin is None or origin in self.pages:
            return
        page = _split(origin)
        if page.netloc != host and (page.hostname or "") not in self.host_names:
            raise OriginRefused(
                "expected a request from a web page of this machine, got one from another site",
                hint="set LIKENESS_CORS_ORIGINS to the page's origin, or use --require-keys",
            )


def loopback(hosts: Iterable[str]) -> bool:
    """Whether all addresses are loopback addresses."""
    return all(host in _LOOPBACK for host in hosts)


def _words(text: str | None) -> list[str]:
    return [word.strip().lower() for word in (text or "").split(",") if word.strip()]


def _split(url: str) -> SplitResult:
    """The parts of a URL; all empty if it is malformed, so that it matches nothing."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
