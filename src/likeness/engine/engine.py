"""Adapter + prompt + seed -> image, for any mixture of people in one batch.

Pictures join as room appears and leave when their last step is done; each step is one forward for all of them,
whoever they show (`diffusion.sampling.advance`). An adapter is one row of the bank; loading a person is one row copy.

The engine does not know where adapters are kept (it is handed a function that loads one) nor who asks.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..artifacts.adapter import check_base
from ..diffusion.base import BaseModel
from ..diffusion.lora import BASE_SLOT, LoraBank
from ..diffusion.samplers import sampler_named
from ..diffusion.sampling import Denoising, Order, advance, begin
from ..errors import UsageError
from ..types import Adapter, GeneratedImage, ImageRequest
from .cache import SlotCache

Load = Callable[[str], Adapter]


@dataclass(frozen=True, eq=False)
class _Working:
    """One picture in the making."""

    place: int  # in the caller's order
    request: ImageRequest
    key: str | None  # of the pinned adapter
    picture: Denoising
    started_s: float


class Engine:
    """A base, a bank of slots, and the pictures in the making.

    Args:
        slots: of the bank, slot 0 (the bare base) included.
        rank: the largest an adapter may have.
        max_batch: pictures in one forward; a guided picture is two rows.
    """

    def __init__(self, base: BaseModel, *, slots: int = 8, rank: int = 8, max_batch: int = 8) -> None:
        if max_batch < 1:
            raise UsageError(f"expected max_batch of at least 1, got {max_batch}")
        self.base = base
        self.bank = LoraBank(base.networks, base.family.targets, slots=slots, rank=rank)
        self._cache = SlotCache(slots)
        self._max_batch = max_batch

    def generate(
        self, requests: Sequence[ImageRequest], load: Load, *, progress: Callable[[int], None] = lambda done: None
    ) -> list[GeneratedImage]:
        """Make every picture; the result is in the order of `requests`.

        Args:
            load: name -> adapter, called once for each name in `requests`.
            progress: called with the number of finished pictures whenever it grows.

        Raises:
            WrongBase: an adapter was trained on another base; checked before the first step.
            CorruptAdapter: an adapter has layers that this base lacks, or a rank above the bank's.
            UsageError: an unknown sampler.
        """
        for request in requests:
            sampler_named(request.sampler)
        adapters = {name: load(name) for name in dict.fromkeys(r.adapter for r in requests) if name is not None}
        for adapter in adapters.values():
            check_base(adapter.card, self.base.sha256)
        waiting = deque(enumerate(requests))
        working: list[_Working] = []
        images: dict[int, GeneratedImage] = {}
        try:
            while waiting or working:
                working += self._admit(waiting, self._max_batch - len(working), adapters)
                advance(self.base, self.bank, [one.picture for one in working])
                finished = [one for one in working if one.picture.latent is not None]
                working = [one for one in working if one.picture.latent is None]
                if finished:
                    images |= self._finish(finished)
                    progress(len(images))
        finally:
            self._release(working)
        return [images[place] for place in range(len(requests))]

    def close(self) -> None:
        """Leave the base as it was."""
        self.bank.close()

    def _admit(
        self, waiting: deque[tuple[int, ImageRequest]], room: int, adapters: Mapping[str, Adapter]
    ) -> list[_Working]:
        """Take from the front of `waiting` while there is room in the batch and a slot for the adapter."""
        taken: list[tuple[int, ImageRequest, str | None]] = []
        orders: list[Order] = []
        while waiting and len(taken) < room:
            place, request = waiting[0]
            adapter = adapters[request.adapter] if request.adapter is not None else None
            slot = BASE_SLOT if adapter is None else self._slot_of(adapter)
            if slot is None:  # every slot is pinned by pictures that will finish
                break
            waiting.popleft()
            taken.append((place, request, adapter.card.content_sha256 if adapter else None))
            orders.append(_order(request, slot))
        if not orders:
            return []
        now_s = time.perf_counter()
        pictures = begin(self.base, self.bank, orders)
        return [_Working(*one, picture, now_s) for one, picture in zip(taken, pictures, strict=True)]

    def _slot_of(self, adapter: Adapter) -> int | None:
        key, scale = adapter.card.content_sha256, adapter.card.alpha / adapter.card.rank
        # The row first: an adapter that does not fit must not be taken for one that lies in a slot.
        row = None if key in self._cache.held else self.bank.row_of(adapter.weights, scale=scale)
        slot = self._cache.acquire(key)
        if slot is not None and row is not None:
            self.bank.write(slot, row)
        return slot

    def _finish(self, finished: list[_Working]) -> dict[int, GeneratedImage]:
        pixels = self.base.decode(
            torch.stack([one.picture.latent for one in finished if one.picture.latent is not None])
        )
        self._release(finished)
        now_s = time.perf_counter()
        return {
            one.place: GeneratedImage(one.request, image, self.base.sha256, one.key, now_s - one.started_s)
            for one, image in zip(finished, to_images(pixels), strict=True)
        }

    def _release(self, pictures: Sequence[_Working]) -> None:
        for one in pictures:
            if one.key is not None:
                self._cache.release(one.key)


def to_images(pixels: torch.Tensor) -> list[NDArray[np.uint8]]:
    """(B, 3, H, W) in [-1, 1] -> (H, W, 3) RGB of 0..255 each."""
    levels = pixels.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return list(levels.permute(0, 2, 3, 1).cpu().numpy())


def _order(request: ImageRequest, slot: int) -> Order:
    return Order(
        request.prompt, request.negative_prompt, request.seed, request.steps, request.guidance_scale,
        request.sampler, slot, request.adapter_scale,
    )  # fmt: skip
