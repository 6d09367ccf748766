"""Adapters in host memory: least recently used leaves first, by bytes; loads are single-flight, on a few threads.

What a waiting request needs is wanted, and stays once it is there. So that the budget holds all the same, loads
start only while the wanted adapters are below it; there is always at least one on its way.

Every method is called with the owner's lock held; `load` runs without it. Does not know what an adapter is but its
bytes, nor what a slot is but that a key can be active, and then needs no copy here.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from .packed import PackedAdapter

THREADS = 4  # a load is mostly waiting for the store

LoadPacked = Callable[[str], PackedAdapter]


class HostCache:
    """Host memory for adapters.

    Args:
        load: called on a loader thread; whatever it raises becomes the answer of those who want the key.
        locked: the owner's lock, to be held while a load's end is written down.
        budget_bytes: kept at most, but for what is wanted and was larger than thought.
        is_active: whether a key lies in a slot.
        failed: told the key and the error, under the lock.
        loaded: told the seconds of every load that succeeded, under the lock.
    """

    def __init__(
        self, load: LoadPacked, locked: Callable[[], AbstractContextManager[None]], *, budget_bytes: int,
        is_active: Callable[[str], bool], failed: Callable[[str, Exception], None], loaded: Callable[[float], None],
    ) -> None:  # fmt: skip
        self._load, self._locked, self._budget = load, locked, budget_bytes
        self._is_active, self._failed, self._loaded = is_active, failed, loaded
        self._kept: OrderedDict[str, PackedAdapter] = OrderedDict()  # least recently used first
        self._wanted: Counter[str] = Counter()  # key -> waiting requests, in the order they first came
        self._loading: dict[str, bool] = {}  # key -> whether it was forgotten meanwhile
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="likeness-load")
        self.nbytes = 0
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    @property
    def held(self) -> tuple[str, ...]:
        """Adapters in host memory, least recently used first."""
        return tuple(self._kept)

    def get(self, key: str) -> PackedAdapter | None:
        """The adapter, as the most recently used one; None where it is not here."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def want(self, key: str) -> None:
        """A request that needs this adapter waits."""
        self._wanted[key] += 1
        self.start_loads()

    def unwant(self, key: str) -> None:
        """It waits no longer; `start_loads` makes use of the room."""
        self._wanted[key] -= 1
        if self._wanted[key] <= 0:
            del self._wanted[key]
            self._trim()

    def forget(self, key: str) -> None:
        """Drop the adapter; what is being loaded now is out of date."""
        if key in self._kept:
            self.nbytes -= self._kept.pop(key).nbytes
        if key in self._loading:
            self._loading[key] = True
        self.start_loads()

    def start_loads(self) -> None:
        """Begin what is wanted and absent, first come first served, as far as threads and budget allow."""
        if len(self._loading) >= THREADS:
            return
        held = sum(self._kept[key].nbytes for key in self._wanted if key in self._kept)
        for key in self._wanted:
            if len(self._loading) >= THREADS or (held >= self._budget and held > 0):
                return
            if key not in self._kept and key not in self._loading and not self._is_active(key):
                self._loading[key] = False
                self._pool.submit(self._fetch, key)

    def close(self) -> None:
        """Start nothing more and wait for what is under way. Called without the lock."""
        self._pool.shutdown(cancel_futures=True)

    def _fetch(self, key: str) -> None:
        started_s = time.perf_counter()
        packed: PackedAdapter | None = None
        error: Exception | None = None
        try:
            packed = self._load(key)
        except Exception as raised:  # whatever is wrong with one adapter is the answer to its requests alone
            error = raised
        with self._locked():
            is_stale = self._loading.pop(key)
            if packed is not None and not is_stale:
                self._kept[key] = packed
                self.nbytes += packed.nbytes
                self._loaded(time.perf_counter() - started_s)
                self._trim()
            elif error is not None and not is_stale:
                self._failed(key, error)
            self.start_loads()

    def _trim(self) -> None:
        while self.nbytes > self._budget:
            oldest = next((key for key in self._kept if key not in self._wanted), None)
            if oldest is None:
                return
            self.nbytes -= self._kept.pop(oldest).nbytes
            self.evictions += 1
