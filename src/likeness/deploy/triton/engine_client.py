"""The client of an engine process: connects to its Unix socket, starts it if it does not run. Standard library only.

This file is part of every exported Triton model, beside model.py. `engine_process` reads and writes the same frames.

    frame    "LKN1", length of the header, length of the payload (uint32, little-endian), header (JSON), payload
    request  one frame: {"verb": "ping" | "admit" | "generate" | "release", ...}
    reply    frames until one whose status is not "started": {"status": "ok" | "error" | "started", ...}

A connection carries one request. If it breaks before "started", the engine has not begun the request, and the client
sends it once more. After "started" the request may have crashed the engine, so it is never repeated.
"""

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROTOCOL = 1
MAGIC = b"LKN1"
PREFIX = struct.Struct("<4sII")
MAX_HEADER_BYTES = 1 << 18  # two prompts of 2000 characters, escaped, and room
MAX_PAYLOAD_BYTES = 64 << 20
MAX_SOCKET_PATH_BYTES = 100  # of the 108 that the system has; the engine binds under a longer name first
REFUSED = "refused: "  # start of the log line in which an engine says why it did not start
PING_S = 10.0
REFUSAL_S = 30.0  # for so long a refused start is not tried again
ATTEMPTS = 3  # to send a request

Header = dict[str, Any]


class EngineFailed(Exception):
    """No result. `code` is the name of one of Likeness's errors, or EngineUnreachable, EngineStopped."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


Outcome = tuple[Header, bytes] | EngineFailed


@dataclass(frozen=True)
class EngineAddress:
    """The files of the engine of one base and device. Their names have the protocol's version and the base's hash."""

    folder: Path
    base_sha256: str
    device: str = "0"

    def file(self, suffix: str) -> Path:
        """The `sock`et, the `log` of the last start, or the `lock` of starts."""
        return self.folder / f"engine-{PROTOCOL}-{self.base_sha256[:12]}-{self.device}.{suffix}"


@dataclass
class EngineClient:
    """A client of one engine.

    Args:
        command: starts the engine, which binds `address.file('sock')` once it is ready.
        environment: of the engine.
        start_s: time limit of a start.
    """

    address: EngineAddress
    command: Sequence[str]
    environment: Mapping[str, str]
    start_s: float = 300.0
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def ensure(self) -> None:
        """Return when the engine answers; start it if it does not. Raises EngineFailed."""
        end_s = time.monotonic() + self.start_s
        with self._locked(end_s):
            if self._answers():
                return
            if self._process is not None:
                self._process.poll()  # reaps it
            if refusal := self._refusal(REFUSAL_S):
                raise EngineFailed("EngineUnreachable", f"the engine did not start: {refusal}")
            with suppress(FileNotFoundError):
                self.address.file("sock").unlink()
            with self.address.file("log").open("wb") as log:  # the last start's only, so that it stays small
                self._process = subprocess.Popen(
                    self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", close_fds=True,
                    env=dict(self.environment), start_new_session=True,
                )  # fmt: skip
            while not self.address.file("sock").exists() or not self._answers():
                if self._process.poll() is not None:
                    reason = self._refusal() or f"see {self.address.file('log').name} in the engine's folder"
                    raise EngineFailed("EngineUnreachable", f"the engine did not start: {reason}")
                if time.monotonic() > end_s:
                    self._process.kill()
                    self._process.wait()
                    raise EngineFailed("EngineUnreachable", f"the engine did not start within {self.start_s:.0f} s")
                time.sleep(0.02)

    def ask(self, request: Header, deadline_s: float) -> tuple[Header, bytes]:
        """One request. Raises EngineFailed."""
        outcome = self.ask_all([request], deadline_s)[0]
        if isinstance(outcome, EngineFailed):
            raise outcome
        return outcome

    def ask_all(self, requests: Sequence[Header], deadline_s: float) -> list[Outcome]:
        """All requests at once, so that they can share a forward pass; the outcomes in their order.

        Args:
            deadline_s: from now, for all of them; the engine gets it with each request.
        """
        end_s = time.monotonic() + deadline_s
        connections = [self._send(request, end_s) for request in requests]
        outcomes: list[Outcome] = []
        for request, connection in zip(requests, connections, strict=True):
            outcome = _outcome(connection, end_s) or _outcome(self._send(request, end_s, is_repeated=True), end_s)
            twice = EngineFailed("EngineStopped", "the engine stopped twice before it began this request")
            outcomes.append(outcome or twice)
        return outcomes

    def notify(self, request: Header) -> None:
        """A request whose failure does not matter; it does not start an engine."""
        with suppress(OSError, ValueError, EngineFailed), connect(self.address.file("sock"), 2.0) as connection:
            connection.sendall(encode(request))
            receive(connection)

    def _send(self, request: Header, end_s: float, *, is_repeated: bool = False) -> "socket.socket | EngineFailed":
        for attempt in range(ATTEMPTS):
            try:
                if attempt or is_repeated:  # a socket that accepts connections may be a dying engine's
                    self.ensure()
                connection = connect(self.address.file("sock"), _remaining_s(end_s))
            except EngineFailed as error:
                return error
            except OSError:
                continue
            try:
                connection.sendall(encode({**request, "deadline_s": _remaining_s(end_s)}))
                return connection
            except OSError:  # an engine begins a request only when it has read all of it
                connection.close()
        return EngineFailed("EngineUnreachable", "the engine does not answer")

    def _answers(self) -> bool:
        """Whether the engine answers a ping. An engine that hangs is killed, because the next one needs its memory."""
        try:
            connection = connect(self.address.file("sock"), PING_S)
        except OSError:
            return False
        with connection:
            try:
                connection.sendall(encode({"verb": "ping"}))
                return receive(connection)[0].get("status") == "ok"
            except TimeoutError:
                with suppress(ProcessLookupError):
                    os.kill(_peer_pid(connection), signal.SIGKILL)
                return False
            except (OSError, ValueError):
                return False

    def _refusal(self, within_s: float = float("inf")) -> str:
        """The reason that the last engine gave for not starting, within so many seconds; else empty."""
        log = self.address.file("log")
        with suppress(OSError):
            if abs(time.time() - log.stat().st_mtime) < within_s:
                lines = log.read_text(errors="replace").splitlines()
                return next((line.removeprefix(REFUSED) for line in reversed(lines) if line.startswith(REFUSED)), "")
        return ""

    @contextmanager
    def _locked(self, end_s: float) -> Iterator[None]:
        """One process starts the engine, the others wait. The system drops the lock of a process that dies."""
        secure_folder(self.address.folder)
        with self.address.file("lock").open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end_s:
                        raise EngineFailed("EngineUnreachable", "another process is starting the engine") from None
                    time.sleep(0.02)
            yield


def _outcome(connection: "socket.socket | EngineFailed", end_s: float) -> Outcome | None:
    """The last frame of a reply; None if the connection broke before the engine began the request."""
    if isinstance(connection, EngineFailed):
        return connection
    is_started = False
    with connection:
        try:
            while True:
                connection.settimeout(_remaining_s(end_s) + 1)  # the engine itself reports a missed deadline
                header, payload = receive(connection)
                if header.get("status") != "started":
                    break
                is_started = True
        except TimeoutError:
            return EngineFailed("DeadlinePassed", "the engine did not answer in time")
        except (OSError, ValueError):
            stopped = EngineFailed("EngineStopped", "the engine stopped during this request; it was not repeated")
            return stopped if is_started else None
    if header.get("status") == "ok":
        return header, payload
    return EngineFailed(str(header.get("code")), str(header.get("message")))


def secure_folder(folder: Path) -> None:
    """Make the folder of sockets if it is missing. Raises EngineFailed: other users can enter it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or folder.is_symlink():
        raise EngineFailed("EngineUnreachable", "expected the engine's folder to be this user's alone (mode 0700)")


def connect(path: Path, timeout_s: float) -> socket.socket:
    """Raises OSError: nothing listens. EngineFailed: the path is too long for a socket."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise EngineFailed("EngineUnreachable", f"expected a socket's path of at most {MAX_SOCKET_PATH_BYTES} bytes")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(os.fspath(path))
    except BaseException:
        connection.close()
        raise
    return connection


def encode(header: Header, payload: bytes = b"") -> bytes:
    """One frame."""
    text = json.dumps(header).encode()
    return PREFIX.pack(MAGIC, len(text), len(payload)) + text + payload


def lengths(prefix: bytes) -> tuple[int, int]:
    """Lengths of header and payload, from a frame's prefix. Raises ValueError: not a frame, or too long."""
    magic, header_bytes, payload_bytes = PREFIX.unpack(prefix)
    if magic != MAGIC or header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        raise ValueError("not a frame of this protocol")
    return header_bytes, payload_bytes


def decode(text: bytes) -> Header:
    """A frame's header. Raises ValueError."""
    header = json.loads(text)
    if not isinstance(header, dict):
        raise ValueError("expected a JSON object")
    return header


def receive(connection: socket.socket) -> tuple[Header, bytes]:
    """The next frame. Raises ValueError, OSError."""
    header_bytes, payload_bytes = lengths(_read(connection, PREFIX.size))
    return decode(_read(connection, header_bytes)), _read(connection, payload_bytes)


def _read(connection: socket.socket, count: int) -> bytes:
    content = bytearray()
    while len(content) < count:
        chunk = connection.recv(min(count - len(content), 1 << 20))
        if not chunk:
            raise ConnectionResetError("the connection ended before the frame")
        content += chunk
    return bytes(content)


def _peer_pid(connection: socket.socket) -> int:
    """The process that listens (unix(7), SO_PEERCRED)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def _remaining_s(end_s: float) -> float:
    return max(0.05, end_s - time.monotonic())
