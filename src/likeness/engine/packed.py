"""An adapter in host memory, packed for its slot: one tensor of its values in its own rank and precision, unpadded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..artifacts.adapter import strength_on
from ..diffusion.lora import LoraBank
from ..types import Adapter, LoraPair, checked_rank
from .slot_banks import SlotBanks

LAYOUTS = 4  # positions kept for this many different layouts; each is as long as an adapter, in 8-byte numbers


@dataclass(frozen=True)
class Layout:
    """The layers of an adapter, as rising indices of the bank's spans, and its rank."""

    spans: tuple[int, ...]
    rank: int


@dataclass(frozen=True, eq=False)
class PackedAdapter:
    """One adapter in host memory."""

    content_sha256: str
    scale: float  # strength * alpha / r; goes into B on the device: the numbers here keep the precision of their file
    layout: Layout
    values: Tensor  # (n,), the factors in the order of the bank's columns, float16 or float32 on the host
    is_large: bool = False  # of a rank above the usual slots'

    @property
    def nbytes(self) -> int:
        return self.values.nbytes


def pack(adapter: Adapter, banks: SlotBanks, base_sha256: str) -> PackedAdapter:
    """Check an adapter against the banks and flatten it.

    Raises:
        Mismatch: not for this base, or of a rank above that of the largest slot.
        CorruptAdapter: layers that the bank lacks, or of another shape.
    """
    bank = banks.usual
    scale = strength_on(adapter.card, base_sha256) * adapter.card.alpha / adapter.card.rank
    numbers = {span.a_start: i for i, span in enumerate(bank.spans)}
    found = {
        numbers[bank.span_for(network, module, pair).a_start]: pair
        for network, pairs in adapter.weights.items()
        for module, pair in pairs.items()
    }
    rank = max((pair.A.shape[0] for pair in found.values()), default=1)
    checked_rank(max(rank, adapter.card.rank), banks.large_rank)
    spans = tuple(sorted(found))
    factors = {span: _of_rank(found[span], rank) for span in spans}
    flat = [factors[span][part].reshape(-1) for span, part in _in_order(bank, spans)]
    values = torch.from_numpy(np.concatenate(flat)) if flat else torch.empty(0)
    return PackedAdapter(adapter.card.content_sha256, scale, Layout(spans, rank), values, rank > banks.rank)


def _of_rank(pair: LoraPair, rank: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """A and B, padded with zeros to a rank: the layers of an imported adapter can differ in rank."""
    missing = rank - pair.A.shape[0]
    if not missing:
        return pair.A, pair.B
    a_pads, b_pads = [(0, 0)] * pair.A.ndim, [(0, 0)] * pair.B.ndim
    a_pads[0] = b_pads[1] = (0, missing)
    return np.pad(pair.A, a_pads), np.pad(pair.B, b_pads)


class SlotWriter:
    """Writes packed adapters into slots. Used by the device thread only."""

    def __init__(self, banks: SlotBanks) -> None:
        self._banks = banks
        self._positions = lru_cache(LAYOUTS)(lambda bank, layout: positions(bank, layout).to(bank.flat.device))
        self._is_b = lru_cache(LAYOUTS)(lambda bank, layout: is_b(bank, layout).to(bank.flat.device))

    def write(self, slot: int, packed: PackedAdapter) -> None:
        """One row copy; an adapter of fewer layers or a smaller rank is scattered to its columns on the device."""
        bank, slot = self._banks.at(slot)
        values = packed.values.to(bank.flat.device).to(bank.flat.dtype)
        if packed.scale != 1:
            values = torch.where(self._is_b(bank, packed.layout), values * packed.scale, values)
        if packed.layout != Layout(tuple(range(len(bank.spans))), bank.rank):
            row = torch.zeros_like(bank.flat[slot])
            values = row.index_copy_(0, self._positions(bank, packed.layout), values)
        bank.write(slot, values, rank=packed.layout.rank)

    def wipe(self, slot: int) -> None:
        """Write zeros, so that a deleted adapter does not stay in device memory."""
        bank, slot = self._banks.at(slot)
        bank.write(slot, torch.zeros_like(bank.flat[slot]), rank=1)


def _in_order(bank: LoraBank, spans: Sequence[int]) -> list[tuple[int, int]]:
    """The factors of these layers in the order of the bank's columns: number of the span, 0 for A or 1 for B."""
    starts = {(span, part): (bank.spans[span].a, bank.spans[span].b)[part].start for span in spans for part in (0, 1)}
    return sorted(starts, key=starts.__getitem__)


def positions(bank: LoraBank, layout: Layout) -> Tensor:
    """(n,) int64: the column of the bank's row for each of a packed adapter's values."""
    parts = []
    for number, part in _in_order(bank, layout.spans):
        span = bank.spans[number]
        columns, shape = ((span.a, span.a_shape), (span.b, span.b_shape))[part]
        own = torch.arange(columns.start, columns.stop).view(shape).narrow(part, 0, layout.rank)
        parts.append(own.flatten())
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)


def is_b(bank: LoraBank, layout: Layout) -> Tensor:
    """(n,) bool: which of a packed adapter's values belong to a B."""
    order = _in_order(bank, layout.spans)
    shapes = [(bank.spans[number].a_shape, bank.spans[number].b_shape)[part] for number, part in order]
    sizes = [math.prod(shape) // bank.rank * layout.rank for shape in shapes]
    return torch.tensor([bool(part) for _, part in order], dtype=torch.bool).repeat_interleave(
        torch.tensor(sizes, dtype=torch.int64)
    )
