"""A worker's child processes: restarted when they die, connected by lines of JSON, never outliving the worker.

Both ends are here: `ChildProcess` in the worker, `attach` and `Inbox` in the child.

    a job's thread: enter -> ask -> take, take, ... -> leave          main thread: tend, often

A child ends when the kernel signals that its parent died (Linux, prctl(2) PR_SET_PDEATHSIG, which follows the thread
that started it, so `tend` is called from a thread that outlives the child), when the line closes (everywhere), and when
no message 'alive' came for the duration of a lease: then another worker may have taken its jobs over.
"""

import ctypes
import json
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]

LEASE_LOST, PARENT_GONE = 75, 76  # exit codes of a child that ends itself: no job is the cause
LINE_LOST_S = 30.0  # for a child to end by itself after its line has closed
LEAVE_S = 600.0  # for a job to leave: a step of the loop may be long
_PR_SET_PDEATHSIG = 1
_MOST_BYTES = 8 << 20  # of one line
_RESTART_PAUSES_S = (0.0, 1.0, 5.0, 15.0, 60.0)

log = logging.getLogger("likeness.worker")


class Line:
    """One end of the conversation. Sending is safe from any thread."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._lock = end, threading.Lock()

    def send(self, **said: object) -> bool:
        """False: the other end is closed."""
        content = json.dumps(said).encode() + b"\n"
        with self._lock:
            try:
                self._end.sendall(content)
            except OSError:
                return False
        return True

    def __iter__(self) -> Iterator[Document]:
        """Everything that the other end sends, until it closes."""
        with self._end.makefile("rb") as lines, suppress(OSError, ValueError):
            while line := lines.readline(_MOST_BYTES):
                yield json.loads(line)

    def close(self) -> None:
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        self._end.close()


# in the child


def attach(argv: Sequence[str]) -> tuple[Line, Document]:
    """The child's end of the line, and its options. To be called before anything slow is imported.

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
    """The worker's messages to a busy child: read by a thread, which also notices when the line closes.

    Args:
        lease_s: the child ends when no message 'alive' came for this long.
    """

    def __init__(self, line: Line, lease_s: float) -> None:
        self._line, self._lease_s = line, lease_s
        self._renewed_s = time.monotonic()
        self._waiting: list[Document] = []
        self._arrived = threading.Condition()
        for work in (self._listen, self._watch):
            threading.Thread(target=work, daemon=True).start()

    def take(self, timeout_s: float | None = 0.0) -> list[Document]:
        """All messages since the last call; if there are none, waits `timeout_s` (None: forever)."""
        with self._arrived:
            if not self._waiting and timeout_s != 0.0:
                self._arrived.wait(timeout_s)
            taken, self._waiting = self._waiting, []
        return taken

    def peek(self, wanted: Callable[[Document], bool]) -> bool:
        """Whether a message of the kind has arrived and was not taken yet."""
        with self._arrived:
            return any(wanted(said) for said in self._waiting)

    def _listen(self) -> None:
        for said in self._line:
            if said["do"] == "alive":
                self._renewed_s = time.monotonic()
                continue
            with self._arrived:
                self._waiting.append(said)
                self._arrived.notify()
        os._exit(PARENT_GONE)

    def _watch(self) -> None:
        while time.monotonic() - self._renewed_s <= self._lease_s:
            time.sleep(min(1.0, self._lease_s / 4))
        os._exit(LEASE_LOST)


# in the worker


@dataclass(eq=False)
class _Entry:
    """One job's mailbox, and its state in the child."""

    mailbox: "queue.SimpleQueue[Document]" = field(default_factory=queue.SimpleQueue)
    asked: Document | None = None
    is_sent: bool = False
    has_begun: bool = False
    has_left: threading.Event = field(default_factory=threading.Event)


class ChildProcess:
    """One child, and the jobs in it.

    If the child exits, every job in it receives `died`; `crashed` is true if the job was being worked on in a crash.

    Args:
        module: run as `python -m module`.
        options: plain values; the child gets them from `attach`.
        kill_to_leave: the child works on one job at a time and cannot be interrupted: leaving in the middle ends it.
    """

    def __init__(self, module: str, options: Document, *, kill_to_leave: bool = False) -> None:
        self._module, self._options, self._kill_to_leave = module, options, kill_to_leave
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Line | None = None
        self._is_closing = self._is_expected_to_end = False
        self._failed_starts, self._next_start_s = 0, 0.0
        self.is_ready = False
        self.facts: Document = {}  # what the child reported when it was ready
        self.unusable: Document | None = None  # why no child can be started at all

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def tend(self) -> None:
        """Start the child where there is none. Only ever call it from one thread, which must outlive the child."""
        with self._lock:
            is_wanted = self._process is None and not self._is_closing and self.unusable is None
            if is_wanted and time.monotonic() >= self._next_start_s:
                self._is_expected_to_end = False
                self._start()

    def alive(self) -> None:
        """Send the child that the worker's leases are renewed."""
        if (line := self._line) is not None:
            line.send(do="alive")

    def enter(self, job: str) -> None:
        with self._lock:
            self._entries[job] = _Entry()

    def ask(self, job: str, asked: Document) -> None:
        """Give the child this job, now or as soon as there is a child."""
        with self._lock:
            entry = self._entries[job]
            entry.asked, entry.is_sent, entry.has_begun = asked, False, False
            self._send_waiting()

    def take(self, job: str, timeout_s: float) -> Document | None:
        """The child's next message about this job, or None."""
        with suppress(queue.Empty):
            return self._entries[job].mailbox.get(timeout=timeout_s)
        return None

    def leave(self, job: str, *, patience_s: float = LEAVE_S) -> None:
        """Remove a job from the child. After this the child writes nothing more of it, unless `is_inside` is true."""
        with self._lock:
            entry = self._entries.get(job)
            if entry is None or not entry.is_sent or self._process is None or self._line is None:
                self._entries.pop(job, None)
                return
            if entry.has_begun and self._kill_to_leave:
                self._is_expected_to_end = True
                self._process.kill()
            else:
                self._line.send(do="leave", job=job)
        if entry.has_left.wait(patience_s):
            self.done(job)

    def is_inside(self, job: str) -> bool:
        """Whether the child may still write for this job: it has not confirmed that the job has left."""
        with self._lock:
            return job in self._entries

    def done(self, job: str) -> None:
        """The child will send nothing more about this job."""
        with self._lock:
            self._entries.pop(job, None)

    def close(self, *, patience_s: float) -> None:
        """Ask the child to write its checkpoints and end; kill it when that takes too long."""
        with self._lock:
            self._is_closing = True
            process, line = self._process, self._line
        if process is not None and line is not None:
            line.send(do="stop")
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            words = [sys.executable, "-m", self._module, str(theirs.fileno()), str(os.getpid())]
            # its own session: an interrupt key is for the worker, which then ends its children in order
            process = subprocess.Popen(
                [*words, json.dumps(self._options)], pass_fds=[theirs.fileno()], start_new_session=True
            )
        self._process, self._line = process, Line(ours)
        listen = threading.Thread(target=self._listen, args=(process, self._line), daemon=True)
        listen.start()

    def _listen(self, process: "subprocess.Popen[bytes]", line: Line) -> None:
        for said in line:
            try:
                self._heard(said)
            except Exception:  # the next messages may be readable
                log.exception("a message of a child process could not be read")
        with suppress(subprocess.TimeoutExpired):
            process.wait(LINE_LOST_S)
        process.kill()  # its line is closed, so its results cannot be read
        code = process.wait()
        line.close()
        self._ended(code)

    def _send_waiting(self) -> None:
        if self._line is None or not self.is_ready:
            return
        for job, entry in self._entries.items():
            if entry.asked is not None and not entry.is_sent:
                entry.is_sent = self._line.send(do="work", job=job, **entry.asked)

    def _heard(self, said: Document) -> None:
        with self._lock:
            if said["event"] == "ready":
                self.is_ready, self._failed_starts, self.facts = True, 0, said
                self._send_waiting()
            elif said["event"] == "unusable":
                self.unusable = said
            elif (entry := self._entries.get(said.get("job", ""))) is not None:
                entry.has_begun = entry.has_begun or said["event"] == "began"
                if said["event"] == "left":
                    entry.has_left.set()
                entry.mailbox.put(said)

    def _ended(self, code: int) -> None:
        with self._lock:
            self._failed_starts += not self.is_ready
            self.is_ready, self._process, self._line = False, None, None
            pause_s = _RESTART_PAUSES_S[min(self._failed_starts, len(_RESTART_PAUSES_S) - 1)]
            self._next_start_s = time.monotonic() + pause_s
            together = sum(entry.has_begun for entry in self._entries.values())
            is_in_order = self._is_expected_to_end or self._is_closing or code in (0, LEASE_LOST, PARENT_GONE)
            for entry in self._entries.values():
                entry.has_left.set()
                if entry.is_sent:
                    crashed = entry.has_begun and not is_in_order
                    entry.is_sent = entry.has_begun = False
                    entry.mailbox.put({"event": "died", "crashed": crashed, "together": together, "code": code})
