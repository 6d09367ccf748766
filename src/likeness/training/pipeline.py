"""A fine-tune from photographs to adapter, as plain functions of its stages.

| stage | function | result |
|---|---|---|
| check | `photos.check` | verdicts; `raise_if_refused` is the rule for refusing a set |
| prepare | `photos.prepare_usable` | crops with matte and face mask |
| encode | `training_set` | latents, captions, class images |
| train | `TrainingLoop` | losses and factors; checkpoints on the way |
| score | `scoring.score_adapter` | the score card |
| publish | `adapter_of`, `AdapterLibrary.publish` | the adapter with its card |

`fine_tune` is encode and train for one person in the foreground, for the command line and the SageMaker container. The
training service's worker runs the same stages for many people, and keeps the result of each in the job's row.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import torch

from .. import __version__
from ..diffusion.base import BaseModel
from ..diffusion.devices import memory_for
from ..diffusion.lora import target_modules
from ..errors import Interrupted, reason_of
from ..storage.objects import FileObjects, Objects, refuse_full
from ..storage.reserve import Reserve
from ..types import Adapter, AdapterCard, Advance, LoraPair, Network, PreparedPhoto, ShouldStop, Stopwatch, Watch
from .checkpoint import Checkpoints, Unsaved, fingerprint
from .data import TrainingSet, build_training_set
from .loop import FineTune, StepMemory, TrainingLoop
from .prior import class_latents
from .recipe import FineTuneOrder, FineTuneRecipe, recipe_document

_CHECKPOINT_REST = 1 << 16  # bytes of a checkpoint's header and of the generator's state
_FULL = "close other programs that use the device, or a smaller base; the same command continues from its checkpoint"


def fine_tune(
    base: BaseModel, order: FineTuneOrder, prepared: Sequence[PreparedPhoto], *,
    class_images: Objects, checkpoint_folder: Path, watch: Watch, should_stop: ShouldStop, clock: Stopwatch,
    memory: StepMemory | None = None,
) -> tuple[Adapter, tuple[float, ...]]:  # fmt: skip
    """Train an adapter alone, or finish training it. Returns it with the loss of every step.

    Args:
        class_images: where the shared class images are, see `prior`.
        checkpoint_folder: of this job. Space for a checkpoint is reserved there until the end, so that the state of
            the last step is kept if the disk is full by then.
        memory: see `TrainingLoop`.

    Raises:
        StorageError: no space for a checkpoint.
        Interrupted: `should_stop` said so; a checkpoint was written if the loop had begun.
        Mismatch: the checkpoint is of another recipe, base, seed or set of photos.
        TrainingError: the training diverged.
        OutOfMemory: the device or this machine cannot hold it.
    """
    objects = FileObjects(checkpoint_folder)
    reserve = Reserve(checkpoint_folder, checkpoint_bytes(base, order.recipe), enough=1)
    checkpoints = Checkpoints(objects, mark_of(base, order, prepared), reserve=reserve)
    if order.restart:
        checkpoints.clear()
    reserve.give()  # of a run that was killed
    refuse_full(objects, reserve.bytes)
    reserve.keep()
    rows = order.recipe.instance_rows + order.recipe.prior_rows
    with ExitStack() as at_end, memory_for(f"a training with {rows} rows a step on the {base.device.type}", hint=_FULL):
        at_end.callback(reserve.give)
        data = training_set(
            base, order, prepared, class_images=class_images, watch=watch, should_stop=should_stop, clock=clock
        )
        with clock.stage("train"):
            job, weights = _train(
                base, order, data, checkpoints=checkpoints, watch=watch, should_stop=should_stop, memory=memory
            )
    return adapter_of(base, order, prepared, job, weights), tuple(job.losses)


def training_set(
    base: BaseModel, order: FineTuneOrder, prepared: Sequence[PreparedPhoto], *,
    class_images: Objects, watch: Watch, should_stop: ShouldStop, clock: Stopwatch,
) -> TrainingSet:  # fmt: skip
    """Everything that the loop reads of one person: the photographs as latents, captions, class images.

    Raises Interrupted.
    """
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
        prior = class_latents(base, subject.prior_noun, count, objects=class_images, progress=made, unsaved=unsaved)
    watch(Advance("encode", 0, 1))
    with clock.stage("encode"):
        side_px = recipe.resolution_px or base.family.resolution_px
        small = [reduced(photo, 2 * side_px) for photo in prepared]
        return build_training_set(base, subject, small, recipe=recipe, prior_latents=prior, seed=order.seed)


def _train(
    base: BaseModel, order: FineTuneOrder, data: TrainingSet, *,
    checkpoints: Checkpoints, watch: Watch, should_stop: ShouldStop, memory: StepMemory | None,
) -> tuple[FineTune, Mapping[Network, Mapping[str, LoraPair]]]:  # fmt: skip
    """The steps of one fine-tune, from its checkpoint or from the first. Raises as `fine_tune`."""
    name, loop = order.subject.name, TrainingLoop(base, capacity=1, rank=order.recipe.rank, memory=memory)
    try:
        job = loop.join(name, order.recipe, data, seed=order.seed, checkpoints=checkpoints)
        while True:
            if should_stop():
                unsaved = loop.try_to_save(name)
                kept = "the checkpoint is kept" if unsaved is None else f"it was not saved ({reason_of(unsaved)})"
                raise Interrupted(
                    f"stopped after step {job.step} of {order.recipe.steps}; {kept}",
                    hint="run the same command again to continue from the newest checkpoint",
                )
            (progress,) = loop.step()
            if progress.error is not None:
                raise progress.error
            watch(progress.advance if progress.unsaved is None else _warned(progress.advance, progress.unsaved))
            if progress.finished:
                return job, loop.leave(name)
    finally:
        loop.close()


def adapter_bytes(base: BaseModel, recipe: FineTuneRecipe) -> int:
    """Of the adapter that a recipe makes, when it is published: float16 factors."""
    total = 0
    for network, module in base.networks.items():
        trained = target_modules(module, base.family.trained[network])
        for name in (one for one in trained if recipe.trains(network, one)):
            weight = module.get_parameter(f"{name}.weight")  # (d_out, d_in) or (C_out, C_in, k, k)
            total += weight[0].numel() + weight.shape[0]
    return 2 * recipe.rank * total


def checkpoint_bytes(base: BaseModel, recipe: FineTuneRecipe) -> int:
    """Of the largest checkpoint: factors and Adam's two moments in float32, a loss of each step, the generator."""
    return 3 * 2 * adapter_bytes(base, recipe) + 8 * recipe.steps + _CHECKPOINT_REST


def adapter_of(
    base: BaseModel, order: FineTuneOrder, prepared: Sequence[PreparedPhoto], job: FineTune,
    weights: Mapping[Network, Mapping[str, LoraPair]],
) -> Adapter:  # fmt: skip
    """The adapter of a finished fine-tune, with its card."""
    recipe, subject = order.recipe, order.subject
    card = AdapterCard(
        name=subject.name, class_noun=subject.class_noun, identifier=subject.identifier,
        base_id=base.id, base_sha256=base.sha256, family=base.family.name,
        recipe=recipe_document(recipe), seed=order.seed, photos=len({photo.source_sha256 for photo in prepared}),
        steps=job.step, seconds=round(job.seconds, 3), created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"likeness": __version__, "torch": torch.__version__},
        rank=recipe.rank, alpha=float(recipe.alpha),
    )  # fmt: skip
    return Adapter(card, weights)


def _warned(advance: Advance, error: Unsaved) -> Advance:
    said = f"the state of step {advance.done} was not saved ({reason_of(error)}); the training continues"
    return replace(advance, warning=said)


def reduced(photo: PreparedPhoto, side_px: int) -> PreparedPhoto:
    """The photo at most `side_px` high and wide: backgrounds are varied many times, and a small base sees no more."""
    longest = max(photo.image.shape[:2])
    if longest <= side_px:
        return photo
    size = [round(side * side_px / longest) for side in photo.image.shape[1::-1]]  # width, height
    image, matte, face = (
        np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        for plane in (photo.image, photo.matte, photo.face)
    )
    return replace(photo, image=image, matte=matte, face=face)


def stop_if(should_stop: ShouldStop) -> None:
    """Raises Interrupted, for stages without a checkpoint."""
    if should_stop():
        raise Interrupted("stopped before the first step", hint="run the same command again")


def mark_of(base: BaseModel, order: FineTuneOrder, prepared: Sequence[PreparedPhoto]) -> str:
    """The fingerprint that binds a checkpoint to its fine-tune. The words of the captions count like a photograph."""
    sources = [*{photo.source_sha256 for photo in prepared}, order.subject.words]
    return fingerprint(order.recipe, base_sha256=base.sha256, seed=order.seed, photos=sources)
