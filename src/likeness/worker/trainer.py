"""The child process that owns a device and trains many jobs in one loop, see `joint_trainer`.

    python -m likeness.worker.trainer      started by `worker`, never by hand

It reads prepared photographs from the object store and leaves checkpoints, previews and the trained adapter there, so
that another machine can go on with any of its jobs. The worker publishes.
"""

import sys
import time
from pathlib import Path
from typing import Any

from ..errors import CorruptBase, LikenessError, MissingPart, NotFound, OutOfMemory
from .child_process import Document, Inbox, Line, attach


def main(argv: list[str]) -> None:
    """Serve one worker until it ends or sends 'stop'."""
    line, options = attach(argv)
    inbox = Inbox(line, options["lease_s"])
    try:
        trainer = _open(line, inbox, options)
    except (CorruptBase, MissingPart, NotFound, OutOfMemory) as error:
        line.send(event="unusable", code=error.code, message=error.message, hint=error.hint)
        time.sleep(60)  # the worker ends this process after reading the reason
        return
    line.send(event="ready", device=str(trainer.base.device), concurrency=trainer.capacity,
              photo_px=trainer.base.family.photo_px, aspects=trainer.base.family.aspects)  # fmt: skip
    while trainer.serve_once():
        pass


def _open(line: Line, inbox: Inbox, options: Document) -> Any:
    """Everything slow is imported here, after the process has been bound to its parent."""
    from ..diffusion.base import family_at, load_base, silence_libraries
    from ..diffusion.devices import device_name, limit_memory, pick_device
    from ..storage.device_turns import TrainingTurns
    from ..storage.objects import objects_at
    from ..training.plan import plan_here
    from ..training.recipe import recipe_named
    from .joint_trainer import JointTrainer

    silence_libraries()
    named = options["base"], options["revision"]
    if options["memory_share"]:
        limit_memory(pick_device(), options["memory_share"])
    recipe = recipe_named("standard", family_at(*named).name)
    capacity, memory = plan_here(*named, recipe, people=options["concurrency"] or None)
    base = load_base(*named, trains=True)
    turns = TrainingTurns(Path(options["home"]), device_name(base.device), wait_s=options["wait_s"])
    return JointTrainer(
        base, objects_at(options["objects"]), line, inbox,
        capacity=capacity, memory=memory, previews=options["previews"], turns=turns,
    )  # fmt: skip


if __name__ == "__main__":
    try:
        main(sys.argv)
    except LikenessError as error:
        sys.exit(str(error))
