"""A supervisor's lasting link to one kind of child: started again when it dies, and a mailbox for every job in it.

    job's thread: enter -> ask -> take, take, ... -> leave          main thread: tend, every second

A job that is in the child when that dies finds 'died' in its mailbox, with whether it can be to blame. Knows nothing of
what the child does.
"""

import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from .child import LEASE_LOST, PARENT_GONE, Child, Said

_BLAMELESS = (LEASE_LOST, PARENT_GONE)
LEAVE_S = 600.0  # a step of the loop may be long; whoever waits here has nothing else to do
_RESTART_PAUSES_S = (0.0, 1.0, 5.0, 15.0, 60.0)


@dataclass(eq=False)
class _Guest:
    """One job's mailbox, and how far into the child it has come."""

    mailbox: "queue.SimpleQueue[Said]" = field(default_factory=queue.SimpleQueue)
    asked: Said | None = None
    is_sent: bool = False
    has_begun: bool = False
    has_left: threading.Event = field(default_factory=threading.Event)


class Link:
    """One child, and the jobs in it.

    Args:
        module, options: as for `Child`.
        kill_to_leave: the child works on one job at a time and cannot be interrupted: who leaves in the middle ends it.
    """

    def __init__(self, module: str, options: Said, *, kill_to_leave: bool = False) -> None:
        self._module, self._options, self._kill_to_leave = module, options, kill_to_leave
        self._guests: dict[str, _Guest] = {}
        self._lock = threading.RLock()
        self._child: Child | None = None
        self._is_ready = False
        self._is_closing = False
        self._failed_starts = 0
        self._next_start_s = 0.0
        self._expected_end = False
        self.facts: Said = {}  # what the child said of itself when it was ready
        self.unusable: Said | None = None  # why no child can be started at all

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    @property
    def is_ready(self) -> bool:
        return self._is_ready

    def tend(self) -> None:
        """Start the child where there is none. Only ever call it from one thread, which must outlive the child."""
        with self._lock:
            due = self._child is None and not self._is_closing and self.unusable is None
            if due and time.monotonic() >= self._next_start_s:
                self._expected_end = False
                self._child = Child(self._module, self._options, heard=self._heard, ended=self._ended)

    def alive(self) -> None:
        """Tell the child that this worker is known to be alive."""
        if self._child is not None:
            self._child.line.send(do="alive")

    def enter(self, job: str) -> None:
        with self._lock:
            self._guests[job] = _Guest()

    def ask(self, job: str, asked: Said) -> None:
        """Give the child this job, now or as soon as there is one."""
        with self._lock:
            guest = self._guests[job]
            guest.asked, guest.is_sent, guest.has_begun = asked, False, False
            self._send_waiting()

    def take(self, job: str, timeout_s: float) -> Said | None:
        """The next thing that was said to this job, or None."""
        with suppress(queue.Empty):
            return self._guests[job].mailbox.get(timeout=timeout_s)
        return None

    def leave(self, job: str, *, patience_s: float = LEAVE_S) -> None:
        """Take a job out. When this returns, the child writes nothing of it any more, unless `is_inside` says so."""
        with self._lock:
            guest = self._guests.get(job)
            if guest is None or not guest.is_sent or self._child is None:
                self._guests.pop(job, None)
                return
            if guest.has_begun and self._kill_to_leave:
                self._expected_end = True
                self._child.kill()
            else:
                self._child.line.send(do="leave", job=job)
        if guest.has_left.wait(patience_s):
            with self._lock:
                self._guests.pop(job, None)

    def is_inside(self, job: str) -> bool:
        """Whether the child may still write of this job: it was asked to let it go and has not said that it did."""
        with self._lock:
            return job in self._guests

    def done(self, job: str) -> None:
        """The child has said its last word about this job."""
        with self._lock:
            self._guests.pop(job, None)

    def close(self, *, patience_s: float) -> None:
        """Ask the child to put everything down and end; kill it when it takes too long."""
        with self._lock:
            self._is_closing = True
            child = self._child
        if child is not None:
            child.line.send(do="stop")
            if not child.wait(patience_s):
                child.kill()
                child.wait(5.0)

    def _send_waiting(self) -> None:
        if self._child is None or not self._is_ready:
            return
        for job, guest in self._guests.items():
            if guest.asked is not None and not guest.is_sent:
                guest.is_sent = self._child.line.send(do="work", job=job, **guest.asked)

    def _heard(self, said: Said) -> None:
        with self._lock:
            if said["event"] == "ready":
                self._is_ready, self._failed_starts, self.facts = True, 0, said
                self._send_waiting()
            elif said["event"] == "unusable":
                self.unusable = said
            elif (guest := self._guests.get(said.get("job", ""))) is not None:
                guest.has_begun = guest.has_begun or said["event"] == "began"
                if said["event"] == "left":
                    guest.has_left.set()
                guest.mailbox.put(said)

    def _ended(self, code: int) -> None:
        with self._lock:
            was_ready, self._is_ready, self._child = self._is_ready, False, None
            if not was_ready:
                self._failed_starts += 1
            pause_s = _RESTART_PAUSES_S[min(self._failed_starts, len(_RESTART_PAUSES_S) - 1)]
            self._next_start_s = time.monotonic() + pause_s
            begun = [guest for guest in self._guests.values() if guest.has_begun]
            blame = not self._expected_end and not self._is_closing and code not in (0, *_BLAMELESS)
            for guest in self._guests.values():
                guest.has_left.set()
                if guest.is_sent:
                    guest.is_sent = False
                    to_blame = blame and guest.has_begun
                    guest.has_begun = False
                    guest.mailbox.put({"event": "died", "to_blame": to_blame, "together": len(begun), "code": code})
