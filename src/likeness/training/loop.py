"""The training loop: the fine-tunes of many people in one forward and one backward pass.

People join and leave between steps. Each has its own rows, random generator, step count, learning rate, clipping,
optimiser row and checkpoints. The shared networks normalise within a row, so a person's gradient does not depend on the
others. A fine-tune alone is a loop of one.

The loop is independent of photographs, adapter files and queues.
"""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..diffusion.base import BaseModel
from ..diffusion.batch_invariance import paired
from ..diffusion.conditioning import Conditioning
from ..diffusion.devices import is_out_of_memory, release_memory
from ..diffusion.lora import LoraBank
from ..diffusion.schedule import Schedule
from ..errors import Mismatch, StorageUnavailable, TrainingError, UsageError
from ..types import Advance, LoraPair, Network, encodes_text
from .checkpoint import Checkpoints, Unsaved
from .data import TrainingSet
from .loss import dreambooth_weights, min_snr_weight, row_losses
from .optimizer import RowAdamW, clip_rows
from .recipe import TIMESTEP_SHIFT, FineTuneRecipe
from .timesteps import middle_places, shift_for, uniform_places

log = logging.getLogger("likeness.training")


@dataclass(frozen=True)
class Progress:
    """The result of one step for one person."""

    name: str
    step: int  # steps taken so far
    steps: int  # of the whole recipe
    loss: float
    gradient_norm: float
    error: TrainingError | None = None  # set if this person's training has ended; the others continue
    images_per_s: float | None = None  # this person's rows per second
    saved: bool = False  # a checkpoint was written
    unsaved: Unsaved | None = None  # why a checkpoint that was due was not written

    @property
    def finished(self) -> bool:
        return self.error is not None or self.step >= self.steps

    @property
    def advance(self) -> Advance:
        loss = self.loss if math.isfinite(self.loss) else None
        return Advance("train", self.step, self.steps, loss, self.images_per_s)


@dataclass(frozen=True, eq=False)
class Batch:
    """One person's rows of one shape, in one step."""

    x0: Tensor  # (b, C, h, w) clean latents
    noise: Tensor  # (b, C, h, w)
    t: Tensor  # (b,) timesteps
    ids: Tensor  # (k, ...), token ids of captions to encode: all of the person's, or each row's if fewer
    caption: Tensor  # (b,) index in `ids`
    said: Tensor  # (b,) index among all captions of the person
    emphasis: Tensor  # (b, 1, h, w)
    is_prior: Tensor  # (b,) bool, on the host
    views: Tensor  # (b, 6) of the images, see `BaseModel.reads_views`
    bare: Tensor  # (b, C, h, w), the bare base's prediction where it is the target
    weight: Tensor  # (b,), the person's loss is the sum of the rows' losses with these weights

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows for the denoising network and for the text encoders, then the shape of a latent."""
        return len(self.t), len(self.ids), *self.x0.shape[1:]

    def split(self, rows: int) -> list["Batch"]:
        """Consecutive parts of at most `rows` rows, whose losses and gradients add up to those of the whole."""
        out = []
        for start in range(0, len(self.t), rows):
            part = slice(start, start + rows)
            ids, caption = _needed(self.ids, self.caption[part])
            out.append(Batch(
                self.x0[part], self.noise[part], self.t[part], ids, caption, self.said[part], self.emphasis[part],
                self.is_prior[part], self.views[part], self.bare[part], self.weight[part],
            ))  # fmt: skip
        return out


def _needed(ids: Tensor, caption: Tensor) -> tuple[Tensor, Tensor]:
    """The captions to encode and each row's place in them: one per row if that is fewer."""
    if len(ids) <= len(caption):
        return ids, caption
    return ids[caption], torch.arange(len(caption), device=ids.device)


PRIOR_STEPS = 8  # steps whose rows of class images are drawn together


@dataclass(frozen=True, eq=False)
class PriorRows:
    """Noised class images of consecutive steps, which the bare base predicts in one pass: they need no adapter."""

    block: int  # of the step before the first, divided by PRIOR_STEPS
    x0: Tensor  # (PRIOR_STEPS * rows, C, h, w) clean latents
    noise: Tensor  # likewise
    t: Tensor  # (PRIOR_STEPS * rows,) timesteps
    said: Tensor  # (PRIOR_STEPS * rows,) index among all captions of the person
    bare: Tensor  # as x0: the bare base's predictions, or zeros if they are not the target

    def of_step(self, step: int) -> "PriorRows":
        """The rows of a step of this block."""
        rows = len(self.t) // PRIOR_STEPS
        return self._of(slice(step % PRIOR_STEPS * rows, (step % PRIOR_STEPS + 1) * rows))

    def of_shape(self, shape: tuple[int, ...]) -> "PriorRows":
        """All rows if their latents have this shape (C, h, w), else none."""
        if tuple(self.x0.shape[1:]) == shape:
            return self
        none = self.x0.new_zeros(0, *shape)
        return replace(self._of(slice(0)), x0=none, noise=none, bare=none)

    def _of(self, rows: slice) -> "PriorRows":
        return PriorRows(self.block, self.x0[rows], self.noise[rows], self.t[rows], self.said[rows], self.bare[rows])


@dataclass(eq=False)
class FineTune:
    """One person in the loop."""

    name: str
    recipe: FineTuneRecipe
    data: TrainingSet
    generator: torch.Generator  # on the CPU, so that the numbers do not depend on the device
    slot: int
    checkpoints: Checkpoints | None = None
    prompts: Conditioning | None = None  # the captions, encoded by the base without adapters
    timestep_shift: float = TIMESTEP_SHIFT  # the recipe's, or that of the latents' size
    cell_px: int = 8  # pixels of a latent's cell, along one side
    priors: PriorRows | None = None  # of the latest block of steps
    losses: list[float] = field(default_factory=list)  # of every step, those before a resume included
    seconds: float = 0.0  # in steps, likewise

    @property
    def step(self) -> int:
        """Steps taken."""
        return len(self.losses)

    @property
    def rows(self) -> int:
        """Rows per step."""
        return self.recipe.instance_rows + self.prior_rows

    @property
    def prior_rows(self) -> int:
        """Rows of class images per step."""
        return min(self.recipe.prior_rows, len(self.data.prior_latents))


Group = list[tuple[FineTune, Batch]]  # people of one forward pass, or of one step


def _timesteps(job: FineTune, count: int, schedule: Schedule, generator: torch.Generator) -> Tensor:
    """(count,) timesteps by the job's recipe, on the generator's device."""
    recipe = job.recipe
    if not recipe.middle_timesteps:
        return schedule.timestep_at(uniform_places(count, generator))
    share, spread = recipe.uniform_share, recipe.timestep_spread
    places = middle_places(count, generator, uniform_share=share, spread=spread, shift=job.timestep_shift)
    return schedule.timestep_at(places)


def draw_priors(job: FineTune, schedule: Schedule) -> PriorRows:
    """The class images of the job's next step and of the others of its block, without predictions.

    Their random numbers depend on the job's seed and the block alone, so a resumed training draws the same.
    """
    data, block = job.data, job.step // PRIOR_STEPS
    g = torch.Generator().manual_seed((job.generator.initial_seed() * 1_000_003 + block + 1) % 2**63)
    rows = PRIOR_STEPS * job.prior_rows
    prior = torch.randint(max(1, len(data.prior_latents)), (rows,), generator=g)
    x0 = data.prior_latents[prior]
    noise = torch.randn(x0.shape, generator=g).to(x0)
    t = _timesteps(job, rows, schedule, g).to(x0.device)
    return PriorRows(block, x0, noise, t, data.captions.prior[prior], torch.zeros_like(x0))


def draw_batches(job: FineTune, schedule: Schedule, priors: PriorRows | None = None) -> list[Batch]:
    """Instance rows, from the job's own generator, then the step's rows of class images: a batch for each shape.

    Args:
        priors: of the step's block; None: drawn here, without predictions.
    """
    recipe, data, g = job.recipe, job.data, job.generator
    priors = (priors or draw_priors(job, schedule)).of_step(job.step)
    photo = torch.randint(len(data.latents), (recipe.instance_rows,), generator=g)
    caption = torch.randint(data.ids.shape[1], (recipe.instance_rows,), generator=g)
    instances = [data.latents[place] for place in photo.tolist()]
    emphasis = [data.emphasis[place] for place in photo.tolist()]
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, latent in enumerate(instances):
        rows.setdefault(tuple(latent.shape), []).append(row)
    noise = {shape: torch.randn(len(rows[shape]), *shape, generator=g) for shape in sorted(rows)}
    t = _timesteps(job, recipe.instance_rows, schedule, g).to(priors.t)
    said = data.captions.instance[photo, caption]
    weights = torch.tensor(dreambooth_weights(recipe.instance_rows, len(priors.t), recipe.prior_weight)).to(priors.x0)
    views = None if data.views is None else data.views[photo]
    classes = tuple(priors.x0.shape[1:])
    out = []
    for shape in sorted({*rows, classes} if len(priors.t) else rows):
        mine, others = rows.get(shape, []), priors.of_shape(shape)
        x0 = torch.stack([*(instances[row] for row in mine), *others.x0])
        words = torch.cat([said[mine], others.said])
        ids, place = _needed(data.captions.ids, words)
        whole = whole_views(shape, job.cell_px).expand(len(x0), -1)
        out.append(Batch(
            x0, torch.cat([noise[shape].to(x0), others.noise]) if mine else others.noise,
            torch.cat([t[mine], others.t]), ids, place, words,
            torch.stack([*(emphasis[row] for row in mine), *torch.ones_like(others.x0[:, :1])]),
            torch.arange(len(x0)) >= len(mine),
            whole if views is None else torch.cat([views[mine], whole[len(mine) :]]),
            torch.cat([torch.zeros_like(x0[: len(mine)]), others.bare]),
            torch.cat([weights[mine], weights[recipe.instance_rows :][: len(others.t)]]),
        ))  # fmt: skip
    return out


def whole_views(shape: Sequence[int], cell_px: int) -> Tensor:
    """(1, 6), the view of an image that is its own original, for latents (C, h, w)."""
    height, width = (float(cells * cell_px) for cells in shape[1:])
    return torch.tensor([[height, width, 0.0, 0.0, height, width]])


def _bare_prompts(group: Group) -> Conditioning:
    """The conditioning of all rows by the base without adapters."""
    return Conditioning.cat([job.prompts[batch.said] for job, batch in group if job.prompts is not None])


def learning_rate_factor(step: int, recipe: FineTuneRecipe) -> float:
    """Linear warm-up, then a cosine to zero if the recipe decays; `step` counts from 0."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup_steps))
    return warm * (0.5 * (1 + math.cos(math.pi * step / recipe.steps)) if recipe.decay else 1.0)


def trained_columns(bank: LoraBank, recipe: FineTuneRecipe) -> Tensor:
    """The columns of a bank's row that a recipe trains: the first `rank` components of its layers."""
    parts, rank = [], recipe.rank
    for span in bank.spans:
        if not recipe.trains(span.network, span.module):
            continue
        parts.append(torch.arange(span.a.start, span.a.stop).view(span.a_shape)[:rank].flatten())
        parts.append(torch.arange(span.b.start, span.b.stop).view(span.b_shape)[:, :rank].flatten())
    return torch.cat(parts)


def _one_scale(
    weights: dict[Network, dict[str, LoraPair]], recipe: FineTuneRecipe
) -> dict[Network, dict[str, LoraPair]]:
    """The same adapter with scale alpha / rank in all networks, as in its card; the difference is folded into B."""
    ratio = np.float32(recipe.scale_of("text_encoder") / recipe.scale_of("unet"))
    if ratio == 1:
        return weights
    return {
        network: {name: LoraPair(pair.A, pair.B * ratio) for name, pair in pairs.items()}
        if encodes_text(network)
        else pairs
        for network, pairs in weights.items()
    }


LEAST_ROWS = 2  # in one pass without recomputed activations


@dataclass(frozen=True)
class StepMemory:
    """How a step saves memory at the cost of time; the gradient equals that of the default, to rounding."""

    rows: int | None = None  # largest number of rows in one pass; None: the rows of all people
    recompute: bool = False  # whether the blocks' activations are computed again; the gradient is bit-identical

    def smaller(self, rows: int) -> "StepMemory | None":
        """The next way that needs less memory for a step of `rows` rows, the one with the fewest operations first.

        Fewer rows cost some speed. Recomputing costs a third of the operations, so it comes after two rows did not fit.
        """
        now = min(self.rows or rows, rows)
        least = 1 if self.recompute else LEAST_ROWS
        if now > least:
            return replace(self, rows=max(least, now // 2))
        return None if self.recompute else StepMemory(recompute=True)


class TrainingLoop:
    """A base, a bank with gradients, and the current fine-tunes.

    Args:
        base: frozen.
        capacity: largest number of people at once.
        rank: of the bank; the largest rank of a job.
        memory: see `StepMemory`; `plan` chooses it for a device.
    """

    def __init__(self, base: BaseModel, *, capacity: int, rank: int, memory: StepMemory | None = None) -> None:
        self.base, self.memory = base, memory or StepMemory()
        self.bank = LoraBank(base.networks, base.family.trained, slots=capacity + 1, rank=rank, dtype=torch.float32)
        self.bank.enable_training()
        self._optimizer = RowAdamW.like(self.bank.flat)
        self._jobs: dict[str, FineTune] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._jobs)

    def join(
        self, name: str, recipe: FineTuneRecipe, data: TrainingSet, *, seed: int, checkpoints: Checkpoints | None = None
    ) -> FineTune:
        """Give a person a slot with a fresh adapter: A uniform, B zero (Hu et al. 2021, section 4.1).

        Args:
            checkpoints: the newest is restored; others are written every `recipe.checkpoint_every` steps.

        Raises:
            TrainingError: no free slot, the name is training already, or the rank is above the bank's.
            UsageError: the base is distilled, or the recipe targets no layer of it.
            Mismatch: the checkpoint is of another fine-tune; the person has not joined.
        """
        free = sorted(set(range(1, self.bank.slots)) - {job.slot for job in self._jobs.values()})
        if not free or name in self._jobs or recipe.rank > self.bank.rank:
            raise TrainingError(
                f"expected a new name, one of {self.bank.slots - 1} free slots and a rank of at most {self.bank.rank}"
            )
        if self.base.family.undistilled is not None:
            raise UsageError(
                f"expected an undistilled base for training, got {self.base.family.name}",
                hint=f"train on {self.base.family.undistilled}, and import the adapter with this base as --base",
            )
        generator = torch.Generator().manual_seed(seed)
        row = self._fresh_row(recipe, generator)
        if not row.any():
            raise UsageError("expected target layers that this base has, got none", hint="use the recipe's own targets")
        with torch.no_grad():
            prompts = self.base.encode_prompt(data.captions.ids)
        job = FineTune(
            name, recipe, data, generator, free[0], checkpoints, prompts, self._shift(recipe, data),
            self.base.pixels_per_cell,
        )  # fmt: skip
        self.bank.write(job.slot, row)
        self._optimizer.clear(job.slot)
        self._jobs[name] = job
        try:
            if checkpoints is not None and (state := checkpoints.newest()) is not None:
                self.restore(name, state)
        except Exception:
            self.leave(name)
            raise
        return job

    def leave(self, name: str) -> dict[Network, dict[str, LoraPair]]:
        """Remove a person at any time; returns the current adapter, without alpha."""
        job = self._jobs.pop(name)
        weights = self.bank.pairs_of(self.bank.flat[job.slot], job.recipe.rank)
        with torch.no_grad():
            self.bank.flat[job.slot].zero_()
        return _one_scale(weights, job.recipe)

    def step(self) -> list[Progress]:
        """One optimiser step for everyone, in one forward and one backward pass.

        A person whose loss is not finite has left the loop after it. If all steps of some people had been taken when
        they joined, only they are reported, and no step is taken.
        If the device runs out of memory, the step is repeated in a way that needs less (`StepMemory.smaller`), as are
        later steps. If there is none, the step has had no effect and can be repeated with fewer people.
        """
        jobs = list(self._jobs.values())
        if over := [job for job in jobs if job.step >= job.recipe.steps]:
            return [Progress(job.name, job.step, job.recipe.steps, job.losses[-1], math.nan) for job in over]
        if not jobs:
            return []
        started_s = time.perf_counter()
        losses, gradient = self._in_memory(jobs)
        limits = torch.ones(self.bank.slots, device=gradient.device)
        for job in jobs:
            limits[job.slot] = job.recipe.clip_norm
        norms = clip_rows(gradient, limits)
        out = []
        for job in jobs:
            loss, norm = losses[job.name], norms[job.slot].item()
            if math.isfinite(loss) and math.isfinite(norm):
                self._update(job, gradient)
                job.losses.append(loss)
                out.append(Progress(job.name, job.step, job.recipe.steps, loss, norm))
            else:
                out.append(self._fail(job))
        step_s = time.perf_counter() - started_s
        return [self._after(job, progress, step_s) for job, progress in zip(jobs, out, strict=True)]

    def try_to_save(self, name: str) -> Unsaved | None:
        """Write a checkpoint now. Returns the reason if it was not written; the training continues without it."""
        job = self._jobs[name]
        try:
            if job.checkpoints is not None:
                job.checkpoints.save(self.state(name))
        except (OSError, StorageUnavailable) as error:
            return error
        return None

    def state(self, name: str) -> dict[str, Tensor]:
        """The state of one person's training that a step changes; after the last step only the factors matter.

        See `checkpoint`.
        """
        job = self._jobs[name]
        own = trained_columns(self.bank, job.recipe)  # so that a bank of any larger rank can resume it
        rows = {"factors": self.bank.flat}
        if job.step < job.recipe.steps:
            rows |= {"mean": self._optimizer.mean, "variance": self._optimizer.variance}
        state = {key: rows_of[job.slot].detach().cpu()[own] for key, rows_of in rows.items()}
        return state | {
            "step": torch.tensor(job.step), "generator": job.generator.get_state(),
            "losses": torch.tensor(job.losses, dtype=torch.float64), "seconds": torch.tensor(job.seconds),
        }  # fmt: skip

    def restore(self, name: str, state: dict[str, Tensor]) -> None:
        """Reset a joined person to `state`; the following steps are the same as after it was saved.

        Raises:
            Mismatch: `state` has another rank or base.
        """
        job = self._jobs[name]
        own = trained_columns(self.bank, job.recipe)
        if state["factors"].shape != own.shape:
            raise Mismatch(f"expected {len(own)} factors, got {state['factors'].numel()}", code="CheckpointMismatch")
        rows = {"factors": self.bank.flat, "mean": self._optimizer.mean, "variance": self._optimizer.variance}
        with torch.no_grad():
            for key in rows.keys() & state.keys():
                whole = torch.zeros(self.bank.columns)
                whole[own] = state[key]
                rows[key][job.slot].copy_(whole)
        job.losses, job.seconds = state["losses"].tolist(), float(state["seconds"])
        job.generator.set_state(state["generator"])

    def close(self) -> None:
        self.bank.close()

    def _in_memory(self, jobs: list[FineTune]) -> tuple[dict[str, float], Tensor]:
        """`losses_and_gradient` in the first way that fits; the random numbers of a failed attempt are drawn again."""
        drawn_from = [job.generator.get_state() for job in jobs]
        while True:
            try:
                return self.losses_and_gradient(jobs)
            except Exception as error:
                for job, state in zip(jobs, drawn_from, strict=True):
                    job.generator.set_state(state)
                self.bank.forget_forwards()
                smaller = self.memory.smaller(sum(job.rows for job in jobs)) if is_out_of_memory(error) else None
                if smaller is None:
                    raise
            self.memory = smaller  # outside the handler, whose traceback holds the failed attempt's tensors
            release_memory()
            log.warning("out of memory: %s", smaller)

    def losses_and_gradient(self, jobs: list[FineTune]) -> tuple[dict[str, float], Tensor]:
        """The loss of each person, and the gradient (S, P) of the finite ones.

        People with equal numbers of rows of one shape share a forward pass; others use separate ones, because with
        unequal numbers a person's matrix products would be split, and rounded, differently than alone. So do people
        whose recipes train down blocks and those whose recipes do not: their prompts' gradients differ.
        """
        alike: dict[tuple[int, ...], Group] = {}
        for job in jobs:
            for batch in self.draw(job):
                alike.setdefault((job.recipe.down_blocks, *batch.shape), []).append((job, batch))
        losses = {job.name: 0.0 for job in jobs}
        gradient = torch.zeros_like(self.bank.flat)
        for group in alike.values():
            for part in self.parts(group):
                found = self.losses(part)
                numbers = torch.stack(found).tolist()
                for (job, _), number in zip(part, numbers, strict=True):
                    losses[job.name] += number
                # a sum of per-person means, so that each person's gradient is that of a separate training
                if good := [loss for loss, number in zip(found, numbers, strict=True) if math.isfinite(number)]:
                    self.bank.add_gradient(torch.stack(good).sum(), gradient)
        return losses, gradient

    def draw(self, job: FineTune) -> list[Batch]:
        """The rows of the next step, by their shapes.

        Every PRIOR_STEPS steps the bare base predicts the class images of as many.
        """
        schedule = self.base.schedule
        if job.priors is None or job.priors.block != job.step // PRIOR_STEPS:
            priors = draw_priors(job, schedule)
            if job.recipe.prior_from_base and job.prior_rows and job.prompts is not None:
                prompts, x_t = job.prompts[priors.said], schedule.add_noise(priors.x0, priors.noise, priors.t)
                most = self.memory.rows or (job.rows if self.memory.recompute else len(x_t))  # without gradients
                parts = zip(x_t.split(most), priors.t.split(most), prompts.split(most), strict=True)
                priors = replace(priors, bare=torch.cat([self._bare(*part) for part in parts]).to(priors.x0))
            job.priors = priors
        return draw_batches(job, schedule, job.priors)

    def parts(self, group: Group) -> Iterator[Group]:
        """People with equal numbers of rows in forward passes of at most `memory.rows` rows.

        Whole people if one fits, else parts of one, so that the division of a person's rows does not depend on others.
        """
        rows = group[0][1].shape[0]
        most = self.memory.rows or len(group) * rows
        if most >= rows:
            people = most // rows
            yield from (group[start : start + people] for start in range(0, len(group), people))
        else:
            yield from ([(job, part)] for job, batch in group for part in batch.split(most))

    def losses(self, group: Group) -> list[Tensor]:
        """The losses of people with equal numbers of rows and the same trained blocks, in one forward pass."""
        schedule = self.base.schedule
        jobs, batches = zip(*group, strict=True)
        rows = len(batches[0].t)
        x0, noise = torch.cat([b.x0 for b in batches]), torch.cat([b.noise for b in batches])
        t = torch.cat([b.t for b in batches])
        slots = torch.tensor([job.slot for job in jobs])
        scales = torch.tensor([job.recipe.scale_of("unet") for job in jobs])
        x_t = schedule.add_noise(x0, noise, t)
        self.bank.forget_forwards()
        states = self._prompts(group, slots)
        if self.base.reads_views:
            states = replace(states, views=torch.cat([b.views for b in batches]))
        recomputing = self.base.recomputing(self.bank.recomputed) if self.memory.recompute else nullcontext()
        frozen = nullcontext() if jobs[0].recipe.down_blocks else self.base.frozen_down_blocks()
        with self.bank.route(slots.repeat_interleave(rows), scales.repeat_interleave(rows)), recomputing, frozen:
            output = self.base.denoise(x_t, t, states)
        target, snr = schedule.target(x0, noise, t), schedule.snr(t)
        held = torch.cat([b.is_prior & job.recipe.prior_from_base for job, b in group])
        bare = torch.cat([b.bare for b in batches])
        target = torch.where(held.to(bare.device)[:, None, None, None], bare.to(target.dtype), target)
        losses = []
        for k, (job, batch) in enumerate(group):
            mine = slice(k * rows, (k + 1) * rows)
            weight = min_snr_weight(snr[mine], schedule.prediction_type, job.recipe.min_snr_gamma)
            each = row_losses(output[mine], target[mine], weight=weight, emphasis=batch.emphasis)
            losses.append((each * batch.weight).sum())
        return losses

    def _prompts(self, group: Group, slots: Tensor) -> Conditioning:
        """The conditioning of all rows, with each person's text encoders."""
        if not self.base.adapts_text:
            return _bare_prompts(group)
        texts = len(group[0][1].ids)
        scales = torch.tensor([job.recipe.scale_of("text_encoder") for job, _ in group])
        with self.bank.route(slots.repeat_interleave(texts), scales.repeat_interleave(texts)):
            encoded = self.base.encode_prompt(torch.cat([batch.ids for _, batch in group]))
        return encoded[torch.cat([batch.caption + k * texts for k, (_, batch) in enumerate(group)])]

    @torch.no_grad()
    def _bare(self, x_t: Tensor, t: Tensor, prompts: Conditioning) -> Tensor:
        """The prediction of the base without adapters for these rows, (B, C, h, w)."""
        rows = [0] * len(paired(t)) if len(t) == 1 else slice(None)
        return self.base.denoise(paired(x_t), paired(t), prompts[rows])[: len(t)]

    def _shift(self, recipe: FineTuneRecipe, data: TrainingSet) -> float:
        """The recipe's shift of the timesteps, or that for images of the size of these."""
        if recipe.timestep_shift is not None:
            return recipe.timestep_shift
        return shift_for(math.prod(data.latents[0].shape[1:]) * (self.base.pixels_per_cell / 16) ** 2)

    def _update(self, job: FineTune, gradient: Tensor) -> None:
        recipe = job.recipe
        factor = learning_rate_factor(job.step, recipe) * self.base.family.learning_rate_scale
        rates = [
            (self.bank.columns_of(network), recipe.learning_rate_of(network) * factor) for network in self.base.networks
        ]
        with torch.no_grad():
            self._optimizer.step(
                self.bank.flat, gradient, job.slot,
                count=job.step + 1, rates=rates, weight_decay=recipe.weight_decay,
            )  # fmt: skip

    def _after(self, job: FineTune, progress: Progress, step_s: float) -> Progress:
        """Write the checkpoint that is due: after the last step too, because publishing may fail."""
        job.seconds += step_s
        progress = replace(progress, images_per_s=job.rows / step_s)
        is_due = progress.finished or job.step % job.recipe.checkpoint_every == 0
        if job.checkpoints is None or not is_due:
            return progress
        if progress.error is not None:
            job.checkpoints.clear()  # a training resumed from one would fail at the same step
            return progress
        unsaved = self.try_to_save(job.name)
        return replace(progress, saved=unsaved is None, unsaved=unsaved)

    def _fail(self, job: FineTune) -> Progress:
        error = TrainingError(
            f"expected a finite loss, got none at step {job.step + 1} of {job.recipe.steps}",
            hint="train again with a lower learning rate",
            code="NonFiniteLoss",
        )
        self.leave(job.name)
        return Progress(job.name, job.step, job.recipe.steps, math.nan, math.nan, error)

    def _fresh_row(self, recipe: FineTuneRecipe, generator: torch.Generator) -> Tensor:
        """Fresh factors of the recipe's targets; all others are zero.

        If A and B are both zero, so are their gradients: layers that are not targets are never trained.
        """
        weights: dict[Network, dict[str, LoraPair]] = {}
        for span in self.bank.spans:
            if not recipe.trains(span.network, span.module):
                continue
            pair = span.fresh(recipe.rank_of(span.network), generator)
            weights.setdefault(span.network, {})[span.module] = pair
        return self.bank.row_of(weights)
