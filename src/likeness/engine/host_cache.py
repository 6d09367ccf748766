"""Adapters in host memory: LRU eviction by bytes; single-flight loads on a few threads.

Adapters needed by queued requests are pinned. New loads start only while pinned bytes are below the budget; those of
the oldest request are always allowed, so that the queue cannot deadlock: a request needs all its adapters at once.

Every method is called with the owner's lock held; `load` runs without it. An adapter that is in a slot needs no copy
here.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from .packed import PackedAdapter

THREADS = 4  # a load is mostly waiting for the store


class HostCache:
    """Host memory for adapters.

    Args:
        load: called on a loader thread; an exception fails the requests that wait for the key.
        locked: takes the owner's lock, to record the end of a load.
        budget_bytes: the limit; the adapters of the oldest request and one load may exceed it.
        first: the keys of the oldest request that waits.
        is_active: whether a key is in a slot.
        failed: called with the key and the error of a load that failed, under the lock.
        loaded: called with the seconds of a load that succeeded, under the lock.
    """

    def __init__(
        self, load: Callable[[str], PackedAdapter], locked: Callable[[], AbstractContextManager[None]], *,
        budget_bytes: int, is_active: Callable[[str], bool], first: Callable[[], Collection[str]],
        failed: Callable[[str, Exception], None], loaded: Callable[[float], None],
    ) -> None:  # fmt: skip
        self._load, self._locked, self._budget = load, locked, budget_bytes
        self._is_active, self._first, self._failed, self._loaded = is_active, first, failed, loaded
        self._kept: OrderedDict[str, PackedAdapter] = OrderedDict()  # least recently used first
        self._wanted: Counter[str] = Counter()  # key -> waiting requests, in the order of their first arrival; pinned
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

    @property
    def loading(self) -> int:
        """Loads under way."""
        return len(self._loading)

    def get(self, key: str) -> PackedAdapter | None:
        """The adapter, marked as the most recently used; None if it is not in host memory."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def want(self, key: str) -> None:
        """Pin the adapter for a request that waits, and load it if it is absent."""
        self._wanted[key] += 1
        self.start_loads()

    def unwant(self, key: str) -> None:
        """Undo one `want`; `start_loads` uses the room."""
        self._wanted[key] -= 1
        if self._wanted[key] <= 0:
            del self._wanted[key]
            self._trim()

    def forget(self, key: str) -> None:
        """Drop the adapter; the result of a load under way is discarded and loaded again."""
        if key in self._kept:
            self.nbytes -= self._kept.pop(key).nbytes
        if key in self._loading:
            self._loading[key] = True
        self.start_loads()

    def start_loads(self) -> None:
        """Start the loads of absent pinned adapters, first come first served, as threads and budget allow."""
        if len(self._loading) >= THREADS:
            return
        held = sum(self._kept[key].nbytes for key in self._wanted if key in self._kept)
        first = [key for key in self._first() if key in self._wanted]
        for key in [*first, *self._wanted]:
            if len(self._loading) >= THREADS or (held >= self._budget and held > 0 and key not in first):
                return
            if key not in self._kept and key not in self._loading and not self._is_active(key):
                self._loading[key] = False
                self._pool.submit(self._fetch, key)

    def close(self) -> None:
        """Start no more loads and wait for those under way. Called without the lock."""
        self._pool.shutdown(cancel_futures=True)

    def _fetch(self, key: str) -> None:
        started_s = time.perf_counter()
        packed: PackedAdapter | None = None
        error: Exception | None = None
        try:
            packed = self._load(key)
        except Exception as raised:  # fails the requests of this adapter only
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
