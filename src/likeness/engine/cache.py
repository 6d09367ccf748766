"""Which adapter lies in which slot: policy only, no weights.

The least recently used adapter leaves first; a pinned one, which a picture in the making needs, never.
"""

from collections import Counter, OrderedDict


class SlotCache:
    """Slots 1 to `slots` - 1; slot 0 is the bare base and never given away."""

    def __init__(self, slots: int) -> None:
        self._free = list(range(slots - 1, 0, -1))
        self._slots: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self._pins: Counter[int] = Counter()
        self._forgotten: set[int] = set()  # slots in use whose adapter nobody may ask for again
        self.evictions = 0

    def acquire(self, key: str) -> int | None:
        """Pin the slot of an adapter, making room if need be; None when every slot is pinned by another.

        A key that was not `held` before has a slot now whose row the caller must write.
        """
        if key in self._slots:
            self._slots.move_to_end(key)
        elif self._free or self._evict():
            self._slots[key] = self._free.pop()
        else:
            return None
        slot = self._slots[key]
        self._pins[slot] += 1
        return slot

    def release(self, slot: int) -> bool:
        """Take back one pin of `acquire`; the adapter stays until the room is needed.

        Returns:
            whether the adapter was forgotten meanwhile and this was its last pin: its row shall be wiped.
        """
        self._pins[slot] -= 1
        if self._pins[slot] > 0:
            return False
        del self._pins[slot]
        if slot not in self._forgotten:
            return False
        self._forgotten.remove(slot)
        self._free.append(slot)
        return True

    def forget(self, key: str) -> int | None:
        """Let go of an adapter: at once where it is not pinned, else at its last `release`.

        Returns:
            the slot whose row shall be wiped now; None if the adapter is not held, or is in use.
        """
        slot = self._slots.pop(key, None)
        if slot is None:
            return None
        if self._pins[slot] > 0:
            self._forgotten.add(slot)
            return None
        self._free.append(slot)
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
        """Slots that adapters can be put into, in use or not."""
        return len(self._free) + len(self._slots)

    @property
    def pinned(self) -> int:
        """Slots in use."""
        return len(self._pins)

    def _evict(self) -> bool:
        oldest = next((key for key, slot in self._slots.items() if self._pins[slot] <= 0), None)
        if oldest is None:
            return False
        self._free.append(self._slots.pop(oldest))
        self.evictions += 1
        return True
