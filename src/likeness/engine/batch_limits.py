"""How many rows one forward may have, measured on the device before the first request; whether the base fits at all.

On a device that does not count its memory (a CPU) the limit is `max_batch`, unmeasured.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..diffusion.base import BaseModel
from ..diffusion.counting import Counting
from ..diffusion.devices import available_bytes, counts_memory
from ..diffusion.lora import BASE_SLOT, LoraBank
from ..diffusion.sampling import Router
from .batcher import RowLimit, rows_that_fit


@dataclass(frozen=True)
class Limits:
    """Limits of the two kinds of batch that a device runs."""

    rows: RowLimit  # of a denoising step
    images: RowLimit  # of a decoding


def measured_limits(base: BaseModel, banks: Router, *, max_batch: int) -> Limits:
    """Limits for `max_batch` guided images, or fewer if the memory is too small."""
    rows, images = 2 * max_batch, max_batch
    if counts_memory(base.device):
        free = _free_bytes(base.device)
        rows = rows_that_fit(free, _bytes_per_item(lambda count: _denoise(base, banks, count), rows), most=rows)
        images = rows_that_fit(free, _bytes_per_item(lambda count: _decode(base, count), images), most=images)
    return Limits(RowLimit(rows, rows), RowLimit(images, images))


def needed_bytes(base: BaseModel, *, slots: int, rank: int, side_px: int | None = None) -> int:
    """Of weights, slots and one guided image, counted with a base of fake tensors (`fake_base`).

    Args:
        side_px: of the image, a square; None: the base's own.
    """
    with next(base.parts["vae"].parameters()).fake_mode:
        bank = LoraBank(base.networks, base.family.targets, slots=slots, rank=rank)
    try:
        with Counting() as denoised:
            _denoise(base, bank, 2, side_px)
        with Counting() as decoded:
            _decode(base, 1, side_px)
    finally:
        bank.close()
    weights = sum(base.sizes.values()) - base.host_bytes
    return weights + bank.flat.nbytes + max(denoised.peak_bytes, decoded.peak_bytes)


def _bytes_per_item(work: Callable[[int], object], most: int) -> float:
    """Slope of the peak memory between one item and a few, without what the whole batch shares."""
    count = min(4, most)
    if count == 1:
        return float(_peak_bytes(work, 1))
    return (_peak_bytes(work, count) - _peak_bytes(work, 1)) / (count - 1)


def _peak_bytes(work: Callable[[int], object], count: int) -> int:
    torch.accelerator.synchronize()
    torch.accelerator.reset_peak_memory_stats()
    before = torch.accelerator.memory_allocated()
    work(count)
    torch.accelerator.synchronize()
    return torch.accelerator.max_memory_allocated() - before


def _free_bytes(device: torch.device) -> int:
    """Memory of the device that this process may have and does not use."""
    return available_bytes(device) - torch.accelerator.memory_allocated()


@torch.no_grad()
def _denoise(base: BaseModel, banks: Router, rows: int, side_px: int | None = None) -> None:
    ids = base.tokenize([""] * rows)
    with banks.route(torch.full((rows,), BASE_SLOT)):
        x = torch.zeros(rows, *_latent_shape(base, side_px), device=base.device)
        prompts = base.prepared(base.encode_prompt(ids))
        base.denoise(x, torch.zeros(rows, dtype=torch.int64, device=base.device), prompts)


def _decode(base: BaseModel, images: int, side_px: int | None = None) -> None:
    base.decode(torch.zeros(images, *_latent_shape(base, side_px)))


def _latent_shape(base: BaseModel, side_px: int | None) -> tuple[int, int, int]:
    return base.latent_shape if side_px is None else base.latent_shape_of(side_px, side_px)
