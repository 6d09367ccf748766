"""The device's share of the work: pictures begin, advance and are decoded in batches as large as memory allows.

When memory runs out the batch is halved and the step done again, in parts; any other failure is narrowed down to the
picture that causes it. So what goes wrong with one picture is that picture's error and nobody else's.
"""

import inspect
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..diffusion.base import BaseModel
from ..diffusion.devices import is_out_of_memory
from ..diffusion.lora import LoraBank
from ..diffusion.pixels import to_images
from ..diffusion.sampling import Denoising, Order, advance, begin
from ..errors import DeviceFailed, LikenessError
from .batcher import RowLimit, parts_of
from .memory import Limits, release_memory

PREVIEW_PX = 128  # longest side
log = logging.getLogger("likeness.engine")

T = TypeVar("T")
R = TypeVar("R")


class Device:
    """One base and its bank. Belongs to one thread.

    Args:
        limits: to start with.
    """

    def __init__(self, base: BaseModel, bank: LoraBank, *, limits: Limits) -> None:
        self.base, self.bank = base, bank
        self.rows, self.pictures = limits.rows, limits.pictures

    def begin(self, orders: Sequence[Order]) -> list[Denoising | Exception]:
        """Encode prompts and draw the noise."""
        out, self.rows = apart(
            orders, lambda part: begin(self.base, self.bank, part), self.rows,
            rows=lambda order: 1 if order.guidance_scale == 1 else 2,
        )  # fmt: skip
        return out

    def advance(self, pictures: Sequence[Denoising]) -> list[Exception | None]:
        """One step of every picture."""
        targets = {id(picture): picture.step + 1 for picture in pictures}

        def step(part: Sequence[Denoising]) -> list[None]:
            behind = [picture for picture in part if picture.step < targets[id(picture)]]
            if behind:  # a part that failed half way has pictures that are a step ahead
                advance(self.base, self.bank, behind)
            return [None] * len(part)

        out, self.rows = apart(pictures, step, self.rows, rows=lambda picture: len(picture.states))
        self.rows = self.rows.after_step()
        return [
            DeviceFailed("the sampler of this picture broke off") if error is None and _is_dead(picture) else error
            for picture, error in zip(pictures, out, strict=True)
        ]

    def decode(self, latents: Sequence[Tensor]) -> list[NDArray[np.uint8] | Exception]:
        """Latents (C, h, w) each -> (H, W, 3) RGB each."""
        out, self.pictures = apart(
            latents, lambda part: to_images(self.base.decode(torch.stack(list(part)))), self.pictures, rows=lambda _: 1
        )
        self.pictures = self.pictures.after_step()
        return out


def apart(
    items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]], limit: RowLimit, *, rows: Callable[[T], int]
) -> tuple[list[R | Exception], RowLimit]:
    """`work` on all items, as many at once as the limit allows, and what became of the limit.

    Out of memory: the limit falls by half and the part is done again in smaller ones. Another error: the part is done
    again one by one. An item that fails alone gets its error in its place.
    """
    out: list[R | Exception] = [DeviceFailed("not reached")] * len(items)
    counts = [rows(item) for item in items]
    parts = deque(list(range(len(items))[part]) for part in parts_of(counts, limit.now))
    while parts:
        part = parts.popleft()
        try:
            for i, result in zip(part, work([items[i] for i in part]), strict=True):
                out[i] = result
        except Exception as error:
            is_memory = is_out_of_memory(error)
            if is_memory:
                limit = limit.halved(sum(counts[i] for i in part))
                release_memory()
                log.warning("out of memory, %d rows at most from now on", limit.now)
            if len(part) == 1:
                out[part[0]] = _failure(error, is_memory)
            elif is_memory:
                smaller = parts_of([counts[i] for i in part], limit.now)
                parts.extendleft(reversed([part[piece] for piece in smaller]))
            else:
                parts.extendleft([i] for i in reversed(part))
    return out, limit


def small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with its longest side at most `PREVIEW_PX`."""
    picture = Image.fromarray(image)
    picture.thumbnail((PREVIEW_PX, PREVIEW_PX), Image.Resampling.BOX)
    return np.asarray(picture)


def _is_dead(picture: Denoising) -> bool:
    return picture.latent is None and inspect.getgeneratorstate(picture.sampler) == inspect.GEN_CLOSED


def _failure(error: Exception, is_memory: bool) -> Exception:
    if is_memory:
        return DeviceFailed("the device has no memory for this picture", hint="free some, or use a smaller base")
    if isinstance(error, LikenessError):
        return error
    log.error("a picture failed", exc_info=error)
    failure = DeviceFailed(f"the device failed at this picture ({type(error).__name__})")
    failure.__cause__ = error
    return failure
