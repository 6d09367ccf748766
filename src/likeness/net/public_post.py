"""One POST to a URL that a user has chosen, without reaching private networks.

The host is looked up once, its address is checked, and that address is connected to, so that the name cannot mean
another address in between; redirects are not followed (CWE-918, server-side request forgery). The whole exchange has
one deadline, however slowly the answer comes (CWE-400).
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Mapping

import httpx2

from ..errors import StorageUnavailable, UsageError
from .urls import WebUrl

_MOST_ANSWER_BYTES = 1 << 16
# IPv6 networks whose addresses mean an IPv4 address, possibly a private one: IPv4-compatible and -mapped, NAT64
# (RFC 6052 and 8215), Teredo, 6to4
_IPV4_INSIDE = [
    ipaddress.ip_network(text)
    for text in ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16")
]


def post(url: WebUrl, body: str, headers: Mapping[str, str], *, private: bool, timeout_s: float) -> None:
    """POST once. At most 64 KiB of the answer are read.

    Args:
        private: addresses of this machine and of private networks may be called.
        timeout_s: from the look-up of the host to the end of the answer.

    Raises:
        UsageError: the host has only private addresses.
        StorageUnavailable: the answer is not 2xx.
        OSError: the host was not reached; TimeoutError is one.
    """
    asyncio.run(_post(url, body, {"Host": url.authority, **headers}, private=private, timeout_s=timeout_s))


async def _post(url: WebUrl, body: str, headers: Mapping[str, str], *, private: bool, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            address = await _address_of(url.host, url.port, private=private)
            async with (
                httpx2.AsyncClient(verify=ssl.create_default_context(), trust_env=False, timeout=None) as client,
                client.stream(
                    "POST", f"{url.scheme}://{address}:{url.port}{url.target}", content=body, headers=headers,
                    extensions={"sni_hostname": url.host},  # the certificate is the host's, not the address's
                ) as answer,
            ):  # fmt: skip
                read = 0
                async for part in answer.aiter_raw():
                    if (read := read + len(part)) > _MOST_ANSWER_BYTES:
                        break
    except httpx2.HTTPError as error:
        raise OSError(f"the webhook was not reached: {type(error).__name__}") from error
    if not answer.is_success:
        raise StorageUnavailable(f"expected the webhook to answer 2xx, got {answer.status_code}")


def may_be_public(host: str) -> bool:
    """False for private address literals and names of this machine. Other names are judged when they are looked up."""
    try:
        return _is_public(ipaddress.ip_address(host))
    except ValueError:
        return host.rpartition(".")[2] != "localhost"


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_global and not address.is_multicast and not any(address in inside for inside in _IPV4_INSIDE)


async def _address_of(host: str, port: int, *, private: bool) -> str:
    """The first address of a host that may be called, as it stands in a URL. Raises UsageError, OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, (address, *_rest) in found:
        literal = ipaddress.ip_address(str(address).partition("%")[0])
        if private or _is_public(literal):
            return f"[{literal}]" if literal.version == 6 else str(literal)
    raise UsageError("expected a public address for the webhook, got a private one")
