"""A child does not outlive its supervisor, however that ends, and a job's mailbox hears of its child's end."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from likeness.jobs.child import LEASE_LOST, PARENT_GONE, Child, Inbox, Line, Said
from likeness.jobs.link import Link

from tests.jobs.installation import SRC, pids_with
from tests.waiting import HANG_S, until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc"),
]

PREPARER = "likeness.jobs.preparer"


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SRC))


def options(tmp_path: Path, lease_s: float = 60.0) -> Said:
    return {"objects": str(tmp_path / "objects"), "lease_s": lease_s}


def test_a_child_that_hears_nothing_for_a_lease_ends_itself_and_is_not_to_blame(tmp_path: Path) -> None:
    ended: list[int] = []
    Child(PREPARER, options(tmp_path, lease_s=0.5), heard=lambda said: None, ended=ended.append)
    until(lambda: ended)
    assert ended == [LEASE_LOST]


class Clock:
    """Seconds that pass while the inbox sleeps; during the first `beats` sleeps it hears that it may live."""

    def __init__(self, supervisor: Line, beats: int) -> None:
        self.now_s, self.beats = 0.0, beats
        self.inbox: Inbox | None = None
        self._supervisor = supervisor

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        until(lambda: self.inbox)
        self.now_s += seconds
        if self.beats:
            self.beats -= 1
            self._supervisor.send(do="alive")
            until(lambda: self.inbox is not None and self.inbox._heard_s == self.now_s, pause_s=0.001)


def test_a_child_that_is_told_to_live_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    ours, theirs = socket.socketpair()
    supervisor = Line(ours)
    clock = Clock(supervisor, beats=40)

    def end(code: int) -> None:
        ended.append(code)  # and the thread, whose last act this is, ends

    monkeypatch.setattr("likeness.jobs.child.time", clock)
    monkeypatch.setattr("likeness.jobs.child.os._exit", end)
    clock.inbox = Inbox(Line(theirs), lease_s=4.0)
    until(lambda: ended)
    assert (ended, clock.now_s) == ([LEASE_LOST], 40.0 + 5.0)
    supervisor.close()
    until(lambda: len(ended) == 2)
    assert ended[1] == PARENT_GONE
    theirs.close()


def test_a_child_dies_with_its_supervisor(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from likeness.jobs.child import Child\n"
        f"child = Child({PREPARER!r}, {options(tmp_path)!r}, heard=lambda said: print(child.pid, flush=True),"
        " ended=lambda code: None)\n"
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


def test_a_link_starts_its_child_again_and_tells_who_was_in_it(tmp_path: Path) -> None:
    link = Link(PREPARER, options(tmp_path))
    link.enter("a")
    link.ask("a", {"photos": "anna/none", "prepared": "anna/p", "order": "not read before the photos"})
    link.tend()
    said = until_said(link, "a", "began")
    assert said == {"event": "began", "job": "a"}
    failed = link.take("a", HANG_S)
    assert failed is not None and failed["event"] == "failed"  # there are no such photographs
    first = link.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    died = until_said(link, "a", "died")
    assert (died["to_blame"], died["code"]) == (True, -9)
    link.ask("a", {"photos": "anna/none", "prepared": "anna/p", "order": ""})
    link.tend()
    until_said(link, "a", "failed")
    assert link.pid not in (None, first)
    link.leave("a")
    link.close(patience_s=20)
    assert link.pid is None or not link.is_ready


def until_said(link: Link, job: str, event: str) -> Said:
    end_s = time.monotonic() + HANG_S
    while time.monotonic() < end_s:
        said = link.take(job, 0.2)
        if said is not None and said["event"] == event:
            return said
    raise AssertionError(f"{event} was not said")
