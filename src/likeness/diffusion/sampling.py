"""Images in the making: any number of them, each at a step of its own, advanced by one shared forward.

A `Denoising` is the state of one image. `advance` runs one batch through the networks (two rows for a guided image,
one otherwise), then all images' samplers take their steps. Images may join and leave between calls and differ in
adapter, prompt, seed, sampler, step count, guidance and adapter scale. Guidance and the samplers' steps are one
expression over all images.

Classifier-free guidance extrapolates from the prediction for the negative prompt. If that prediction is made without
the adapter, guidance also strengthens the adapter: autoguidance (Karras et al. 2024, 'Guiding a Diffusion Model with a
Bad Version of Itself'), where the bare base is the worse version, without the subject.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..errors import UsageError
from ..types import ImageRequest
from .conditioning import Conditioning
from .lora import BASE_SLOT
from .model import BaseModel
from .noise import row_noise
from .samplers import Sampler, SamplerStep, sampler_named


class Router(Protocol):
    """Slots of adapters: `LoraBank`, or several of them."""

    def route(self, slots: Tensor, scales: Tensor | None = None) -> AbstractContextManager[None]:
        """See `LoraBank.route`."""


class RowAdapter(NamedTuple):
    """An adapter of one row of a forward: its slot in the bank, and its scale."""

    slot: int
    scale: float


@dataclass(frozen=True)
class AdapterSlot:
    """Where an adapter of an image lies in the bank.

    The scales are the adapter's weight in the image, times alpha / rank of each network while that is not part of B, as
    in training. A request's `adapter_scale` is multiplied by them.
    """

    index: int
    unet_scale: float = 1.0
    text_encoder_scale: float = 1.0


@dataclass(eq=False)
class Denoising:
    """One image being made; `latent` is set when it is finished."""

    sampler: Sampler
    x: Tensor  # (C, h, w), the next input of the network
    prompts: Conditioning  # 1 or 2 rows: the prompt, then the negative prompt if the image is guided
    guidance_scale: float
    adapters: Sequence[Sequence[RowAdapter]]  # of each row of `prompts`; empty: the bare base
    step: int = 0
    clean: Tensor | None = None  # (C, h, w), the prediction of the clean latent at the last step
    latent: Tensor | None = None  # (C, h, w)

    @property
    def now(self) -> SamplerStep:
        """The step that is next."""
        return self.sampler.steps[self.step]


def completed(base: BaseModel, request: ImageRequest) -> ImageRequest:
    """The request with the base's defaults for all fields that are not set. It is no longer marked as fast.

    Raises:
        UsageError: a fast image of a family that has no settings for it; a size that the family does not allow.
    """
    family = base.family
    width, height = family.checked_size(request.width, request.height)
    if request.fast:
        if family.fast_steps is None:
            raise UsageError(
                f"expected a base with settings for fast images, got {family.name}",
                hint="give a number of steps instead", param="fast",
            )  # fmt: skip
        request = replace(request, steps=family.fast_steps, sampler=family.fast_sampler, fast=False)
    guidance = family.guidance_scale if request.guidance_scale is None else request.guidance_scale
    negative = family.negative_scale if request.negative_scale is None else request.negative_scale
    steps, sampler = request.steps or family.steps, request.sampler or family.sampler
    return replace(
        request, steps=steps, guidance_scale=guidance, negative_scale=negative, sampler=sampler,
        width=width, height=height,
    )  # fmt: skip


def row_count(request: ImageRequest) -> int:
    """Rows of a completed request in one forward."""
    return 1 if request.guidance_scale == 1 else 2


def rows_of(base: BaseModel, request: ImageRequest) -> int:
    """Rows of a completed request, as `square_rows` counts them."""
    assert request.width is not None and request.height is not None
    return square_rows(base, row_count(request), base.latent_shape_of(request.width, request.height))


def square_rows(base: BaseModel, rows: int, shape: Sequence[int]) -> int:
    """Rows of latents (C, h, w), counted as rows of the base's square: those that have as many cells, rounded up."""
    return math.ceil(rows * math.prod(shape[1:]) / math.prod(base.latent_shape[1:]))


def guided(prompted: Tensor, negative: Tensor, scale: float | Tensor) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6), which extrapolates from `negative`; both of one shape."""
    return negative + scale * (prompted - negative)


@torch.no_grad()
def begin(
    base: BaseModel, bank: Router | None, requests: Sequence[ImageRequest], slots: Sequence[Sequence[AdapterSlot]]
) -> list[Denoising]:
    """Encode the prompts of all requests in one batch and start their samplers. The images have one size.

    Args:
        slots: of the adapters of each request; none: the bare base.

    Raises:
        UsageError: see `completed`; more steps than the base's schedule has timesteps; a sampler that it does not have.
    """
    requests = [completed(base, request) for request in requests]
    ((width, height),) = {(request.width, request.height) for request in requests}
    assert width is not None and height is not None
    rows = [(i, text, scale) for i, request in enumerate(requests) for text, scale in _texts(request)]
    owned = [[k for k, (owner, _, _) in enumerate(rows) if owner == i] for i in range(len(requests))]
    ids = base.tokenize([text for _, text, _ in rows])
    encoding = [_scaled(slots[i], scale, lambda slot: slot.text_encoder_scale) for i, _, scale in rows]
    with _ordered(base, bank, encoding) as (order, places):
        prompts = base.encode_prompt(ids[order])[places]
    if base.zeroes_empty_negative:
        prompts = prompts.without([k for own in owned for k in own[1:] if not rows[k][1]])
    adapters = [_scaled(slots[i], scale, lambda slot: slot.unet_scale) for i, _, scale in rows]
    with _ordered(base, bank, adapters) as (order, places):
        prompts = base.prepared(prompts[order])[places]
    shape = base.latent_shape_of(width, height)
    noise, tokens = row_noise([request.seed for request in requests], shape), base.image_tokens(width, height)
    noise = noise.to(base.device)
    out = []
    for i, (request, own) in enumerate(zip(requests, owned, strict=True)):
        assert request.sampler is not None and request.steps is not None and request.guidance_scale is not None
        sampler = sampler_named(request.sampler, base.schedule, request.steps, tokens=tokens)
        x = noise[i] * sampler.start
        out.append(Denoising(sampler, x, prompts[own], request.guidance_scale, [adapters[k] for k in own]))
    return out


@torch.no_grad()
def advance(base: BaseModel, bank: Router | None, images: Sequence[Denoising]) -> None:
    """One step of every image in one forward; their latents have one shape."""
    rows = [(image, k) for image in images for k in range(len(image.prompts))]
    with _ordered(base, bank, [image.adapters[k] for image, k in rows]) as (order, places):
        computed = [rows[row] for row in order]
        x = torch.stack([image.x for image, _ in computed])  # (R, C, h, w)
        t = torch.tensor([image.now.t for image, _ in computed])  # on the host, where the schedule is
        prompts = Conditioning.cat([image.prompts[k : k + 1] for image, k in computed])
        clean = base.schedule.denoised(x, base.denoise(x, t, prompts).to(x.dtype), t).unbind()
    of_row = {row: clean[place] for row, place in zip(rows, places, strict=True)}
    factors = torch.tensor([[image.guidance_scale, *image.now[1:]] for image in images]).to(x)  # (N, 4)
    guidance, of_x, of_clean, of_previous = factors.T[..., None, None, None]  # (N, 1, 1, 1) each
    parts = [  # stacked by one kernel
        [of_row[image, 0] for image in images],
        [of_row[image, len(image.prompts) - 1] for image in images],
        [image.x for image in images],
        [image.x if image.clean is None else image.clean for image in images],
    ]
    together = torch.stack(list(itertools.chain(*parts)))  # (4 N, C, h, w)
    prompted, negative, now, before = together.unflatten(0, (len(parts), -1))
    x0 = guided(prompted, negative, guidance)
    following = of_x * now + of_clean * x0 + of_previous * before
    for image, predicted, x_next in zip(images, x0, following, strict=True):
        image.step, image.clean, image.x = image.step + 1, predicted, x_next
        if image.step == len(image.sampler.steps):
            image.latent = x_next


def denoise_all(
    base: BaseModel, bank: Router | None, requests: Sequence[ImageRequest],
    slots: Sequence[Sequence[AdapterSlot]] | None = None,
) -> Tensor:  # fmt: skip
    """Run all requests, of one size, in one batch to their ends: latents (B, C, h, w) in their order.

    Args:
        slots: as of `begin`; None = all on the bare base.
    """
    images = begin(base, bank, requests, [()] * len(requests) if slots is None else slots)
    while alive := [image for image in images if image.latent is None]:
        advance(base, bank, alive)
    return torch.stack([image.latent for image in images if image.latent is not None])


def _texts(request: ImageRequest) -> list[tuple[str, float]]:
    """Text and adapter scale of each row of a completed request."""
    negative = request.adapter_scale if request.negative_scale is None else request.negative_scale
    return [(request.prompt, request.adapter_scale), (request.negative_prompt, negative)][: row_count(request)]


def _scaled(
    slots: Sequence[AdapterSlot], scale: float, factor: Callable[[AdapterSlot], float]
) -> tuple[RowAdapter, ...]:
    """The adapters of one row, without those of slot 0 or scale 0."""
    scaled = (RowAdapter(slot.index, scale * factor(slot)) for slot in slots)
    return tuple(one for one in scaled if one.slot != BASE_SLOT and one.scale)


@contextmanager
def _ordered(
    base: BaseModel, bank: Router | None, adapters: Sequence[Sequence[RowAdapter]]
) -> Iterator[tuple[list[int], list[int]]]:
    """Within the block, forward passes use the adapters of rows in the order in which they are computed.

    Yields that order, as row numbers, and the place of each row in it. Rows with equally many adapters are adjacent,
    and among them those with the same adapters, see `routing`. Rows without an adapter come last, so that the bank can
    skip them. On a CPU a single row is computed twice, see `batch_invariance`.
    """
    order = sorted(range(len(adapters)), key=lambda row: (-len(adapters[row]), adapters[row]))
    places = [order.index(row) for row in range(len(order))]
    if len(order) == 1 and base.device.type == "cpu":
        order *= 2
    with _route(bank, [adapters[row] for row in order]):
        yield order, places


def _route(bank: Router | None, rows: Sequence[Sequence[RowAdapter]]) -> AbstractContextManager[None]:
    if bank is None:
        return nullcontext()
    width = max(1, *map(len, rows))
    padded = [[*row, *[RowAdapter(BASE_SLOT, 1.0)] * (width - len(row))] for row in rows]
    slots = torch.tensor([[one.slot for one in row] for row in padded])  # (R, width)
    return bank.route(slots, torch.tensor([[one.scale for one in row] for row in padded]))
