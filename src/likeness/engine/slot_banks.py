"""The engine's slots: a bank of the usual rank, and a few slots for adapters of larger rank.

Every slot of a bank has the bank's rank, so a bank for the largest rank would multiply the memory of all slots. The
slots for larger adapters are a bank of their own. It is allocated when the first of them comes, with one slot, in which
they take turns; an image that combines several of them adds slots. A base can have any number of banks: a row that one
of them has no adapter for is slot 0 there, which adds nothing.

With compiled blocks, their layers take the factors of both banks together (`diffusion.compiled`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..diffusion.base import BaseModel
from ..diffusion.compiled import CompiledBlocks
from ..diffusion.devices import memory_for
from ..diffusion.lora import BASE_SLOT, Joined, LoraBank, side_by_side


class SlotBanks:
    """Slots 0 to `slots` - 1 of the usual bank; from slot `slots` on, those for larger adapters.

    Args:
        slots: of the usual bank, slot 0 included.
        rank: of the usual bank.
        large_rank: of the slots for larger adapters; at most `rank`: there are none.
    """

    def __init__(self, base: BaseModel, *, slots: int, rank: int, large_rank: int) -> None:
        self._base, self.rank, self.large_rank = base, rank, max(rank, large_rank)
        with memory_for(f"{slots} slots of rank {rank}", hint="set LIKENESS_SLOTS or LIKENESS_RANK lower"):
            self.usual = LoraBank(base.networks, base.family.targets, slots=slots, rank=rank)
        self._large: LoraBank | None = None
        self._compiled: CompiledBlocks | None = None

    def compile(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """From now on routed forward passes use compiled blocks, which are compiled when they are first used."""
        self._compiled = CompiledBlocks(self._base, backend=backend)

    def at(self, slot: int) -> tuple[LoraBank, int]:
        """The bank of a slot, and the slot's number there."""
        if slot < self.usual.slots:
            return self.usual, slot
        own = slot - self.usual.slots + 1
        if self._large is None:
            self._large = LoraBank(self._base.networks, self._base.family.targets, slots=2, rank=self.large_rank)
        self._large.grow(own + 1)
        return self._large, own

    @contextmanager
    def route(self, slots: Tensor, scales: Tensor | None = None) -> Iterator[None]:
        """As `LoraBank.route`, over the slots of both banks."""
        own = self._own_slots(slots)
        with ExitStack() as routed:
            for bank, mine in own:
                routed.enter_context(bank.route(mine, scales))
            if self._compiled is not None:
                wide = torch.ones(slots.shape) if scales is None else scales
                key = slots.tolist(), wide.tolist(), *((bank.slots, bank.flat._version) for bank, _ in own)
                routed.enter_context(self._compiled.routed(key, partial(self._joined, own, wide)))
            yield

    def _own_slots(self, slots: Tensor) -> list[tuple[LoraBank, Tensor]]:
        """The banks that rows need, with the rows' slots there."""
        is_large = slots >= self.usual.slots
        own = [] if is_large.all() else [(self.usual, slots.where(~is_large, BASE_SLOT))]
        if is_large.any():
            large, _ = self.at(int(slots.max()))
            own.append((large, (slots - self.usual.slots + 1).where(is_large, BASE_SLOT)))
        return own

    def _joined(self, own: Sequence[tuple[LoraBank, Tensor]], scales: Tensor) -> dict[str, Joined]:
        """The factors of compiled blocks: those of both banks joined along the rank."""
        network = self._base.adapted[0]
        found = [bank.joined(network, slots.view(len(slots), -1), scales.view(len(slots), -1)) for bank, slots in own]
        pairs = {layer: [one[layer] for one in found] for layer in found[0]}
        return {
            layer: (side_by_side([A for A, _ in mine], 1), side_by_side([B for _, B in mine], 2))
            for layer, mine in pairs.items()
        }

    def close(self) -> None:
        """Remove hooks and compiled blocks; the base is as before."""
        for one in (self.usual, self._large, self._compiled):
            if one is not None:
                one.close()
