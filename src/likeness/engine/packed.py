"""An adapter as it waits in host memory: one tensor of its own numbers, in its own rank and precision, no padding.

Knows the bank's layout, nothing of files or of who may use what.
"""

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
    """Which layers an adapter has, as places of the bank in rising order, and its rank."""

    places: tuple[int, ...]
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
        WrongBase: trained on another base.
        RankTooLarge: of a rank above the bank's.
        CorruptAdapter: layers that the bank lacks, or of another shape.
    """
    check_base(adapter.card, base_sha256)
    checked_rank(adapter.card.rank, bank.rank)
    numbers = {place.start: i for i, place in enumerate(bank.places)}
    found = {
        numbers[bank.place_for(network, module, pair).start]: pair
        for network, pairs in adapter.weights.items()
        for module, pair in pairs.items()
    }
    ranks = {pair.A.shape[0] for pair in found.values()}
    rank = max(ranks, default=bank.rank)
    if len(ranks) > 1:  # no file of ours; the bank's own way pads them
        rank, places = bank.rank, tuple(range(len(bank.places)))
        return PackedAdapter(
            adapter.card.content_sha256, adapter.card.alpha / adapter.card.rank, Layout(places, rank),
            bank.row_of(adapter.weights),
        )  # fmt: skip
    places = tuple(sorted(found))
    flat = [part.reshape(-1) for place in places for part in (found[place].A, found[place].B)]
    values = torch.from_numpy(np.concatenate(flat)) if flat else torch.empty(0)
    return PackedAdapter(
        adapter.card.content_sha256, adapter.card.alpha / adapter.card.rank, Layout(places, rank), values
    )


class SlotWriter:
    """Puts packed adapters into the bank's slots. Belongs to the device thread."""

    def __init__(self, bank: LoraBank) -> None:
        self._bank = bank
        self._whole = Layout(tuple(range(len(bank.places))), bank.rank)
        device = bank.flat.device
        self._positions = lru_cache(LAYOUTS)(lambda layout: positions(bank, layout).to(device))
        self._is_b = lru_cache(LAYOUTS)(lambda layout: is_b(bank, layout).to(device))

    def write(self, slot: int, packed: PackedAdapter) -> None:
        """One row copy; a smaller adapter is spread over its columns on the device."""
        values = packed.values.to(self._bank.flat.device).to(self._bank.flat.dtype)
        if packed.scale != 1:
            values = torch.where(self._is_b(packed.layout), values * packed.scale, values)
        if packed.layout != self._whole:
            row = torch.zeros_like(self._bank.flat[slot])
            values = row.index_copy_(0, self._positions(packed.layout), values)
        self._bank.write(slot, values, rank=packed.layout.rank)

    def wipe(self, slot: int) -> None:
        """Zeros: what was deleted does not stay in device memory."""
        self._bank.write(slot, torch.zeros_like(self._bank.flat[slot]), rank=1)


def positions(bank: LoraBank, layout: Layout) -> Tensor:
    """(n,) int64: the column of the bank's row for each of a packed adapter's values."""
    parts = []
    for place in (bank.places[i] for i in layout.places):
        a_size = place.a_size // bank.rank * layout.rank
        middle = place.start + place.a_size
        rows = torch.arange(place.b_shape[0])[:, None] * bank.rank + torch.arange(layout.rank)  # (d_out, r)
        parts += [torch.arange(place.start, place.start + a_size), middle + rows.flatten()]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)


def is_b(bank: LoraBank, layout: Layout) -> Tensor:
    """(n,) bool: which of a packed adapter's values belong to a B."""
    sizes = [
        (bank.places[i].a_size // bank.rank * layout.rank, bank.places[i].b_shape[0] * layout.rank)
        for i in layout.places
    ]
    flags = torch.tensor([False, True]).repeat(len(sizes))
    return flags.repeat_interleave(torch.tensor(sizes).flatten())
