"""A child process does not outlive its worker, however that ends, and its jobs are told when it dies."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fixtures.installation import SRC, pids_with
from fixtures.waiting import HANG_S, until
from likeness.worker.child_process import LEASE_LOST, PARENT_GONE, ChildProcess, Document, Inbox, Line

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc"),
]

PREPARER = "likeness.worker.preparer"


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SRC))


def options(tmp_path: Path, lease_s: float = 60.0) -> Document:
    return {"objects": str(tmp_path / "objects"), "lease_s": lease_s}


ASKED = {"photos": "anna/none", "prepared": "anna/p", "order": "not read before the photos"}


def test_a_child_that_hears_nothing_for_a_lease_ends_itself_and_no_job_is_the_cause(tmp_path: Path) -> None:
    child = ChildProcess(PREPARER, options(tmp_path, lease_s=0.5))
    child.enter("a")
    child.ask("a", ASKED)
    child.tend()
    died = until_said(child, "a", "died")
    assert (died["code"], died["crashed"]) == (LEASE_LOST, False)


class Clock:
    """Seconds that pass while the inbox sleeps; during the first `beats` sleeps it hears that it may live."""

    def __init__(self, supervisor: Line, beats: int) -> None:
        self.now_s, self.renewed_s, self.beats = 0.0, -1.0, beats
        self.inbox: Inbox | None = None
        self.watch: threading.Thread | None = None
        self._supervisor = supervisor

    def monotonic(self) -> float:
        if threading.current_thread() is not self.watch:  # the inbox has heard 'alive'
            self.renewed_s = self.now_s
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.watch = threading.current_thread()
        until(lambda: self.inbox)
        self.now_s += seconds
        if self.beats:
            self.beats -= 1
            self._supervisor.send(do="alive")
            until(lambda: self.renewed_s == self.now_s, pause_s=0.001)


def test_a_child_that_is_told_to_live_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    ours, theirs = socket.socketpair()
    supervisor = Line(ours)
    clock = Clock(supervisor, beats=40)

    def end(code: int) -> None:
        ended.append(code)  # and the thread, whose last act this is, ends

    monkeypatch.setattr("likeness.worker.child_process.time", clock)
    monkeypatch.setattr("likeness.worker.child_process.os._exit", end)
    clock.inbox = Inbox(Line(theirs), lease_s=4.0)
    until(lambda: ended)
    assert (ended, clock.now_s) == ([LEASE_LOST], 40.0 + 5.0)
    supervisor.close()
    until(lambda: len(ended) == 2)
    assert ended[1] == PARENT_GONE
    theirs.close()


def test_a_child_dies_with_its_supervisor(tmp_path: Path) -> None:
    program = (
        "import time\n"
        "from likeness.worker.child_process import ChildProcess\n"
        f"child = ChildProcess({PREPARER!r}, {options(tmp_path)!r})\n"
        "child.tend()\n"
        "while not child.is_ready:\n"
        "    time.sleep(0.05)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    pid = int(supervisor.stdout.readline())
    assert pid in pids_with(PREPARER)
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    until(lambda: pid not in pids_with(PREPARER))


def test_a_child_that_died_is_started_again_and_its_jobs_are_told(tmp_path: Path) -> None:
    child = ChildProcess(PREPARER, options(tmp_path))
    child.enter("a")
    child.ask("a", ASKED)
    child.tend()
    assert until_said(child, "a", "began") == {"event": "began", "job": "a"}
    failed = child.take("a", HANG_S)
    assert failed is not None and failed["event"] == "failed"  # there are no such photographs
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    died = until_said(child, "a", "died")
    assert (died["crashed"], died["code"], died["together"]) == (True, -9, 1)
    child.ask("a", ASKED)
    child.tend()
    until_said(child, "a", "failed")
    assert child.pid not in (None, first)
    child.leave("a")
    child.close(patience_s=20)
    until(lambda: child.pid is None and not child.is_ready)


def until_said(child: ChildProcess, job: str, event: str) -> Document:
    end_s = time.monotonic() + HANG_S
    while time.monotonic() < end_s:
        said = child.take(job, 0.2)
        if said is not None and said["event"] == event:
            return said
    raise AssertionError(f"{event} was not said")
