"""Kernels per denoising and training step, against the bare network: counted on fake tensors at the published sizes.

python -m bench.launches [--base NAME ...] [--save]

An operator that computes is one launch on an accelerator; views are none. The counts do not depend on the machine. What
an accelerator adds, copies of indices from the host, is not counted; fused kernels would lower both sides. The bare
network of a training step is the denoising network; 'with text' adds the text encoders, which the step trains too.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from likeness.diffusion.base import BaseModel, fake_base
from likeness.diffusion.counting import Counting
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.sampling import AdapterSlot, advance, begin
from likeness.diffusion.stable_diffusion import StableDiffusion
from likeness.training.data import stand_in
from likeness.training.loop import PRIOR_STEPS, Group, StepMemory, TrainingLoop
from likeness.training.recipe import FineTuneRecipe, recipe_named
from likeness.types import ImageRequest, encodes_text
from recipes.measurement import Row

from .report import Goal, finish, options
from .true_size import BASES, write_configs

DEFAULT = ["sd-2.1-base", "sdxl", "flux2-klein-base-4b", "z-image"]
MOST = 1.25  # times the bare network's kernels
PEOPLE = 8
RANK, BANK_RANK = 8, 32  # of the adapters, and of the engine's slots


def recipe_of(base: BaseModel) -> FineTuneRecipe:
    """The standard recipe of the base's family; the rank does not matter here."""
    return recipe_named("standard", base.family.name, rank=RANK, alpha=RANK)


def kernels_of(work: Callable[[], object]) -> int:
    with Counting() as counted:
        work()
    return counted.kernels


def bare_step(base: BaseModel, rows: int, *, backward: bool) -> int:
    """The denoising network alone, with diffusers' own attention; `backward`: with a gradient of its inputs."""
    x = torch.zeros(rows, *base.latent_shape, dtype=base.dtype, requires_grad=backward)
    t = torch.zeros(rows, dtype=torch.int64)
    with torch.no_grad():
        encoded = base.encode_prompt(base.tokenize([""] * rows))
    prompts = replace(encoded, states=encoded.states.detach().requires_grad_(backward))

    def work() -> None:
        with torch.set_grad_enabled(backward):
            output = base.denoise(x, t, prompts)
        if backward:
            torch.autograd.grad(output.sum(), [x, prompts.states])

    if not isinstance(base, StableDiffusion):
        return kernels_of(work)
    ours = dict(base.unet.attn_processors)
    base.unet.set_attn_processor(AttnProcessor2_0())
    try:
        return kernels_of(work)
    finally:
        base.unet.set_attn_processor(ours)


def bare_text(base: BaseModel, rows: int) -> int:
    """The text encoders with the gradient of their states, if adapters modify them."""
    if not base.adapts_text:
        return 0
    ids = base.tokenize([""] * rows)
    weights = [next(base.parts[name].parameters()) for name in base.adapted if encodes_text(name)]

    def work() -> None:
        torch.autograd.grad(base.encode_prompt(ids).states.sum(), weights, allow_unused=True)

    try:
        for weight in weights:
            weight.requires_grad_(True)
        return kernels_of(work)
    finally:
        for weight in weights:
            weight.requires_grad_(False)


def denoising_step(base: BaseModel, people: int, *, changed: bool = False) -> int:
    """Guided images of different people in one forward pass, their adapters in slots far apart.

    Args:
        changed: count the step after an image has joined, else one in which the images are those of the step before.
    """
    with next(base.parts["vae"].parameters()).fake_mode:
        bank = LoraBank(base.networks, base.family.trained, slots=2 * people + 1, rank=BANK_RANK)
    try:
        row, recipe = torch.zeros(bank.columns), recipe_of(base)
        for span in (one for one in bank.spans if recipe.trains(one.network, one.module)):
            row[span.a].view(span.a_shape)[:RANK] = 1
            row[span.b].view(span.b_shape)[:, :RANK] = 1
        slots = range(2 * people, 0, -2)
        for slot in slots:
            bank.write(slot, row, rank=RANK)
        requests = [ImageRequest("photo of a person", seed=k) for k in range(people)]
        images = begin(base, bank, requests, [[AdapterSlot(slot)] for slot in slots])
        advance(base, bank, images[:-1] if changed else images)
        return kernels_of(lambda: advance(base, bank, images))
    finally:
        bank.close()


def training_step(base: BaseModel, people: int, memory: StepMemory | None = None) -> int:
    """Forward and backward pass of the standard recipe; the optimizer has few kernels beside them.

    With the step's share of the bare base's pass for the class images, which is one for several steps.
    """
    recipe = recipe_of(base)
    with next(base.parts["vae"].parameters()).fake_mode:
        loop = TrainingLoop(base, capacity=people, rank=RANK, memory=memory)
    try:
        jobs = [loop.join(str(k), recipe, stand_in(base), seed=k) for k in range(people)]
        group: Group = []
        drawn = kernels_of(lambda: group.extend((job, batch) for job in jobs for batch in loop.draw(job)))
        gradient = torch.zeros_like(loop.bank.flat)

        def work() -> None:
            for part in loop.parts(group):
                loop.bank.add_gradient(torch.stack(loop.losses(part)).sum(), gradient)

        return kernels_of(work) + drawn // PRIOR_STEPS
    finally:
        loop.close()


def table_of(base: BaseModel) -> list[Row]:
    """Counts, and their ratio to the bare networks' with as many rows: Z-Image reads captions row by row."""
    recipe = recipe_of(base)
    own = recipe.instance_rows + recipe.prior_rows
    forward = {rows: bare_step(base, rows, backward=False) for rows in (2, 2 * PEOPLE)}
    both = {rows: bare_step(base, rows, backward=True) for rows in (own, 2 * own)}
    text = bare_text(base, own)
    training = {
        "training: one person": (training_step(base, 1), both[own]),
        "training: two people": (training_step(base, 2), both[2 * own]),
        "training: one person, recomputed": (training_step(base, 1, StepMemory(recompute=True)), both[own]),
    }
    many = forward[2 * PEOPLE]
    found = {
        "denoising: the bare network": (many, many),
        "denoising: one person, guided": (denoising_step(base, 1), forward[2]),
        f"denoising: {PEOPLE} people, guided": (denoising_step(base, PEOPLE), many),
        f"denoising: {PEOPLE} people, one has joined": (denoising_step(base, PEOPLE, changed=True), many),
        "training: the bare network, forward and backward": (both[own], both[own]),
        **training,
        "training: the bare networks with text": (both[own] + text, both[own] + text),
        **{f"{name}, against the networks with text": (count, bare + text) for name, (count, bare) in training.items()},
    }
    return [{"step": name, "kernels": count, "of the bare": count / bare} for name, (count, bare) in found.items()]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--base", choices=BASES, nargs="+", default=DEFAULT)
    args = parser.parse_args()
    tables, goals = dict[str, list[Row]](), []
    for name in args.base:
        with tempfile.TemporaryDirectory() as folder:
            path = write_configs(name, Path(folder) / name)
            base = fake_base(str(path), device=torch.device("cuda"), dtype=torch.bfloat16)
            tables[name] = table_of(base)
        goals += [
            Goal(
                f"{name}, {row['step']}: times the bare network's kernels", float(str(row["of the bare"])), MOST, False
            )
            for row in tables[name]
            if not any(word in str(row["step"]) for word in ("bare network", "joined", "recomputed", "with text"))
        ]
    finish("launches", tables, goals=goals, settings={"bases": args.base, "rank": RANK}, save=args.save)


if __name__ == "__main__":
    main()
