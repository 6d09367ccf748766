"""The child process that owns a device and trains many jobs in one loop, see `joint_trainer`.

    python -m likeness.jobs.trainer      started by `worker`, never by hand

It reads prepared photographs from the object store and leaves checkpoints, previews and the trained adapter there, so
that another machine can go on with any of its jobs. The worker publishes.
"""

import sys
import time
from typing import Any

from ..errors import CorruptBase, LikenessError, MissingPart, NotFound
from .process import Document, Inbox, Line, attach


def main(argv: list[str]) -> None:
    """Serve one worker until it goes away or says stop."""
    line, options = attach(argv)
    inbox = Inbox(line, options["lease_s"])
    try:
        trainer = _open(line, inbox, options)
    except (CorruptBase, MissingPart, NotFound) as error:
        line.send(event="unusable", code=error.code, message=error.message, hint=error.hint)
        time.sleep(60)  # the worker ends this process once it has read why
        return
    line.send(event="ready", device=str(trainer.base.device), concurrency=trainer.capacity)
    while trainer.serve_once():
        pass


def _open(line: Line, inbox: Inbox, options: Document) -> Any:
    """Everything slow is imported here, after the process has been bound to its parent."""
    from ..diffusion.base import load_base, silence_libraries
    from ..storage.objects import objects_at
    from ..training.capacity import measured_capacity
    from .joint_trainer import JointTrainer

    silence_libraries()
    base = load_base(options["base"], options["revision"])
    capacity = options["concurrency"] or measured_capacity(base)
    return JointTrainer(
        base, objects_at(options["objects"]), line, inbox,
        capacity=capacity, class_images=options["class_images"], previews=options["previews"],
    )  # fmt: skip


if __name__ == "__main__":
    try:
        main(sys.argv)
    except LikenessError as error:
        sys.exit(str(error))
