"""Fine-tunes: prepared photographs and an order in, an adapter out, with a checkpoint to go on from.

`Together` is the only trainer: people join and leave it between steps. `fine_tune` is the case of one, for the command
line; a worker of the training service keeps one `Together` and lets everybody in. Nothing here publishes or holds a
lock. The numbers are `training`'s.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import torch

from . import __version__
from .diffusion.base import BaseModel
from .diffusion.devices import memory_for
from .diffusion.lora import target_modules
from .errors import Interrupted, StorageUnavailable, TrainingError, reason_of
from .progress import Advance, ShouldStop, Stopwatch, Watch
from .storage.objects import FileObjects, Objects
from .training.checkpoint import fingerprint, pack_checkpoint, unpack_checkpoint
from .training.data import TrainingSet, build_training_set
from .training.loop import Progress, TrainingLoop
from .training.prior import class_latents
from .training.recipe import FineTuneRecipe, recipe_document
from .types import Adapter, AdapterCard, LoraPair, Network, PreparedPhoto, Subject

CHECKPOINT_SUFFIX = ".safetensors"
_FULL = (
    "close other programs that use the device, take --recipe origin-2023, which has fewer rows at once, or a smaller "
    "base; the same command goes on from the last checkpoint"
)
Unsaved = OSError | StorageUnavailable


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
    """Where one job's states are kept, and the mark that makes them this job's.

    A writer has a key of its own and the one whose key sorts last is believed, so a writer that was replaced (a worker
    that was taken for dead) can spoil nothing.
    """

    objects: Objects
    mark: str
    prefix: str = ""
    writer: str = "state"

    def save(self, loop: TrainingLoop, name: str, losses: Sequence[float], *, seconds: float) -> None:
        kept = {"losses": torch.tensor(losses, dtype=torch.float64), "seconds": torch.tensor(seconds)}
        mine = f"{self.prefix}{self.writer}{CHECKPOINT_SUFFIX}"
        self.objects.put(mine, pack_checkpoint(loop.state(name) | kept, mark=self.mark))
        for key in self._keys():
            if key < mine:
                self.objects.delete(key)

    def restore(self, loop: TrainingLoop, name: str) -> tuple[list[float], float]:
        """Losses and seconds so far; an empty list and 0 where there is nothing to go on from.

        Raises:
            CheckpointMismatch: it is another job's.
        """
        keys = self._keys()
        if not keys:
            return [], 0.0
        state = unpack_checkpoint(self.objects.get(keys[-1]), mark=self.mark)
        loop.restore(name, state)
        return state["losses"].tolist(), float(state["seconds"])

    def clear(self) -> None:
        for key in self._keys():
            self.objects.delete(key)

    def _keys(self) -> list[str]:
        found = (facts.key for facts in self.objects.list(self.prefix))
        return sorted(key for key in found if key.endswith(CHECKPOINT_SUFFIX))


@dataclass(eq=False)
class Seat:
    """One person in `Together`."""

    order: FineTuneOrder
    rows: int  # in each step
    checkpoints: Checkpoints
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Stepped:
    """What one step did for one person. With `trained` or `error`, they have left."""

    name: str
    advance: Advance
    saved: bool = False  # a checkpoint was written
    unsaved: Unsaved | None = None  # why one that was due was not
    trained: Trained | None = None
    error: TrainingError | None = None


class Together:
    """People who train in one loop, each with an order, data and checkpoints of their own.

    Args:
        capacity: most people at once.
        rank: the largest that an order may ask for.
    """

    def __init__(self, base: BaseModel, *, capacity: int, rank: int) -> None:
        self.loop = TrainingLoop(base, capacity=capacity, rank=rank)
        self._seats: dict[str, Seat] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._seats)

    def join(self, name: str, order: FineTuneOrder, data: TrainingSet, *, checkpoints: Checkpoints) -> int:
        """Let somebody in, at their checkpoint where there is one; returns the steps they have taken.

        Raises:
            TrainingError: no slot is free.
            CheckpointMismatch: the checkpoint is another job's; nobody has come in.
        """
        recipe = order.recipe
        self.loop.join(name, recipe, data, seed=order.seed)
        seat = Seat(order, recipe.instance_rows + min(recipe.prior_rows, len(data.prior_latents)), checkpoints)
        try:
            seat.losses, seat.seconds = checkpoints.restore(self.loop, name)
        except Exception:
            self.loop.leave(name)
            raise
        self._seats[name] = seat
        return len(seat.losses)

    def step(self) -> list[Stepped]:
        """One step for everybody; whoever is done or has failed leaves.

        Where somebody came in with a checkpoint of their last step, they leave, and nobody takes a step.
        """
        over = [name for name, seat in self._seats.items() if len(seat.losses) >= seat.order.recipe.steps]
        if over:
            return [self._trained(name, self._taken(name)) for name in over]
        started_s = time.perf_counter()
        done = self.loop.step()
        step_s = time.perf_counter() - started_s
        return [self._after(progress, step_s) for progress in done]

    def try_to_save(self, name: str) -> Unsaved | None:
        """Write a checkpoint now; why it was not written, if it was not. That is no reason to stop anybody."""
        seat = self._seats[name]
        try:
            seat.checkpoints.save(self.loop, name, seat.losses, seconds=seat.seconds)
        except (OSError, StorageUnavailable) as error:
            return error
        return None

    def leave(self, name: str) -> None:
        """Let somebody go as they are."""
        del self._seats[name]
        self.loop.leave(name)

    def close(self) -> None:
        self.loop.close()

    def _after(self, progress: Progress, step_s: float) -> Stepped:
        name, seat = progress.name, self._seats[progress.name]
        recipe = seat.order.recipe
        seat.seconds += step_s
        if progress.error is not None:
            del self._seats[name]
            seat.checkpoints.clear()  # going on from before would end here again
            return Stepped(name, Advance("train", progress.step, recipe.steps), error=progress.error)
        seat.losses.append(progress.loss)
        advance = Advance("train", len(seat.losses), recipe.steps, progress.loss, seat.rows / step_s)
        if not progress.finished and len(seat.losses) % recipe.checkpoint_every:
            return Stepped(name, advance)
        unsaved = self.try_to_save(name)  # after the last step too: publishing may fail
        if progress.finished:
            return self._trained(name, advance, unsaved=unsaved)
        return Stepped(name, advance, saved=unsaved is None, unsaved=unsaved)

    def _taken(self, name: str) -> Advance:
        seat = self._seats[name]
        return Advance("train", len(seat.losses), seat.order.recipe.steps)

    def _trained(self, name: str, advance: Advance, *, unsaved: Unsaved | None = None) -> Stepped:
        seat = self._seats.pop(name)
        trained = Trained(self.loop.leave(name), tuple(seat.losses), seat.seconds)
        return Stepped(name, advance, unsaved=unsaved, trained=trained)


def fine_tune(
    base: BaseModel, order: FineTuneOrder, prepared: Sequence[PreparedPhoto], *,
    class_images: Path, checkpoint_folder: Path, watch: Watch, should_stop: ShouldStop, clock: Stopwatch,
) -> tuple[Adapter, tuple[float, ...]]:  # fmt: skip
    """Train an adapter alone, or finish training it. Returns it with the loss of every step.

    Args:
        class_images: folder of the shared class images.
        checkpoint_folder: of this job.

    Raises:
        Interrupted: `should_stop` said so; a checkpoint was written if the loop had begun.
        CheckpointMismatch: the checkpoint is of another recipe, base, seed or set of photos.
        TrainingError: the training diverged.
        OutOfMemory: the device or this machine cannot hold it.
    """
    checkpoints = Checkpoints(FileObjects(checkpoint_folder), mark_of(base, order, prepared))
    if order.restart:
        checkpoints.clear()
    rows = order.recipe.instance_rows + order.recipe.prior_rows
    with memory_for(f"a training of {rows} rows at once on the {base.device.type}", hint=_FULL):
        data = training_set(
            base, order, prepared, class_images=class_images, watch=watch, should_stop=should_stop, clock=clock
        )
        with clock.stage("train"):
            trained = run_alone(base, order, data, checkpoints=checkpoints, watch=watch, should_stop=should_stop)
    return adapter_of(base, order, prepared, trained), trained.losses


def training_set(
    base: BaseModel, order: FineTuneOrder, prepared: Sequence[PreparedPhoto], *,
    class_images: Path, watch: Watch, should_stop: ShouldStop, clock: Stopwatch,
) -> TrainingSet:  # fmt: skip
    """Everything that the loop reads of one person. Raises Interrupted."""
    recipe, subject = order.recipe, order.subject
    with clock.stage("class images"):
        count = recipe.class_images if recipe.prior_rows else 0

        def made(done: int) -> None:
            watch(Advance("class images", done, count))
            stop_if(should_stop)

        def unsaved(error: Unsaved) -> None:
            said = f"class images were not kept for later trainings ({reason_of(error)})"
            watch(Advance("class images", 0, count, warning=said))

        watch(Advance("class images", 0, count))
        prior = class_latents(base, subject.class_noun, count, folder=class_images, progress=made, unsaved=unsaved)
    watch(Advance("encode", 0, 1))
    with clock.stage("encode"):
        small = [reduced(photo, 2 * base.family.resolution_px) for photo in prepared]
        return build_training_set(base, subject, small, recipe=recipe, prior_latents=prior, seed=order.seed)


def run_alone(
    base: BaseModel, order: FineTuneOrder, data: TrainingSet, *,
    checkpoints: Checkpoints, watch: Watch, should_stop: ShouldStop,
) -> Trained:  # fmt: skip
    """The steps of one job, from its checkpoint or from the first. Raises as `fine_tune`."""
    name, together = order.subject.name, Together(base, capacity=1, rank=order.recipe.rank)
    try:
        taken = together.join(name, order, data, checkpoints=checkpoints)
        while True:
            if should_stop():
                unsaved = together.try_to_save(name)
                kept = "the checkpoint is kept" if unsaved is None else f"it was not saved ({reason_of(unsaved)})"
                raise Interrupted(
                    f"stopped after step {taken} of {order.recipe.steps}; {kept}",
                    hint="run the same command again to go on from the newest checkpoint",
                )
            (stepped,) = together.step()
            if stepped.error is not None:
                raise stepped.error
            watch(stepped.advance if stepped.unsaved is None else _warned(stepped.advance, stepped.unsaved))
            taken = stepped.advance.done
            if stepped.trained is not None:
                return stepped.trained
    finally:
        together.close()


def adapter_bytes(base: BaseModel, recipe: FineTuneRecipe) -> int:
    """Of the adapter that a recipe makes, when it is published: float16 factors."""
    total = 0
    for network, module in base.networks.items():
        trained = target_modules(module, base.family.trained[network])
        for name in trained.keys() & target_modules(module, recipe.targets_of(network)).keys():
            weight = module.get_parameter(f"{name}.weight")  # (d_out, d_in) or (C_out, C_in, k, k)
            total += weight[0].numel() + weight.shape[0]
    return 2 * recipe.rank * total


def adapter_of(base: BaseModel, order: FineTuneOrder, prepared: Sequence[PreparedPhoto], trained: Trained) -> Adapter:
    """What was learnt, with its card."""
    photos = len({photo.source_sha256 for photo in prepared})
    return Adapter(_card(base, order, trained, photos=photos), trained.weights)


def _warned(advance: Advance, error: Unsaved) -> Advance:
    said = f"the state of step {advance.done} was not saved ({reason_of(error)}); the training goes on"
    return replace(advance, warning=said)


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


def mark_of(base: BaseModel, order: FineTuneOrder, prepared: Sequence[PreparedPhoto]) -> str:
    """What binds a checkpoint to its job."""
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
