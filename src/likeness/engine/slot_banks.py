"""The engine's slots: a bank of the usual rank, and a few slots for adapters of larger rank.

Every slot of a bank has the bank's rank, so a bank for the largest rank would multiply the memory of all slots. The
slots for larger adapters are a bank of their own. It is allocated when the first of them comes, with one slot, in which
they take turns; an image that combines several of them adds slots. A base can have any number of banks: a row that one
of them has no adapter for is slot 0 there, which adds nothing.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor

from ..diffusion.base import BaseModel
from ..diffusion.devices import memory_for
from ..diffusion.lora import BASE_SLOT, LoraBank


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
        is_large = slots >= self.usual.slots
        with ExitStack() as routed:
            if not is_large.all():
                routed.enter_context(self.usual.route(slots.where(~is_large, BASE_SLOT), scales))
            if is_large.any():
                own = (slots - self.usual.slots + 1).where(is_large, BASE_SLOT)
                routed.enter_context(self.at(int(slots.max()))[0].route(own, scales))
            yield

    def close(self) -> None:
        """Remove the hooks; the base is as before."""
        for bank in (self.usual, self._large):
            if bank is not None:
                bank.close()
