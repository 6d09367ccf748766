"""Measurements of the photographs of the subjects that are being worked on, so that a photograph is measured once.

Every upload is judged together with the subject's earlier photographs. Without this memory, twelve uploads of one
photograph each would measure 78 photographs. It has pixels, so it is emptied when a subject is deleted or left alone.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..photos.checks import Examined
    from ..types import Kind

    Memory = MutableMapping[tuple[str, Kind, bool], Examined]

MOST_SUBJECTS = 4  # a dozen photographs of the largest size take 250 MB
IDLE_S = 300.0


@dataclass(frozen=True)
class ExaminedPhotos:
    """The measurements by tenant and subject; safe to use from several threads."""

    clock: Callable[[], float] = time.monotonic
    _sets: "OrderedDict[tuple[str, str], tuple[float, Memory]]" = field(default_factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def of(self, tenant: str, name: str) -> "Memory":
        """The memory of one subject, for `photos.check`."""
        with self._lock:
            _, memory = self._sets.pop((tenant, name), (0.0, {}))
            self._sets[tenant, name] = self.clock(), memory
            while len(self._sets) > MOST_SUBJECTS:
                self._sets.popitem(last=False)
            return memory

    def drop(self, tenant: str, name: str) -> None:
        """Forget a subject, or one of its photographs: the rest is measured again."""
        with self._lock:
            self._sets.pop((tenant, name), None)

    def drop_idle(self) -> None:
        """Forget the subjects that were not used in the last minutes."""
        with self._lock:
            for key, (used_s, _) in list(self._sets.items()):
                if self.clock() - used_s > IDLE_S:
                    del self._sets[key]
