"""Batched sampling: any number of images, each at its own step, advanced by one shared forward pass.

A `Denoising` is the state of one image. `advance` runs one batch through the networks (two rows per guided image) and
advances each image's sampler by one step. Images can join and leave between calls, and can differ in person, prompt,
seed, sampler, number of steps, guidance and adapter scale.

Classifier-free guidance extrapolates from the prediction for the negative prompt. If that prediction is made without
the
adapter, guidance also amplifies the person: autoguidance (Karras et al. 2024, 'Guiding a Diffusion Model with a Bad
Version of Itself'), with the base as the weaker model.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .base import BaseModel
from .lora import BASE_SLOT, LoraBank
from .noise import row_noise
from .samplers import Sampler, sampler_named


class Whose(NamedTuple):
    """The slot of a row, and the scale of its adapter."""

    slot: int
    scale: float


BARE = Whose(BASE_SLOT, 1.0)


@dataclass(eq=False)
class Denoising:
    """The state of one image; `latent` is set when it is finished."""

    sampler: Sampler
    x: Tensor  # (C, h, w), the network's next input
    t: float
    states: Tensor  # (1 or 2, N, d): prompt, and negative prompt if guided
    guidance_scale: float
    whose: Sequence["Whose"]  # of the rows of `states`
    step: int = 0
    clean: Tensor | None = None  # (C, h, w), the clean latent predicted in the last step
    latent: Tensor | None = None  # (C, h, w)


@dataclass(frozen=True)
class Order:
    """One image to denoise, in terms of this layer."""

    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance_scale: float  # 1: no guidance
    sampler: str
    slot: int
    scale: float = 1.0
    negative_scale: float | None = None  # for the negative prompt; None: `scale`, as in diffusers
    text_factor: float = 1.0  # factor for scales in the text encoder, which may differ in training

    @property
    def rows(self) -> list[tuple[str, Whose]]:
        """The image's rows in a forward pass: the prompt, and the negative prompt if guided.

        A row with scale 0 uses slot 0.
        """
        negative = self.scale if self.negative_scale is None else self.negative_scale
        said = [(self.prompt, self.scale), (self.negative_prompt, negative)][: 1 if self.guidance_scale == 1 else 2]
        return [(text, Whose(self.slot, scale) if scale and self.slot else BARE) for text, scale in said]

    def reading(self, whose: Whose) -> Whose:
        """The same row in the text encoder."""
        return whose if whose == BARE else Whose(whose.slot, whose.scale * self.text_factor)


@torch.no_grad()
def begin(base: BaseModel, bank: LoraBank | None, orders: Sequence[Order]) -> list[Denoising]:
    """Encode the prompts of all orders in one batch and start their samplers."""
    rows = [(i, *row) for i, order in enumerate(orders) for row in order.rows]
    ids = base.tokenize([text for _, text, _ in rows])
    states = _forward(
        base, bank, [orders[i].reading(whose) for i, _, whose in rows], lambda order: base.encode_prompt(ids[order])
    )  # (rows, N, d)
    noise = row_noise([order.seed for order in orders], base.latent_shape).to(base.device)
    out = []
    for i, order in enumerate(orders):
        sampler = sampler_named(order.sampler)(noise[i], base.schedule, order.steps)
        x, t = next(sampler)
        mine = torch.stack([states[k] for k, (owner, _, _) in enumerate(rows) if owner == i])
        out.append(Denoising(sampler, x, t, mine, order.guidance_scale, [whose for _, whose in order.rows]))
    return out


@torch.no_grad()
def advance(base: BaseModel, bank: LoraBank | None, pictures: Sequence[Denoising]) -> None:
    """One step of every image in one forward pass. Classifier-free guidance: Ho & Salimans 2022, eq. 6."""
    rows = [picture for picture in pictures for _ in picture.states]
    x = torch.stack([row.x for row in rows])  # (R, C, h, w)
    t = torch.tensor([row.t for row in rows])  # on the CPU, as the schedule is
    states = torch.cat([picture.states for picture in pictures])
    whose = [one for picture in pictures for one in picture.whose]
    output = _forward(base, bank, whose, lambda order: base.denoise(x[order], t[order], states[order]))
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
    """Run all orders in one batch until finished: latents (B, C, h, w), in the order of `orders`."""
    pictures = begin(base, bank, orders)
    while alive := [picture for picture in pictures if picture.latent is None]:
        advance(base, bank, alive)
    return torch.stack([picture.latent for picture in pictures if picture.latent is not None])


def _forward(
    base: BaseModel, bank: LoraBank | None, whose: Sequence[Whose], work: Callable[[list[int]], Tensor]
) -> Tensor:
    """Calls `work` with the order in which to take the rows; returns its result (R, ...) in the original order.

    Rows of slot 0 come last, where the bank skips them. A single row is repeated: see `rows`.
    """
    order = sorted(range(len(whose)), key=lambda row: whose[row] == BARE)
    if len(order) == 1 and base.device.type == "cpu":
        order *= 2
    with _route(bank, [whose[row] for row in order]):
        done = work(order)
    out = torch.empty_like(done[: len(whose)])
    out[order] = done
    return out


def _route(bank: LoraBank | None, rows: Sequence[Whose]) -> AbstractContextManager[None]:
    if bank is None:
        return nullcontext()
    slots, scales = zip(*rows, strict=True)
    return bank.route(torch.tensor(slots), torch.tensor(scales))
