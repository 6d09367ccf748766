"""An adapter in host memory, packed for its slot: one tensor of its values in its own rank and precision, unpadded."""

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
    values: Tensor  # (n,), per layer A then B, float16 or float32 on the host
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
    numbers = {span.start: i for i, span in enumerate(bank.spans)}
    found = {
        numbers[bank.span_for(network, module, pair).start]: pair
        for network, pairs in adapter.weights.items()
        for module, pair in pairs.items()
    }
    rank = max((pair.A.shape[0] for pair in found.values()), default=1)
    checked_rank(max(rank, adapter.card.rank), banks.large_rank)
    spans = tuple(sorted(found))
    flat = [part.reshape(-1) for span in spans for part in _of_rank(found[span], rank)]
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


def positions(bank: LoraBank, layout: Layout) -> Tensor:
    """(n,) int64: the column of the bank's row for each of a packed adapter's values."""
    parts = []
    for span in (bank.spans[i] for i in layout.spans):
        a_size = span.a_size // bank.rank * layout.rank
        middle = span.start + span.a_size
        rows = torch.arange(span.b_shape[0])[:, None] * bank.rank + torch.arange(layout.rank)  # (d_out, r)
        parts += [torch.arange(span.start, span.start + a_size), middle + rows.flatten()]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)


def is_b(bank: LoraBank, layout: Layout) -> Tensor:
    """(n,) bool: which of a packed adapter's values belong to a B."""
    sizes = [
        (bank.spans[i].a_size // bank.rank * layout.rank, bank.spans[i].b_shape[0] * layout.rank) for i in layout.spans
    ]
    flags = torch.tensor([False, True]).repeat(len(sizes))
    return flags.repeat_interleave(torch.tensor(sizes).flatten())
