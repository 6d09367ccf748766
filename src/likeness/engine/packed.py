"""An adapter in host memory, packed for its slot: one tensor of its values in its own rank and precision, unpadded."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..artifacts.adapter import check_base
from ..diffusion.lora import LoraBank
from ..types import Adapter, checked_rank

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
    scale: float  # alpha / r; goes into B on the device, so that the numbers here keep the precision of their file
    layout: Layout
    values: Tensor  # (n,), per layer A then B, float16 or float32 on the host

    @property
    def nbytes(self) -> int:
        return self.values.nbytes


def pack(adapter: Adapter, bank: LoraBank, base_sha256: str) -> PackedAdapter:
    """Check an adapter against the bank and flatten it.

    Raises:
        Mismatch: trained on another base.
        Mismatch: of a rank above the bank's.
        CorruptAdapter: layers that the bank lacks, or of another shape.
    """
    check_base(adapter.card, base_sha256)
    checked_rank(adapter.card.rank, bank.rank)
    numbers = {span.start: i for i, span in enumerate(bank.spans)}
    found = {
        numbers[bank.span_for(network, module, pair).start]: pair
        for network, pairs in adapter.weights.items()
        for module, pair in pairs.items()
    }
    ranks = {pair.A.shape[0] for pair in found.values()}
    rank = max(ranks, default=bank.rank)
    if len(ranks) > 1:  # not written by Likeness: padded to the bank's rank
        rank, spans = bank.rank, tuple(range(len(bank.spans)))
        return PackedAdapter(
            adapter.card.content_sha256, adapter.card.alpha / adapter.card.rank, Layout(spans, rank),
            bank.row_of(adapter.weights),
        )  # fmt: skip
    spans = tuple(sorted(found))
    flat = [part.reshape(-1) for span in spans for part in (found[span].A, found[span].B)]
    values = torch.from_numpy(np.concatenate(flat)) if flat else torch.empty(0)
    return PackedAdapter(
        adapter.card.content_sha256, adapter.card.alpha / adapter.card.rank, Layout(spans, rank), values
    )


class SlotWriter:
    """Writes packed adapters into the bank's slots. Used by the device thread only."""

    def __init__(self, bank: LoraBank) -> None:
        self._bank = bank
        self._whole = Layout(tuple(range(len(bank.spans))), bank.rank)
        device = bank.flat.device
        self._positions = lru_cache(LAYOUTS)(lambda layout: positions(bank, layout).to(device))
        self._is_b = lru_cache(LAYOUTS)(lambda layout: is_b(bank, layout).to(device))

    def write(self, slot: int, packed: PackedAdapter) -> None:
        """One row copy; an adapter of fewer layers or a smaller rank is scattered to its columns on the device."""
        values = packed.values.to(self._bank.flat.device).to(self._bank.flat.dtype)
        if packed.scale != 1:
            values = torch.where(self._is_b(packed.layout), values * packed.scale, values)
        if packed.layout != self._whole:
            row = torch.zeros_like(self._bank.flat[slot])
            values = row.index_copy_(0, self._positions(packed.layout), values)
        self._bank.write(slot, values, rank=packed.layout.rank)

    def wipe(self, slot: int) -> None:
        """Write zeros, so that a deleted adapter does not stay in device memory."""
        self._bank.write(slot, torch.zeros_like(self._bank.flat[slot]), rank=1)


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
