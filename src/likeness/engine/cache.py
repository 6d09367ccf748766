"""Which adapter lies in which slot: policy only, no weights.

The least recently used adapter leaves first; a pinned one, which a picture in the making needs, never.
"""

from collections import Counter, OrderedDict


class SlotCache:
    """Slots 1 to `slots` - 1; slot 0 is the bare base and never given away."""

    def __init__(self, slots: int) -> None:
        self._free = list(range(slots - 1, 0, -1))
        self._slots: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self._pins: Counter[str] = Counter()

    def acquire(self, key: str) -> int | None:
        """Pin the slot of an adapter, making room if need be; None when every slot is pinned by another.

        A key that was not `held` before has a slot now whose row the caller must write.
        """
        if key in self._slots:
            self._slots.move_to_end(key)
            self._pins[key] += 1
            return self._slots[key]
        if not self._free and not self._evict():
            return None
        slot = self._slots[key] = self._free.pop()
        self._pins[key] += 1
        return slot

    def release(self, key: str) -> None:
        """Take back one pin of `acquire`; the adapter stays in its slot until the room is needed."""
        self._pins[key] -= 1

    @property
    def held(self) -> tuple[str, ...]:
        """Adapters in slots, least recently used first."""
        return tuple(self._slots)

    def _evict(self) -> bool:
        oldest = next((key for key in self._slots if self._pins[key] <= 0), None)
        if oldest is None:
            return False
        self._free.append(self._slots.pop(oldest))
        del self._pins[oldest]
        return True
