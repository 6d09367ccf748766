"""Housekeeping that a process repeats for as long as it runs: messages, retention, recovery, memory.

A chore never ends because of one run that failed: an unexpected error is logged and counted, and the next run comes
later. Each chore stands alone, so that one that always fails holds up no other.
"""

import logging
import time
from collections.abc import Callable

from ..errors import StorageUnavailable

LONGEST_PAUSE_S = 60.0

log = logging.getLogger("likeness.chores")


class Chore:
    """One thing that is done again and again.

    Args:
        name: for the log and the metrics.
        work: one run. StorageUnavailable means: try again in the next run.
        every_s: seconds between two runs; doubled after every unexpected error, up to a minute.
        failed: called with the name at every unexpected error.
        clock: seconds, monotonic.
    """

    def __init__(
        self, name: str, work: Callable[[], object], *, every_s: float,
        failed: Callable[[str], None] = lambda name: None, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.name, self._work, self._every_s = name, work, every_s
        self._failed, self._clock = failed, clock
        self.pause_s = every_s  # until the next run
        self._due_s = clock()

    @property
    def wait_s(self) -> float:
        """Seconds until the next run is due; 0 where it is."""
        return max(0.0, self._due_s - self._clock())

    @property
    def is_due(self) -> bool:
        return self.wait_s <= 0.0

    def run(self) -> bool:
        """Do it once; whether it was done. Raises nothing."""
        is_done, self.pause_s = False, max(self._every_s, min(2 * self.pause_s, LONGEST_PAUSE_S))
        try:
            self._work()
        except StorageUnavailable:
            self.pause_s = self._every_s
        except Exception:
            log.exception("the background task %s failed; its next run is in %.0f s", self.name, self.pause_s)
            self._failed(self.name)
        else:
            is_done, self.pause_s = True, self._every_s
        self._due_s = self._clock() + self.pause_s
        return is_done
