"""Training workers: `likeness work`, and the `likeness work` processes that `likeness serve` starts.

Those are separate processes that end with the server. A worker that dies is restarted, with increasing pauses.
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
from typing import Annotated

import typer

from ..errors import LikenessError, UsageError
from ..service.training import training_of
from ..storage.scratch import scratch
from .group import Call

log = logging.getLogger("likeness.workers")

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PATIENCE_S = 60.0  # time to write a checkpoint
LOOK_S = 1.0  # between liveness checks
PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0  # before a dead worker is restarted; doubles each time

Process = subprocess.Popen[bytes]
_MOST_JOBS = 64


def work(
    ctx: typer.Context,
    id: Annotated[
        str | None, typer.Option(help="Unique id, the same after a restart; host name and 0 by default.")
    ] = None,
    concurrency: Annotated[
        str, typer.Option(help="Number of jobs at once, or `auto`: as many as fit in device memory.")
    ] = "2",
    exit_when_idle: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Exit after this many seconds without a job.")
    ] = None,
    previews: Annotated[int, typer.Option(min=0, max=4, help="Make preview images at each checkpoint.")] = 1,
    score: Annotated[bool, typer.Option("--score/--no-score", help="Compute a score card for each adapter.")] = True,
) -> None:
    """Run queued training jobs, several in one loop. SIGTERM stops the worker after a checkpoint."""
    from ..worker.worker import stop_on_signals

    call: Call = ctx.obj
    worker = training_of(call.settings).worker(
        id or f"{os.uname().nodename}-0", concurrency=_concurrency(concurrency),
        exit_when_idle_s=exit_when_idle, previews=previews, scores=score,
    )  # fmt: skip
    stop_on_signals(worker)
    code = 0
    try:
        with scratch(worker.options.home):
            worker.run(ready=lambda: call.terminal.note("ready, waiting for jobs"))
        call.terminal.document({"worker": worker.options.id, "ended": "in order"})
    except LikenessError as error:
        code = call.terminal.fail(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of jobs that a child process still holds would wait for it


def _concurrency(text: str) -> int:
    if text == "auto":
        return 0
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MOST_JOBS:
        raise UsageError(f"expected a concurrency from 1 to {_MOST_JOBS}, or auto")
    return int(text)


@contextmanager
def training_workers(count: int, home: Path, *, port: int) -> Iterator[None]:
    """Run a number of `likeness work` processes while the block runs, then stop them and wait for them.

    Their ids depend only on the port, so that a worker resumes its jobs after a restart.
    """
    ids = [f"{os.uname().nodename}-{port}-{number}" for number in range(count)]
    running, stop = [start_worker(home, id) for id in ids], Event()
    # One thread starts and stops them: for the system, the parent of a process is the thread that started it.
    keeper = Thread(target=_keep, args=(running, home, ids, stop), name="workers")
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()


def _keep(running: list[Process], home: Path, ids: list[str], stop: Event) -> None:
    pause_s = PAUSE_S
    while not stop.wait(LOOK_S):
        for number, worker in enumerate(running):
            if worker.poll():  # None: running; 0: stopped on purpose
                log.warning("training worker %d exited with status %d and is restarted", number, worker.returncode)
                if not stop.wait(pause_s):
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                    try:
                        running[number] = start_worker(home, ids[number])
                    except (OSError, subprocess.SubprocessError):  # no memory or no process left: retried
                        log.exception("training worker %d could not be started", number)
    for worker in running:
        worker.terminate()
    for worker in running:
        end_worker(worker)


def end_worker(worker: Process) -> None:
    """Ask it to end, and wait for its checkpoints; kill it when that takes too long."""
    worker.terminate()
    try:
        worker.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def start_worker(home: Path, id: str, *options: str) -> Process:
    """`likeness work` in a process that ends with this one; on Linux, with the thread that calls this."""
    call = [sys.executable, "-m", "likeness.cli", "--home", str(home), "work", "--id", id, *options]
    ends_with_us = _end_with_parent if sys.platform == "linux" else None
    return subprocess.Popen(call, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=ends_with_us)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
