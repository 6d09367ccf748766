"""One fine-tune: prepared photographs and an order in, an adapter out, with a checkpoint to go on from.

It publishes nothing and holds no lock: that is the service's. The numbers are `training`'s.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import torch

from . import __version__
from .diffusion.base import BaseModel
from .errors import Interrupted
from .progress import Advance, ShouldStop, Stopwatch, Watch
from .training.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from .training.data import TrainingSet, build_training_set
from .training.loop import TrainingLoop
from .training.prior import class_latents
from .training.recipe import FineTuneRecipe, recipe_document
from .types import Adapter, AdapterCard, LoraPair, Network, PreparedPhoto, Subject

CHECKPOINT_NAME = "state.safetensors"


@dataclass(frozen=True)
class FineTuneOrder:
    """Who is to be learnt, and how."""

    subject: Subject
    recipe: FineTuneRecipe
    seed: int = 0
    restart: bool = False  # from the first step, whatever checkpoint there is
    replace: bool = False  # an adapter of this name that exists already


@dataclass(frozen=True, eq=False)
class Trained:
    """What the loop leaves behind."""

    weights: Mapping[Network, Mapping[str, LoraPair]]
    losses: tuple[float, ...]  # of every step, those before a resume included
    seconds: float  # in the loop, likewise


@dataclass(frozen=True)
class Checkpoints:
    """Where one job's state is kept, and the mark that makes it this job's."""

    path: Path
    mark: str

    def save(self, loop: TrainingLoop, name: str, losses: Sequence[float], *, seconds: float) -> None:
        kept = {"losses": torch.tensor(losses, dtype=torch.float64), "seconds": torch.tensor(seconds)}
        save_checkpoint(self.path, loop.state(name) | kept, mark=self.mark)

    def restore(self, loop: TrainingLoop, name: str) -> tuple[list[float], float]:
        """Losses and seconds so far; an empty list and 0 where there is nothing to go on from.

        Raises:
            CheckpointMismatch: it is another job's.
        """
        if not self.path.exists():
            return [], 0.0
        state = load_checkpoint(self.path, mark=self.mark)
        loop.restore(name, state)
        return state["losses"].tolist(), float(state["seconds"])

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


def fine_tune(
    base: BaseModel, order: FineTuneOrder, prepared: Sequence[PreparedPhoto], *,
    class_images: Path, checkpoint_folder: Path, watch: Watch, should_stop: ShouldStop, clock: Stopwatch,
) -> tuple[Adapter, tuple[float, ...]]:  # fmt: skip
    """Train an adapter, or finish training it. Returns it with the loss of every step.

    Args:
        class_images: folder of the shared class images.
        checkpoint_folder: of this job.

    Raises:
        Interrupted: `should_stop` said so; a checkpoint was written if the loop had begun.
        CheckpointMismatch: the checkpoint is of another recipe, base, seed or set of photos.
        NonFiniteLoss: the training diverged.
    """
    recipe, subject = order.recipe, order.subject
    checkpoints = Checkpoints(checkpoint_folder / CHECKPOINT_NAME, _mark(base, order, prepared))
    if order.restart:
        checkpoints.clear()
    with clock.stage("class images"):
        count = recipe.class_images if recipe.prior_rows else 0

        def made(done: int) -> None:
            watch(Advance("class images", done, count))
            stop_if(should_stop)

        watch(Advance("class images", 0, count))
        prior = class_latents(base, subject.class_noun, count, folder=class_images, progress=made)
    watch(Advance("encode", 0, 1))
    with clock.stage("encode"):
        small = [reduced(photo, 2 * base.family.resolution_px) for photo in prepared]
        data = build_training_set(base, subject, small, recipe=recipe, prior_latents=prior, seed=order.seed)
    with clock.stage("train"):
        trained = run_loop(base, order, data, checkpoints=checkpoints, watch=watch, should_stop=should_stop)
    photos = len({photo.source_sha256 for photo in prepared})
    return Adapter(_card(base, order, trained, photos=photos), trained.weights), trained.losses


def run_loop(
    base: BaseModel, order: FineTuneOrder, data: TrainingSet, *,
    checkpoints: Checkpoints, watch: Watch, should_stop: ShouldStop,
) -> Trained:  # fmt: skip
    """The steps of one job, from its checkpoint or from the first. Raises as `fine_tune`."""
    name, recipe = order.subject.name, order.recipe
    loop = TrainingLoop(base, capacity=1, rank=recipe.rank)
    try:
        loop.join(name, recipe, data, seed=order.seed)
        losses, seconds = checkpoints.restore(loop, name)
        while len(losses) < recipe.steps:
            if should_stop():
                checkpoints.save(loop, name, losses, seconds=seconds)
                raise Interrupted(
                    f"stopped after step {len(losses)} of {recipe.steps}; the checkpoint is kept",
                    hint="run the same command again to go on",
                )
            started_s = time.perf_counter()
            (progress,) = loop.step()
            step_s = time.perf_counter() - started_s
            seconds += step_s
            if progress.error is not None:
                checkpoints.clear()  # going on from before would end here again
                raise progress.error
            losses.append(progress.loss)
            rows = recipe.instance_rows + min(recipe.prior_rows, len(data.prior_latents))
            watch(Advance("train", len(losses), recipe.steps, progress.loss, rows / step_s))
            if len(losses) % recipe.checkpoint_every == 0:
                checkpoints.save(loop, name, losses, seconds=seconds)
        return Trained(loop.leave(name), tuple(losses), seconds)
    finally:
        loop.close()


def reduced(photo: PreparedPhoto, side_px: int) -> PreparedPhoto:
    """The photo at most `side_px` wide: backgrounds are varied many times, and a small base sees no more."""
    if photo.image.shape[0] <= side_px:
        return photo
    planes = [
        np.asarray(cv2.resize(plane, (side_px, side_px), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        for plane in (photo.image, photo.matte, photo.face)
    ]
    return PreparedPhoto(planes[0], planes[1], planes[2], photo.framing, photo.source_sha256)


def stop_if(should_stop: ShouldStop) -> None:
    """Raises Interrupted, for the stages that leave nothing to go on from."""
    if should_stop():
        raise Interrupted("stopped before the first step", hint="run the same command again")


def _mark(base: BaseModel, order: FineTuneOrder, prepared: Sequence[PreparedPhoto]) -> str:
    # The words count like a photo: they are what the pictures are said to show.
    words = f"{order.subject.identifier} {order.subject.class_noun}"
    sources = [*{photo.source_sha256 for photo in prepared}, words]
    return fingerprint(order.recipe, base_sha256=base.sha256, seed=order.seed, photos=sources)


def _card(base: BaseModel, order: FineTuneOrder, trained: Trained, *, photos: int) -> AdapterCard:
    recipe, subject = order.recipe, order.subject
    return AdapterCard(
        name=subject.name, class_noun=subject.class_noun, identifier=subject.identifier,
        base_id=base.id, base_sha256=base.sha256, family=base.family.name,
        recipe=recipe_document(recipe), seed=order.seed, photos=photos, steps=len(trained.losses),
        seconds=round(trained.seconds, 3), created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"likeness": __version__, "torch": torch.__version__},
        rank=recipe.rank, alpha=float(recipe.alpha),
    )  # fmt: skip
