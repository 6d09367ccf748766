"""A uvicorn server with a time limit for request heads and a graceful shutdown.

uvicorn itself waits forever for the rest of a request head, so a few hundred such connections would block the server
(CWE-400, 'Slowloris'). Source: uvicorn's `Config` and its h11 protocol.
"""

import asyncio
import errno
import signal
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import SettingsError, StorageError, reason_of

HEAD_S = 10.0  # time limit for a request's head
CONNECTIONS = 1024  # beyond this, uvicorn answers 503
BACKLOG = 2048  # connections waiting to be accepted; uvicorn's default
GRACE_S = 30  # for running requests at shutdown


@dataclass(frozen=True)
class Bind:
    """The address of a server."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free port
    certificate: Path | None = None  # PEM, for TLS
    key: Path | None = None


class ImpatientProtocol(H11Protocol):
    """Closes connections whose request head does not arrive in time."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._stop_waiting()  # between requests uvicorn's keep-alive limit applies

    def _wait_for_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


@contextmanager
def listening(bind: Bind) -> Iterator[list[socket.socket]]:
    """Open the sockets before anything slow is loaded; connections wait until `run` serves them.

    Raises:
        StorageError: the port is in use or needs privileges, or the host is not an address of this machine.
    """
    try:
        found = socket.getaddrinfo(bind.host or None, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise _not_ours() from error
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        for family, _, _, _, address in dict.fromkeys(found):
            if sockets:  # a name with several addresses has one port, also where any will do
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            try:
                sockets.append(opened.enter_context(socket.create_server(address, family=family, backlog=BACKLOG)))
            except OSError as error:
                # a host name can have several addresses
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise _refused(bind.port, error) from error
        if not sockets:
            raise _not_ours()
        yield sockets


def url_of(bind: Bind, sockets: Sequence[socket.socket]) -> str:
    """Where `listening` sockets are reached, by the port that they got."""
    host = f"[{bind.host}]" if ":" in bind.host else bind.host
    return f"{'http' if bind.certificate is None else 'https'}://{host}:{sockets[0].getsockname()[1]}"


def _refused(port: int, error: OSError) -> StorageError:
    if error.errno == errno.EADDRINUSE:
        return StorageError(
            f"expected a free port, got {port}, which another program uses",
            hint="choose another port; --port 0 uses any free port",
            code="PortUnavailable",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return StorageError(
            f"expected a port that this user may listen on, got {port}",
            hint="choose one above 1023",
            code="PortUnavailable",
        )
    return StorageError(
        f"expected to listen on port {port}, got: {reason_of(error)}",
        hint="choose another --port",
        code="PortUnavailable",
    )


def _not_ours() -> StorageError:
    return StorageError(
        "expected --host to be an address of this machine, got another",
        hint="0.0.0.0 means all addresses; it requires API keys",
        code="PortUnavailable",
    )


def server_of(app: Starlette, bind: Bind) -> uvicorn.Server:
    """A configured server. Raises SettingsError: only one of certificate and key, or unusable files."""
    if (bind.certificate is None) != (bind.key is None):
        raise SettingsError("expected both a TLS certificate and its key, or neither")
    config = uvicorn.Config(
        app, host=bind.host, port=bind.port, loop="asyncio", http=ImpatientProtocol, ws="none", log_config=None,
        access_log=False, server_header=False, proxy_headers=False, limit_concurrency=CONNECTIONS,
        timeout_keep_alive=15, timeout_graceful_shutdown=GRACE_S, ssl_certfile=bind.certificate, ssl_keyfile=bind.key,
    )  # fmt: skip
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"expected a TLS certificate and its key as PEM files, got {type(error).__name__}"
        ) from error
    return uvicorn.Server(config)


def run(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
    """Serve on the sockets of `listening` until SIGINT or SIGTERM, then finish running requests. Main thread only.

    uvicorn raises the signal again when it ends; it is ignored here, so that the caller can clean up.
    """
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=sockets)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
