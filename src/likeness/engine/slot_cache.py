"""Which adapter is in which slot of the bank: LRU eviction; the slots of running requests are pinned. No weights."""

from collections import Counter, OrderedDict
from collections.abc import Collection, Sequence


class SlotCache:
    """Slots 1 to `slots` - 1, and from `slots` on those for large adapters; slot 0 is the bare base.

    There is one slot for large adapters, or as many as the largest number of them that one request had.
    """

    def __init__(self, slots: int) -> None:
        self._free, self._first_large = list(range(slots - 1, 0, -1)), slots
        self._free_large = [slots]
        self._large_slots = 1
        self._slots: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self._pins: Counter[int] = Counter()
        self._forgotten: set[int] = set()  # pinned slots whose adapter was forgotten
        self.evictions = 0

    def acquire(self, keys: Sequence[str], *, large: Collection[str] = ()) -> tuple[int, ...] | None:
        """Pin the slots of a request's adapters, evicting others if needed; None, and no change, if they do not fit.

        The caller must write the slots of the keys that were not `held` before.

        Args:
            keys: different ones.
            large: those of them that need a large slot.
        """
        here = [key for key in keys if key in self._slots]
        absent = [key for key in keys if key not in self._slots]
        count = sum(key in large for key in absent) + sum(self._slots[key] >= self._first_large for key in here)
        while self._large_slots < count:
            self._free_large.append(self._first_large + self._large_slots)
            self._large_slots += 1
        for is_large in (False, True):
            if sum((key in large) == is_large for key in absent) > self._room(is_large, but=here):
                return None
        for key in here:  # first, so that the others do not evict them
            self._pins[self._slots[key]] += 1
        for key in absent:
            free = self._free_large if key in large else self._free
            if not free:
                self._evict(key in large)
            self._slots[key] = free.pop()
            self._pins[self._slots[key]] += 1
        for key in keys:
            self._slots.move_to_end(key)
        return tuple(self._slots[key] for key in keys)

    def release(self, slot: int) -> bool:
        """Undo one pin of `acquire`; the adapter stays until its slot is needed.

        Returns:
            whether the slot must be wiped: the adapter was forgotten meanwhile and this was its last pin.
        """
        self._pins[slot] -= 1
        if self._pins[slot] > 0:
            return False
        del self._pins[slot]
        if slot not in self._forgotten:
            return False
        self._forgotten.remove(slot)
        self._free_again(slot)
        return True

    def forget(self, key: str) -> int | None:
        """Remove an adapter: at once if it is not pinned, else at its last `release`.

        Returns:
            the slot that must be wiped now; None if the adapter is not held, or is pinned.
        """
        slot = self._slots.pop(key, None)
        if slot is None:
            return None
        if self._pins[slot] > 0:
            self._forgotten.add(slot)
            return None
        self._free_again(slot)
        return slot

    def __contains__(self, key: object) -> bool:
        return key in self._slots

    @property
    def held(self) -> tuple[str, ...]:
        """Adapters in slots, least recently used first."""
        return tuple(self._slots)

    def slot_of(self, key: str) -> int:
        return self._slots[key]

    @property
    def usable(self) -> int:
        """Slots that adapters can be put into, in use or not, without those for large ones."""
        return len(self._free) + sum(slot < self._first_large for slot in self._slots.values())

    @property
    def pinned(self) -> int:
        """Slots in use."""
        return len(self._pins)

    def _free_again(self, slot: int) -> None:
        (self._free_large if slot >= self._first_large else self._free).append(slot)

    def _idle(self, is_large: bool) -> list[str]:
        """Adapters in slots of a kind that can be evicted, least recently used first."""
        return [
            key
            for key, slot in self._slots.items()
            if (slot >= self._first_large) == is_large and self._pins[slot] <= 0
        ]

    def _room(self, is_large: bool, but: Sequence[str]) -> int:
        """Slots of a kind that are free or can be, without those of `but`."""
        return len(self._free_large if is_large else self._free) + len(set(self._idle(is_large)) - set(but))

    def _evict(self, is_large: bool) -> None:
        self._free_again(self._slots.pop(self._idle(is_large)[0]))
        self.evictions += 1
