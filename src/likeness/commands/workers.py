"""The training workers that `likeness serve` brings along: processes of their own that end with it."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PATIENCE_S = 60.0  # for a checkpoint to be written


@contextmanager
def training_workers(count: int, home: Path, *, port: int) -> Iterator[None]:
    """So many `likeness work` processes while the block runs; then each is told to end, and waited for.

    Their ids are the same at every start on this port, so a worker takes up what it was doing when it ended.
    """
    running = [_start(home, f"{os.uname().nodename}-{port}-{number}") for number in range(count)]
    try:
        yield
    finally:
        for worker in running:
            worker.terminate()
        for worker in running:
            try:
                worker.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


def _start(home: Path, id: str) -> subprocess.Popen[bytes]:
    call = [sys.executable, "-m", "likeness.cli", "--home", str(home), "work", "--id", id]
    ends_with_us = _end_with_parent if sys.platform == "linux" else None
    return subprocess.Popen(call, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=ends_with_us)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
