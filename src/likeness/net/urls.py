"""URLs that Likeness is given: of webhooks, servers, web pages and the mail server.

Programs disagree about the host of an unusual URL (CWE-436): `urlsplit` reads the host of `https://a\\@b/` as `b`, a
browser as `a`; `127.1`, `0x7f000001` and full-width digits are names to one program and 127.0.0.1 to another. So only
URLs that all programs read alike are accepted: RFC 3986 with an ASCII host, where a host whose last label is a number
is an IPv4 address of four decimal numbers (WHATWG URL, 'ends in a number checker').
"""

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import unquote

from ..errors import UsageError

_URL = re.compile(
    r"(?P<scheme>[a-z]+)://(?:(?P<user>[a-z0-9._~!$&'()*+,;=%-]+)(?::(?P<password>[a-z0-9._~!$&'()*+,;=:%-]*))?@)?"
    r"(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?P<target>[/?][a-z0-9._~!$&'()*+,;=:@/?%-]*)?",
    re.IGNORECASE | re.ASCII,
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
MAIL_SCHEMES = ("smtp", "smtps")
DEFAULT_PORTS = {"http": 80, "https": 443, "smtp": 25, "smtps": 465}


@dataclass(frozen=True)
class WebUrl:
    """The parts of a URL; scheme and host in lower case."""

    scheme: str
    host: str  # an IPv6 address without its brackets
    port: int
    target: str = "/"  # path and query
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @property
    def authority(self) -> str:
        """Host and port as in a Host header: without the scheme's default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """As browsers write it. Source: RFC 6454, section 6.2."""
        return f"{self.scheme}://{self.authority}"


def web_url(text: str, *, schemes: Collection[str], what: str) -> WebUrl:
    """Parse a URL.

    Args:
        schemes: that are accepted, of `DEFAULT_PORTS`.
        what: the URL's name in error messages.

    Raises:
        UsageError: another scheme; no host, or one that programs could read differently; a port outside 1 to 65535; a
            fragment; characters that have to be percent-encoded.
    """
    hint = f"for example: {sorted(schemes)[0]}://host.example/path; write international host names in their xn-- form"
    found = _URL.fullmatch(text) if len(text) <= 2000 else None
    if found is None or found["scheme"].lower() not in schemes:
        raise UsageError(f"expected {what} to be an absolute URL of {' or '.join(sorted(schemes))}", hint=hint)
    scheme, host = found["scheme"].lower(), found["host"].lower()
    if not is_host(host):
        raise UsageError(f"expected {what} to have a host name or an IP address", hint=hint)
    port = DEFAULT_PORTS[scheme] if found["port"] is None else int(found["port"])
    if not 1 <= port <= 65535:
        raise UsageError(f"expected {what} to have a port from 1 to 65535", hint=hint)
    target = found["target"] or "/"
    user, password = (None if part is None else unquote(part) for part in (found["user"], found["password"]))
    return WebUrl(scheme, host.strip("[]"), port, target if target[0] == "/" else f"/{target}", user, password)


def is_host(text: str) -> bool:
    """Whether a text in lower case is a host name, an IPv4 address, or an IPv6 address in brackets."""
    try:
        if text.startswith("["):
            ipaddress.IPv6Address(text.removeprefix("[").removesuffix("]"))
            return text.endswith("]") and "%" not in text  # a zone is a name of this machine's only
        labels = text.split(".")
        if _NUMBER.fullmatch(labels[-1]):
            ipaddress.IPv4Address(text)
        text.encode("ascii").decode("idna")
    except ValueError:
        return False
    return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
