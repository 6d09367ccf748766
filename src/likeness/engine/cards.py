"""Adapters that are files of this machine, named by a key: hash of the weights and path. What an archive engine loads.

A card is kept from the first request, or the check before it, until its model is released.
"""

from collections import OrderedDict
from pathlib import Path
from threading import Lock

from ..artifacts import bundle, tensors
from ..types import Adapter, AdapterCard

MOST = 4096


def load(key: str) -> Adapter:
    """The adapter of a key; what an engine behind a LocalServer loads with.

    Raises:
        CorruptAdapter: no regular file, damaged, or other weights than those that were asked for.
    """
    sha256, content = _read(key)
    return bundle.reopen(content, sha256)


class Cards:
    """The cards of keys, each read once; the least recently used leaves first. From any thread.

    Args:
        most: kept at once.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most, self._lock = most, Lock()
        self._kept: OrderedDict[str, AdapterCard] = OrderedDict()

    def of(self, key: str) -> AdapterCard:
        """The card of a key's adapter, after a check of the whole file. Raises as `load`."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        sha256, content = _read(key)
        bundle.decode(content)
        card = bundle.reopen(content, sha256).card
        with self._lock:
            self._kept[key] = card
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return card

    def release(self, key: str) -> None:
        """Forget a card: whoever asks next, the file is read and checked again."""
        with self._lock:
            self._kept.pop(key, None)

    def __len__(self) -> int:
        return len(self._kept)


def _read(key: str) -> tuple[str, bytes]:
    sha256, _, path = key.partition("/")
    return sha256, tensors.read_bytes(Path(f"/{path}"), limit=tensors.MAX_FILE_BYTES)
