"""Pictures in the making: any number of them, each at a step of its own, advanced by one shared forward.

A `Denoising` is one picture's state. `advance` takes whichever are alive, runs one batch through the networks
(two rows a picture where it is guided), and lets each picture's sampler take its step. Pictures may join and
leave between calls and differ in person, prompt, seed, sampler, step count, guidance and adapter scale.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import BaseModel
from .lora import LoraBank
from .noise import row_noise
from .samplers import Sampler, sampler_named


@dataclass(eq=False)
class Denoising:
    """One picture being made; `latent` is set when it is finished."""

    sampler: Sampler
    x: Tensor  # (C, h, w), what the network shall see next
    t: int
    states: Tensor  # (1 or 2, N, d): prompt, then negative prompt where it is guided
    guidance_scale: float
    slot: int
    scale: float
    step: int = 0
    clean: Tensor | None = None  # (C, h, w), what the network took the picture for at the last step
    latent: Tensor | None = None  # (C, h, w)


@dataclass(frozen=True)
class Order:
    """What to denoise: one picture's settings, in the terms of this layer."""

    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance_scale: float  # 1 = not guided
    sampler: str
    slot: int
    scale: float = 1.0


@torch.no_grad()
def begin(base: BaseModel, bank: LoraBank | None, orders: Sequence[Order]) -> list[Denoising]:
    """Encode the prompts of all orders in one batch and start their samplers."""
    texts, owners = [], []
    for i, order in enumerate(orders):
        for text in (order.prompt, order.negative_prompt)[: 1 if order.guidance_scale == 1 else 2]:
            texts.append(text)
            owners.append(i)
    ids = base.tokenize(texts)
    with _route(bank, [orders[i].slot for i in owners], [orders[i].scale for i in owners]):
        states = base.encode_prompt(ids)  # (rows, N, d)
    noise = row_noise([order.seed for order in orders], base.latent_shape).to(base.device)
    out = []
    for i, order in enumerate(orders):
        sampler = sampler_named(order.sampler)(noise[i], base.schedule, order.steps)
        x, t = next(sampler)
        mine = torch.stack([states[k] for k, owner in enumerate(owners) if owner == i])
        out.append(Denoising(sampler, x, t, mine, order.guidance_scale, order.slot, order.scale))
    return out


@torch.no_grad()
def advance(base: BaseModel, bank: LoraBank | None, pictures: Sequence[Denoising]) -> None:
    """One step of every picture in one forward. Classifier-free guidance: Ho & Salimans 2022, eq. 6."""
    rows = [picture for picture in pictures for _ in picture.states]
    x = torch.stack([row.x for row in rows])  # (R, C, h, w)
    t = torch.tensor([row.t for row in rows], device=x.device)
    states = torch.cat([picture.states for picture in pictures])
    with _route(bank, [row.slot for row in rows], [row.scale for row in rows]):
        output = base.denoise(x, t, states)
    clean = base.schedule.denoised(x, output.to(x.dtype), t)
    start = 0
    for picture in pictures:
        count = len(picture.states)
        mine = clean[start : start + count]
        start += count
        x0 = mine[0] if count == 1 else mine[1] + picture.guidance_scale * (mine[0] - mine[1])
        picture.step, picture.clean = picture.step + 1, x0
        try:
            picture.x, picture.t = picture.sampler.send(x0)
        except StopIteration as end:
            picture.latent = end.value


def denoise_all(base: BaseModel, bank: LoraBank | None, orders: Sequence[Order]) -> Tensor:
    """Run all orders in one batch to their ends: latents (B, C, h, w) in the order of `orders`."""
    pictures = begin(base, bank, orders)
    while alive := [picture for picture in pictures if picture.latent is None]:
        advance(base, bank, alive)
    return torch.stack([picture.latent for picture in pictures if picture.latent is not None])


def _route(bank: LoraBank | None, slots: list[int], scales: list[float]) -> AbstractContextManager[None]:
    if bank is None:
        return nullcontext()
    return bank.route(torch.tensor(slots), torch.tensor(scales))
