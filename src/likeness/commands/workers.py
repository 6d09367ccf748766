"""Training workers started by `likeness serve`: separate processes that end with it.

A worker that dies is restarted, with increasing pauses.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

log = logging.getLogger("likeness.workers")

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PATIENCE_S = 60.0  # time to write a checkpoint
_LOOK_S = 1.0  # between liveness checks
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0  # before a dead worker is restarted; doubles each time

Process = subprocess.Popen[bytes]


@contextmanager
def training_workers(count: int, home: Path, *, port: int) -> Iterator[None]:
    """Run a number of `likeness work` processes while the block runs, then stop them and wait for them.

    Their ids depend only on the port, so that a worker resumes its jobs after a restart.
    """
    ids = [f"{os.uname().nodename}-{port}-{number}" for number in range(count)]
    running, stop = [_start(home, id) for id in ids], Event()
    # One thread starts and stops them: for the system, the parent of a process is the thread that started it.
    keeper = Thread(target=_keep, args=(running, home, ids, stop), name="workers")
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()


def _keep(running: list[Process], home: Path, ids: list[str], stop: Event) -> None:
    pause_s = _PAUSE_S
    while not stop.wait(_LOOK_S):
        for number, worker in enumerate(running):
            if worker.poll():  # None: running; 0: stopped on purpose
                log.warning("training worker %d exited with status %d and is restarted", number, worker.returncode)
                if not stop.wait(pause_s):
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                    try:
                        running[number] = _start(home, ids[number])
                    except (OSError, subprocess.SubprocessError):  # no memory or no process left: retried
                        log.exception("training worker %d could not be started", number)
    for worker in running:
        worker.terminate()
    for worker in running:
        try:
            worker.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _start(home: Path, id: str) -> Process:
    call = [sys.executable, "-m", "likeness.cli", "--home", str(home), "work", "--id", id]
    ends_with_us = _end_with_parent if sys.platform == "linux" else None
    return subprocess.Popen(call, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=ends_with_us)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
