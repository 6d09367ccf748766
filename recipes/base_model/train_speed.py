"""Distil a base into a speed adapter: python -m recipes.base_model.train_speed --base built-in --assets PACK --out FILE

With the adapter, a few steps without guidance reach the place that many guided steps reach. It is one more LoRA, which
is added to a person's. It must replace the guidance towards the person too, so half of the rows have the adapters of
virtual people who are neither in the base's training data nor in the exam's gallery.

No images are needed. From noise and a caption, the student takes its own steps. At each step the teacher continues from
the same latent with several guided DDIM steps, and the student learns to reach the same place in one
(`distillation.py`). A part of the rows continues from the student's place, so that it learns to correct its own errors;
the others continue from the teacher's.

The learning rate depends on the elapsed time; `--minutes` is the length of the training. `log.jsonl` beside the result
has a line for each rollout.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from likeness import __version__
from likeness.artifacts import bundle
from likeness.diffusion.base import BaseModel
from likeness.diffusion.conditioning import Conditioning
from likeness.diffusion.lora import BASE_SLOT, LoraBank
from likeness.diffusion.samplers import ddim_step
from likeness.diffusion.sampling import guided
from likeness.diffusion.schedule import DiffusionSchedule
from likeness.training.optimizer import RowAdamW, clip_rows
from likeness.types import Adapter, AdapterCard

from .distillation import alpha_bar_at, between, clean_of_step, mixed_rows, student_times, walked
from .exam import Exam, Settings
from .prompts import portrait_prompts, style_prompts
from .render.assets import Assets
from .render.captions import compose
from .render.dataset import held_out_seeds
from .render.people import sample_person
from .render.picture import attributes
from .render.scene import sample_scene
from .train_unet import clean_latent_loss, face_emphasis, write_line
from .tuning import GALLERY_PEOPLE, Sitter, adapters, tuning_recipe, virtual_sitter

NAME = "speed"
SLOT = 1  # of the speed adapter, in a bank of its own
SAMPLER = "ddim"
CLIP_NORM = 1.0
WARM_UP = 0.02  # of the time


def fresh_row(bank: LoraBank, generator: torch.Generator) -> Tensor:
    """(P,), fresh factors of all layers of a bank of the U-Net."""
    return bank.row_of({"unet": {span.module: span.fresh(bank.rank, generator) for span in bank.spans}})


def composed_text(rng: np.random.Generator, assets: Assets) -> str:
    """A caption as in the base's training data, of a person who is not held out."""
    person = sample_person(int(rng.integers(held_out_seeds().stop, 60_000)), assets)
    return compose(attributes(person, sample_scene(rng, person)) | {"name": None}, rng)


@dataclass(eq=False)
class Distillation:
    """The teacher, which is the base with guidance, and the student, which is the base with the speed adapter."""

    base: BaseModel
    bank: LoraBank  # of the speed adapter, in training
    people: LoraBank | None  # their adapters; None: all rows are of the bare base
    guidance: float
    steps: int  # of the student
    substeps: int  # of the teacher, for each step of the student
    own_share: float  # of the rows that continue from the student's place

    @property
    def schedule(self) -> DiffusionSchedule:
        assert isinstance(self.base.schedule, DiffusionSchedule)
        return self.base.schedule

    def denoised(self, x: Tensor, t: int, prompts: Conditioning, slots: Tensor) -> Tensor:
        """The clean latent (B, C, h, w) that the base predicts with the people's adapters of `slots` (B,)."""
        times = torch.full((len(x),), t)
        with self._of_people(slots):
            output = self.base.denoise(x, times, prompts)
        return self.base.schedule.denoised(x, output.to(x.dtype), times)

    @torch.no_grad()
    def encoded(self, texts: Sequence[str], slots: Tensor) -> Conditioning:
        with self._of_people(slots):
            return self.base.encode_prompt(self.base.tokenize(texts))

    def reached(self, x: Tensor, t: int, after: int, *, prompts: Conditioning, slots: Tensor) -> Tensor:
        """Where the teacher is at `after`, from x (B, C, h, w) at t. Its negative prompts have no adapter.

        prompts: of 2 B rows, the negative ones last.
        """
        both = torch.cat([slots, torch.full_like(slots, BASE_SLOT)])

        def denoise(x: Tensor, t: int) -> Tensor:
            prompted, negative = self.denoised(torch.cat([x, x]), t, prompts, both).chunk(2)
            return guided(prompted, negative, self.guidance)

        with torch.no_grad():
            return walked(x, denoise, self.schedule, between(t, after, self.substeps))

    def rollout(
        self, texts: Sequence[str], slots: Sequence[int], generator: torch.Generator, *,
        update: Callable[[Tensor], None],
    ) -> float:  # fmt: skip
        """The student's steps from noise; `update` gets the gradient (2, P) of each. Returns the mean loss."""
        schedule, device = self.schedule, self.base.device
        of_people = torch.tensor(slots)
        positive = self.encoded(texts, of_people)
        negative = self.encoded([""], torch.tensor([BASE_SLOT]))[[0] * len(texts)]
        prompts = Conditioning.cat([positive, negative])
        x = torch.randn((len(texts), *self.base.latent_shape), generator=generator).to(device)
        emphasis = face_emphasis(x.shape[-1], device)
        speed = torch.full((len(texts),), SLOT)
        losses = []
        for t, after in pairwise(student_times(schedule, SAMPLER, self.steps)):
            levels = {"now": alpha_bar_at(schedule, t), "after": alpha_bar_at(schedule, after)}
            reached = self.reached(x, t, after, prompts=prompts, slots=of_people)
            with self.bank.route(speed):
                student = self.denoised(x, t, positive, of_people)
            sigma_squared = torch.full((len(x),), 1 - levels["now"], device=device)
            loss = clean_latent_loss(student, clean_of_step(x, reached, **levels), sigma_squared, emphasis)
            update(self.bank.gradient(loss))
            losses.append(loss.item())
            x = mixed_rows(ddim_step(x, student.detach(), **levels), reached, self.own_share, generator)
        return sum(losses) / len(losses)

    def _of_people(self, slots: Tensor) -> AbstractContextManager[None]:
        return nullcontext() if self.people is None else self.people.route(slots)


def learning_rate(done: float, peak: float) -> float:
    """Warm-up, then a cosine to zero; `done` in [0, 1] is the share of the time."""
    return peak * min(1.0, done / WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))


def people_in(exam: Exam, count: int) -> tuple[LoraBank | None, list[Sitter]]:
    """A bank with the fine-tunes of `count` people, slots 1 to `count`, who are not in the exam's gallery."""
    seeds = held_out_seeds()[GALLERY_PEOPLE:]
    clear = [seed for seed in seeds if sample_person(seed, exam.assets).glasses == "none"]
    sitters = [virtual_sitter(exam, clear[k * len(clear) // count]) for k in range(count)]
    if not sitters:
        return None, []
    recipe = tuning_recipe(exam)
    bank = LoraBank(exam.base.networks, exam.base.family.trained, slots=1 + count, rank=recipe.rank)
    for slot, row in enumerate(adapters(exam, sitters, recipe), start=1):
        bank.write(slot, row)
    return bank, sitters


def drawn_texts(
    sitters: Sequence[Sitter], assets: Assets, rng: np.random.Generator, rows: int
) -> tuple[list[str], list[int]]:
    """Prompts of `rows` rows and their slots: half of them of the people with adapters, if there are any."""
    texts, slots = [], []
    for row in range(rows):
        if sitters and row % 2:
            slot = int(rng.integers(len(sitters)))
            words = f"{sitters[slot].subject.identifier} {sitters[slot].class_noun}"
            known = [*portrait_prompts(words, 12), *style_prompts(words).values()]
            texts.append(known[int(rng.integers(len(known)))])
            slots.append(1 + slot)
        else:
            texts.append(composed_text(rng, assets))
            slots.append(BASE_SLOT)
    return texts, slots


def train(work: Distillation, draw: Callable[[], tuple[list[str], list[int]]], args: argparse.Namespace, *,
    clock: Callable[[], float] = time.monotonic) -> int:  # fmt: skip
    """Rollouts until the minutes are over; the result is in the bank. Returns the number of optimiser steps."""
    generator = torch.Generator().manual_seed(args.seed)
    work.bank.enable_training()
    work.bank.write(SLOT, fresh_row(work.bank, generator))
    optimizer = RowAdamW.like(work.bank.flat)
    average = work.bank.flat[SLOT].clone()
    started, count, rollouts = clock(), 0, 0

    def update(gradient: Tensor) -> None:
        nonlocal count
        count += 1
        clip_rows(gradient, torch.tensor([math.inf, CLIP_NORM]))
        rate = learning_rate(min(1.0, (clock() - started) / (60 * args.minutes)), args.learning_rate)
        optimizer.step(
            work.bank.flat, gradient, SLOT, count=count, rates=[(slice(0, work.bank.columns), rate)], weight_decay=0.0
        )
        average.lerp_(work.bank.flat[SLOT], max(1 / count, 1 / 100))

    while (elapsed_s := clock() - started) < 60 * args.minutes:
        loss = work.rollout(*draw(), generator, update=update)
        rollouts += 1
        write_line(
            args.out.parent, {"s": round(elapsed_s), "step": count, "rollouts": rollouts, "loss": round(loss, 4)}
        )
        if rollouts % args.save_every == 0:
            write(work, average, args, count=count, seconds=elapsed_s)
    write(work, average, args, count=count, seconds=clock() - started)
    return count


def write(work: Distillation, row: Tensor, args: argparse.Namespace, *, count: int, seconds: float) -> None:
    """The averaged weights as an adapter file."""
    base = work.base
    card = AdapterCard(
        name=NAME, class_noun="picture", identifier="-", base_id=base.id, base_sha256=base.sha256,
        family=base.family.name,
        recipe={"name": "distillation", "steps": work.steps, "guidance": work.guidance, "substeps": work.substeps},
        seed=args.seed, photos=0, steps=count, seconds=round(seconds, 3),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"likeness": __version__, "torch": torch.__version__},
        rank=work.bank.rank, alpha=float(work.bank.rank),
    )  # fmt: skip
    content = bundle.encode(Adapter(card, work.bank.pairs_of(row, work.bank.rank)))[1]
    args.out.with_suffix(".tmp").write_bytes(content)
    args.out.with_suffix(".tmp").replace(args.out)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="built-in", help="built-in, or a folder")
    parser.add_argument("--assets", type=Path, required=True, help="the MakeHuman pack")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps the people's adapters")
    parser.add_argument("--out", type=Path, required=True, help="the adapter file")
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--people", type=int, default=6, help="whose fine-tunes take part")
    parser.add_argument("--steps", type=int, default=6, help="of the student")
    parser.add_argument("--substeps", type=int, default=4, help="of the teacher for each of them")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--own-share", type=float, default=0.5, help="rows that continue from the student's place")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=10, help="rollouts")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parsed(arguments)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    exam = Exam(Settings(args.base, args.assets, None, args.work))
    people, sitters = people_in(exam, args.people)
    base = exam.base
    bank = LoraBank(base.networks, {"unet": base.family.trained["unet"]}, slots=2, rank=args.rank)
    work = Distillation(
        base, bank, people, base.family.guidance_scale, args.steps, args.substeps, own_share=args.own_share
    )
    rng = np.random.default_rng(args.seed)
    train(work, lambda: drawn_texts(sitters, exam.assets, rng, args.batch), args)


if __name__ == "__main__":
    main()
