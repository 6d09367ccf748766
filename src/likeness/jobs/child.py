"""A child process that works for a supervisor, speaks with it in lines of JSON, and does not outlive it.

Both ends are here. A child ends when the kernel says its parent died (Linux, prctl(2) PR_SET_PDEATHSIG, which follows
the thread that started it: so start children from a thread that stays), when the line closes (everywhere), and when
nobody has said for longer than the lease that this worker is alive: then another one may have taken its jobs over.
"""

import ctypes
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

Said = dict[str, Any]

LEASE_LOST = 75  # exit codes of a child that ends itself: nobody's jobs are to blame
PARENT_GONE = 76
_PR_SET_PDEATHSIG = 1
_MOST_BYTES = 8 << 20  # of one line
LINE_LOST_S = 30.0  # for a child to end by itself after its last word

log = logging.getLogger("likeness.worker")


class Line:
    """One end of the conversation. Sending is safe from any thread."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lock = threading.Lock()

    def send(self, **said: object) -> bool:
        """False: nobody listens any more."""
        content = json.dumps(said).encode() + b"\n"
        with self._lock:
            try:
                self._end.sendall(content)
            except OSError:
                return False
        return True

    def __iter__(self) -> Iterator[Said]:
        """Everything the other end says, until it is gone."""
        with self._end.makefile("rb") as lines, suppress(OSError, ValueError):
            while line := lines.readline(_MOST_BYTES):
                yield json.loads(line)

    def close(self) -> None:
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        self._end.close()


class Child:
    """The supervisor's end.

    Args:
        module: run as `python -m module`.
        options: plain values; the child gets them from `attach`.
        heard, ended: called on a thread of this object's, `ended` once, with the exit code (negative: the signal).
    """

    def __init__(
        self, module: str, options: Said, *, heard: Callable[[Said], None], ended: Callable[[int], None]
    ) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            words = [sys.executable, "-m", module, str(theirs.fileno()), str(os.getpid()), json.dumps(options)]
            # its own session: an interrupt key is for the supervisor, which then ends its children in order
            self._process = subprocess.Popen(words, pass_fds=[theirs.fileno()], start_new_session=True)
        self.line = Line(ours)
        self._heard, self._ended = heard, ended
        threading.Thread(target=self._listen, name=f"{module} line", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended in time."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _listen(self) -> None:
        for said in self.line:
            try:
                self._heard(said)
            except Exception:  # one message that makes no sense; the next ones may
                log.exception("a message of a child process could not be read")
        if not self.wait(LINE_LOST_S):  # it still runs and its line is broken: nothing it does would be known
            self.kill()
        code = self._process.wait()
        self.line.close()
        self._ended(code)


def attach(argv: Sequence[str], lease_s: float | None = None) -> tuple[Line, Said]:
    """The child's end: its line, and its options. To be called before anything slow is imported.

    Raises:
        SystemExit: the parent is gone already.
    """
    handle, parent, options = int(argv[1]), int(argv[2]), json.loads(argv[3])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(PARENT_GONE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return Line(socket.socket(fileno=handle)), options


class Inbox:
    """What the supervisor says, for a child that is busy: read by a thread, which also sees the line close.

    Args:
        lease_s: the child ends when nobody said 'alive' for so long.
    """

    def __init__(self, line: Line, lease_s: float) -> None:
        self._line, self._lease_s = line, lease_s
        self._heard_s = time.monotonic()
        self._waiting: list[Said] = []
        self._arrived = threading.Condition()
        for work in (self._listen, self._watch):
            threading.Thread(target=work, daemon=True).start()

    def take(self, timeout_s: float | None = 0.0) -> list[Said]:
        """Everything that was said since the last look; where that is nothing, waits `timeout_s` (None: for ever)."""
        with self._arrived:
            if not self._waiting and timeout_s != 0.0:
                self._arrived.wait(timeout_s)
            taken, self._waiting = self._waiting, []
        return taken

    def peek(self, wanted: Callable[[Said], bool]) -> bool:
        """Whether something of the kind has been said and not yet been taken."""
        with self._arrived:
            return any(wanted(said) for said in self._waiting)

    def _listen(self) -> None:
        for said in self._line:
            if said["do"] == "alive":
                self._heard_s = time.monotonic()
                continue
            with self._arrived:
                self._waiting.append(said)
                self._arrived.notify()
        os._exit(PARENT_GONE)

    def _watch(self) -> None:
        while time.monotonic() - self._heard_s <= self._lease_s:
            time.sleep(min(1.0, self._lease_s / 4))
        os._exit(LEASE_LOST)
