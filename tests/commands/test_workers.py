"""The workers beside a server: one that dies comes back, and all end with the server."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fixtures.waiting import HANG_S, until
from likeness.commands import workers


def test_a_worker_that_dies_is_started_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(home: Path, id: str) -> subprocess.Popen[bytes]:
        code = "import sys; sys.exit(3)" if not started else "import time; time.sleep(600)"
        started.append(subprocess.Popen([sys.executable, "-c", code]))
        return started[-1]

    monkeypatch.setattr(workers, "start_worker", start)
    monkeypatch.setattr(workers, "LOOK_S", 0.02)
    monkeypatch.setattr(workers, "PAUSE_S", 0.02)
    with workers.training_workers(1, tmp_path, port=1):
        until(lambda: len(started) == 2)
        assert started[1].poll() is None
    assert started[0].returncode == 3
    assert started[1].returncode is not None  # ended with the server


def test_a_worker_that_was_asked_to_end_stays_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(home: Path, id: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", ""]))
        return started[-1]

    looks = threading.Semaphore(0)

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            looks.release()
            return super().wait(timeout)

    monkeypatch.setattr(workers, "start_worker", start)
    monkeypatch.setattr(workers, "LOOK_S", 0.02)
    monkeypatch.setattr(workers, "Event", Stop)
    with workers.training_workers(2, tmp_path, port=1):
        for worker in started[:2]:
            worker.wait()
        while looks.acquire(blocking=False):
            pass
        for _ in range(3):
            assert looks.acquire(timeout=HANG_S)
    assert len(started) == 2
