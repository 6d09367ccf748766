"""Which adapter is in which slot of the bank: LRU eviction; the slots of running requests are pinned. No weights."""

from collections import Counter, OrderedDict


class SlotCache:
    """Slots 1 to `slots` - 1, and slot `slots` for large adapters; slot 0 is the bare base."""

    def __init__(self, slots: int) -> None:
        self._free, self._large = list(range(slots - 1, 0, -1)), slots
        self._free_large = [slots]
        self._slots: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self._pins: Counter[int] = Counter()
        self._forgotten: set[int] = set()  # pinned slots whose adapter was forgotten
        self.evictions = 0

    def acquire(self, key: str, *, is_large: bool = False) -> int | None:
        """Pin the slot of an adapter, evicting another if needed; None if every slot of its kind is pinned.

        If the key was not `held` before, the caller must write the slot.
        """
        free = self._free_large if is_large else self._free
        if key in self._slots:
            self._slots.move_to_end(key)
        elif free or self._evict(is_large):
            self._slots[key] = free.pop()
        else:
            return None
        slot = self._slots[key]
        self._pins[slot] += 1
        return slot

    def release(self, slot: int) -> bool:
        """Undo one `acquire`; the adapter stays until its slot is needed.

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
        """Slots that adapters can be put into, in use or not, without that for large ones."""
        return len(self._free) + sum(slot != self._large for slot in self._slots.values())

    @property
    def pinned(self) -> int:
        """Slots in use."""
        return len(self._pins)

    def _free_again(self, slot: int) -> None:
        (self._free_large if slot == self._large else self._free).append(slot)

    def _evict(self, is_large: bool) -> bool:
        mine = (key for key, slot in self._slots.items() if (slot == self._large) == is_large and self._pins[slot] <= 0)
        oldest = next(mine, None)
        if oldest is None:
            return False
        self._free_again(self._slots.pop(oldest))
        self.evictions += 1
        return True
