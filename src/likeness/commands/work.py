"""`likeness work`: a training worker for this installation's queue."""

import os
import sys
from typing import Annotated

import typer

from ..errors import LikenessError, UsageError
from ..service.training import training_of
from ..storage.scratch import scratch
from .group import Call

_MOST = 64


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
    from ..jobs.worker import stop_on_signals

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
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MOST:
        raise UsageError(f"expected a concurrency from 1 to {_MOST}, or auto")
    return int(text)
