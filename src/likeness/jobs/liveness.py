"""Which workers are dead, judged by one observer of their heartbeats.

A heartbeat is a row with the database's clock, and that clock may be set: forward, so that every live worker looks
late, or back, so that a dead worker's last beat lies in the future. So a change of the row that the observer saw itself
counts more than the time in it, and durations are the observer's own, on a monotonic clock.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Beat:
    """A worker's row. Times in seconds, `beat_s` on the database's clock; 0 = the worker ended in order."""

    worker: str
    boot: str
    beat_s: float
    lease_s: float


@dataclass
class _Seen:
    beat: Beat
    since_s: float  # on the observer's clock
    has_changed: bool  # whether the observer saw this beat come


class Observer:
    """What one process has seen of all workers.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def dead(self, beats: Iterable[Beat], now_s: float) -> list[str]:
        """The workers whose jobs others may take over.

        Args:
            beats: of all workers, as they are now.
            now_s: the database's clock.
        """
        self._seen = {beat.worker: self._noted(beat) for beat in beats}
        return [worker for worker, seen in self._seen.items() if self._is_dead(seen, now_s)]

    def _noted(self, beat: Beat) -> _Seen:
        before = self._seen.get(beat.worker)
        if before is not None and before.beat == beat:
            return before
        return _Seen(beat, self._clock(), has_changed=before is not None)

    def _is_dead(self, seen: _Seen, now_s: float) -> bool:
        beat = seen.beat
        if beat.beat_s <= 0 or self._clock() - seen.since_s > beat.lease_s:
            return True
        # what was there at the first look can be judged by its time only: too old, or from the future
        return not seen.has_changed and abs(now_s - beat.beat_s) > beat.lease_s
