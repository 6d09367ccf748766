"""The process that owns a device: one joint loop, which waiting jobs join and finished ones leave, between two steps.

    python -m likeness.jobs.trainer      started by `worker`, never by hand

It reads prepared photographs from the object store and leaves checkpoints, previews and the trained adapter there, so
that another machine can go on with any of its jobs. What is published is the supervisor's business.
"""

import sys
import time
from typing import Any

from ..errors import CorruptBase, LikenessError, MissingPart, NotFound
from .child import Inbox, Line, Said, attach


def main(argv: list[str]) -> None:
    """Serve one supervisor until it goes away or says stop."""
    line, options = attach(argv)
    inbox = Inbox(line, options["lease_s"])
    try:
        studio = _open(line, inbox, options)
    except (CorruptBase, MissingPart, NotFound) as error:
        line.send(event="unusable", code=error.code, message=error.message, hint=error.hint)
        time.sleep(60)  # the supervisor ends this process once it has read why
        return
    line.send(event="ready", device=str(studio.base.device), concurrency=studio.capacity)
    while studio.serve_once():
        pass


def _open(line: Line, inbox: Inbox, options: Said) -> Any:
    """Everything slow is imported here, after the process has been bound to its parent."""
    from diffusers.utils import logging as diffusers_log
    from transformers.utils import logging as transformers_log

    from ..diffusion.base import load_base
    from ..storage.objects import objects_at
    from .memory import measured_capacity
    from .studio import Studio

    diffusers_log.set_verbosity_error()
    transformers_log.set_verbosity_error()
    transformers_log.disable_progress_bar()
    base = load_base(options["base"], options["revision"])
    capacity = options["concurrency"] or measured_capacity(base)
    return Studio(
        base, objects_at(options["objects"]), line, inbox,
        capacity=capacity, class_images=options["class_images"], previews=options["previews"],
    )  # fmt: skip


if __name__ == "__main__":
    try:
        main(sys.argv)
    except LikenessError as error:
        sys.exit(str(error))
