"""How a thin model talks to the engine of its device, and starts it where there is none. Standard library only.

This file travels inside every Triton artifact, beside model.py; the engine's server reads and writes the same frames.

    frame    "LKN1", length of the header, length of the payload (uint32, little-endian), header (JSON), payload
    request  one frame: {"verb": "ping" | "admit" | "generate" | "release", ...}
    reply    frames until one whose status is no "started": {"status": "ok" | "error" | "started", ...}

One connection is one request. A request whose connection broke before "started" was not begun by anybody: it is sent
once more. After "started" it may be what killed the engine, so it is never sent again.
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
REFUSED = "refused: "  # begins the line of the log in which an engine says why it did not start
PING_S = 10.0
REFUSAL_S = 30.0
STOPPED = "the engine stopped while it worked on this request; it was not repeated"

Header = dict[str, Any]


class EngineFailed(Exception):
    """No picture. `code` is the name of one of Likeness' errors, or EngineUnreachable, EngineStopped."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Broken(Exception):
    """The connection ended before the reply did."""


@dataclass(frozen=True)
class EnginePlace:
    """Where the engine of one base and device is. The name holds protocol and base: another engine is never asked."""

    folder: Path
    base_sha256: str
    device: str = "0"

    @property
    def stem(self) -> str:
        return f"engine-{PROTOCOL}-{self.base_sha256[:12]}-{self.device}"

    @property
    def socket(self) -> Path:
        return self.folder / f"{self.stem}.sock"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.stem}.log"


@dataclass
class EngineClient:
    """Asks one engine; starts it under a lock where it does not answer.

    Args:
        command: starts the engine, which binds `place.socket` when it is ready and ends when that is its end.
        environment: of the engine.
        start_s: how long a start may take.
    """

    place: EnginePlace
    command: Sequence[str]
    environment: Mapping[str, str]
    start_s: float = 300.0
    _child: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def ensure(self) -> None:
        """Return when the engine answers. Raises EngineFailed."""
        end_s = time.monotonic() + self.start_s
        with self._lock(end_s):
            if self._answers():
                return
            if self._child is not None:
                self._child.poll()  # a dead child is not left a zombie
            if refusal := self._refused_lately():
                raise EngineFailed("EngineUnreachable", f"the engine did not start: {refusal}")
            with suppress(FileNotFoundError):
                self.place.socket.unlink()
            with self.place.log.open("wb") as log:  # of the last start: it cannot grow without end
                self._child = subprocess.Popen(
                    self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", close_fds=True,
                    env=dict(self.environment), start_new_session=True,
                )  # fmt: skip
            while not self.place.socket.exists() or not self._answers():
                if self._child.poll() is not None:
                    raise EngineFailed("EngineUnreachable", f"the engine did not start: {self._reason()}")
                if time.monotonic() > end_s:
                    self._child.kill()
                    self._child.wait()
                    raise EngineFailed("EngineUnreachable", f"the engine did not start within {self.start_s:.0f} s")
                time.sleep(0.02)

    def ask(self, request: Header, deadline_s: float) -> tuple[Header, bytes]:
        """One request. Raises EngineFailed."""
        outcome = self.ask_all([request], deadline_s)[0]
        if isinstance(outcome, EngineFailed):
            raise outcome
        return outcome

    def ask_all(self, requests: Sequence[Header], deadline_s: float) -> list[tuple[Header, bytes] | EngineFailed]:
        """All requests at once, so that they can share a forward; the outcomes in their order.

        Args:
            deadline_s: from now, for all of them; the engine is told and drops what it cannot finish.
        """
        end_s = time.monotonic() + deadline_s
        sent = [self._sent(request, end_s) for request in requests]
        outcomes: list[tuple[Header, bytes] | EngineFailed] = []
        for request, connection in zip(requests, sent, strict=True):
            outcome = connection if isinstance(connection, EngineFailed) else self._received(connection, end_s)
            if isinstance(outcome, _Broken):
                again = self._sent(request, end_s, is_repeated=True)
                outcome = again if isinstance(again, EngineFailed) else self._received(again, end_s)
            if isinstance(outcome, _Broken):
                outcome = EngineFailed("EngineStopped", "the engine stopped twice before it came to this request")
            outcomes.append(outcome)
        return outcomes

    def tell(self, request: Header) -> None:
        """A request that nothing depends on: no engine is started for it, and no failure is an error."""
        with suppress(OSError, ValueError, _Broken, EngineFailed), connect(self.place.socket, 2.0) as connection:
            connection.sendall(encode(request))
            receive(connection)

    def _sent(self, request: Header, end_s: float, *, is_repeated: bool = False) -> "socket.socket | EngineFailed":
        for attempt in range(3):
            try:
                if attempt or is_repeated:  # a socket that can be connected to may be a dying engine's
                    self.ensure()
                connection = connect(self.place.socket, _left(end_s))
            except EngineFailed as error:
                return error
            except OSError:
                continue
            try:
                connection.sendall(encode({**request, "deadline_s": _left(end_s)}))
                return connection
            except OSError:  # the engine reads a request whole before it does anything
                connection.close()
        return EngineFailed("EngineUnreachable", "the engine does not answer")

    def _received(self, connection: socket.socket, end_s: float) -> "tuple[Header, bytes] | EngineFailed | _Broken":
        is_started = False
        with connection:
            try:
                while True:
                    connection.settimeout(_left(end_s) + 1)  # the engine itself says when a deadline has passed
                    header, payload = receive(connection)
                    if header.get("status") != "started":
                        break
                    is_started = True
            except TimeoutError:
                return EngineFailed("DeadlinePassed", "the engine did not answer in time")
            except (OSError, ValueError, _Broken):
                return EngineFailed("EngineStopped", STOPPED) if is_started else _Broken()
        if header.get("status") == "ok":
            return header, payload
        return EngineFailed(str(header.get("code")), str(header.get("message")))

    def _answers(self) -> bool:
        """Whether the engine answers a request; to connect says nothing, it succeeds with a dying one too."""
        try:
            connection = connect(self.place.socket, PING_S)
        except OSError:
            return False
        with connection:
            try:
                connection.sendall(encode({"verb": "ping"}))
                return receive(connection)[0].get("status") == "ok"
            except TimeoutError:  # it hangs: the next one needs its memory
                with suppress(ProcessLookupError):
                    os.kill(_pid_behind(connection), signal.SIGKILL)
                return False
            except (OSError, ValueError, _Broken):
                return False

    def _reason(self) -> str:
        return self._refusal() or f"its log is {self.place.log.name} in the engine's folder"

    def _refusal(self) -> str:
        """Why the last engine did not want to start; empty where it did, or did not say."""
        try:
            lines = self.place.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        said = [line.removeprefix(REFUSED) for line in lines if line.startswith(REFUSED)]
        return said[-1] if said else ""

    def _refused_lately(self) -> str:
        """The refusal of a moment ago: to ask for a base that is not there shall not cost a start each time."""
        refusal = self._refusal()
        if not refusal:
            return ""
        age_s = time.time() - self.place.log.stat().st_mtime  # negative where the clock was set back
        return refusal if 0 <= age_s < REFUSAL_S else ""

    @contextmanager
    def _lock(self, end_s: float) -> Iterator[None]:
        """One process starts the engine, the others wait. The system drops the lock of a process that dies."""
        make_private(self.place.folder)
        with (self.place.folder / f"{self.place.stem}.lock").open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end_s:
                        raise EngineFailed("EngineUnreachable", "another process is starting the engine") from None
                    time.sleep(0.02)
            yield


def make_private(folder: Path) -> None:
    """A folder for sockets that only this user may enter. Raises EngineFailed where it is another's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o077 or folder.is_symlink():
        raise EngineFailed("EngineUnreachable", "expected the engine's folder to be this user's alone (mode 0700)")


def connect(path: Path, timeout_s: float) -> socket.socket:
    """Raises OSError where nobody listens, EngineFailed where no socket can have this name."""
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
    """Of header and payload, from a frame's first bytes. Raises ValueError: no frame, or too long a one."""
    magic, header_bytes, payload_bytes = PREFIX.unpack(prefix)
    if magic != MAGIC or header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        raise ValueError("no frame of this protocol")
    return header_bytes, payload_bytes


def decode(text: bytes) -> Header:
    """A frame's header. Raises ValueError."""
    header = json.loads(text)
    if not isinstance(header, dict):
        raise ValueError("expected a JSON object")
    return header


def receive(connection: socket.socket) -> tuple[Header, bytes]:
    """The next frame. Raises ValueError, OSError, _Broken."""
    header_bytes, payload_bytes = lengths(_exactly(connection, PREFIX.size))
    return decode(_exactly(connection, header_bytes)), _exactly(connection, payload_bytes)


def _exactly(connection: socket.socket, count: int) -> bytes:
    content = bytearray()
    while len(content) < count:
        chunk = connection.recv(min(count - len(content), 1 << 20))
        if not chunk:
            raise _Broken
        content += chunk
    return bytes(content)


def _pid_behind(connection: socket.socket) -> int:
    """The process that listens (unix(7), SO_PEERCRED)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def _left(end_s: float) -> float:
    return max(0.05, end_s - time.monotonic())
