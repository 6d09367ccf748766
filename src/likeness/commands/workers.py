"""The training workers that `likeness serve` brings along: processes of their own that end with it.

One that dies is started again, as a service manager would, later each time.
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
_PATIENCE_S = 60.0  # for a checkpoint to be written
_LOOK_S = 1.0  # between looks at who is alive
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0  # before a dead worker is started again; doubles

Process = subprocess.Popen[bytes]


@contextmanager
def training_workers(count: int, home: Path, *, port: int) -> Iterator[None]:
    """So many `likeness work` processes while the block runs; then each is told to end, and waited for.

    Their ids are the same at every start on this port, so a worker takes up what it was doing when it ended.
    """
    ids = [f"{os.uname().nodename}-{port}-{number}" for number in range(count)]
    running, stop = [_start(home, id) for id in ids], Event()
    # The thread that starts them again also ends them: a child's parent, to the system, is the thread it came from.
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
            if worker.poll():  # None: alive; 0: somebody asked it to end
                log.warning("training worker %d ended with %d and is started again", number, worker.returncode)
                if not stop.wait(pause_s):
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                    try:
                        running[number] = _start(home, ids[number])
                    except (OSError, subprocess.SubprocessError):  # no memory or process left: tried again
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
