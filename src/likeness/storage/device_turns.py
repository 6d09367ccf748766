"""A device that engine and training share: the engine goes first. Between the processes of one machine, by file locks.

    HOME/devices/<device>.engines    locked, shared, by each engine while it has requests
    HOME/devices/<device>.steps      locked, shared, by each training during a step

Each side raises its flag before it looks at the other's, so none overlooks the other: a step that has begun is waited
for, and no step begins while an engine has requests. A process that is killed releases its locks.

**Policy.** A step waits at most `wait_s`; then one step is taken beside the engine, so that a training under constant
load goes on slowly instead of never. Engines do not wait for each other, and trainings neither.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .files import make_private

FOLDER = "devices"  # in the home folder
LOOK_S = 0.002  # between two looks of an engine at a step that is being taken
LONGEST_STEP_S = 60.0  # a step that takes longer hangs, and is not waited for


class _Flag:
    """A file whose lock is a flag between processes."""

    def __init__(self, file: Path) -> None:
        make_private(file.parent)
        self._handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)

    def up(self) -> None:
        """Set the flag; waits for processes that are looking at it, for microseconds."""
        fcntl.flock(self._handle, fcntl.LOCK_SH)

    def down(self) -> None:
        fcntl.flock(self._handle, fcntl.LOCK_UN)

    def is_up(self) -> bool:
        """Whether others hold it, or look at it; this process must not hold it."""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._handle, fcntl.LOCK_UN)
        return False

    def close(self) -> None:
        """Releases the lock. No effect a second time."""
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = -1


class EngineTurns:
    """The engine's side. `want` and `release` may be called from any thread, `begin` from the device thread.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, home: Path, device: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engines, self._steps = (_Flag(home / FOLDER / f"{device}.{name}") for name in ("engines", "steps"))
        self._clock = clock
        self._lock = threading.Lock()
        self._is_wanted = self._is_clear = False

    def want(self) -> None:
        """Announce requests: no step begins from now on. No effect if they are announced already."""
        with self._lock:
            if not self._is_wanted:
                self._engines.up()
                self._is_wanted = True

    def begin(self) -> None:
        """Wait for the end of a step that had begun before."""
        end_s = self._clock() + LONGEST_STEP_S
        while not self._has_device():
            if self._clock() >= end_s:
                return
            time.sleep(LOOK_S)

    def release(self) -> None:
        """Announce that there are no requests."""
        with self._lock:
            if self._is_wanted:
                self._engines.down()
            self._is_wanted = self._is_clear = False

    def close(self) -> None:
        with self._lock:
            self._is_wanted = self._is_clear = False
        for flag in (self._engines, self._steps):
            flag.close()

    def _has_device(self) -> bool:
        with self._lock:
            if not self._is_wanted:  # all requests were cancelled meanwhile
                return True
            self._is_clear = self._is_clear or not self._steps.is_up()
            return self._is_clear


class TrainingTurns:
    """The training's side, for one thread.

    Args:
        wait_s: for an engine that has requests; 0: not at all.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, home: Path, device: str, *, wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._engines, self._steps = (_Flag(home / FOLDER / f"{device}.{name}") for name in ("engines", "steps"))
        self._wait_s, self._clock = wait_s, clock
        self._waits_since_s: float | None = None

    def begin(self) -> bool:
        """Whether a step may be taken now; then `end` must follow it."""
        self._steps.up()
        if not self._engines.is_up():
            self._waits_since_s = None
            return True
        now_s = self._clock()
        if self._waits_since_s is None:
            self._waits_since_s = now_s
        if now_s - self._waits_since_s >= self._wait_s:
            self._waits_since_s = now_s
            return True
        self._steps.down()
        return False

    def end(self) -> None:
        """The step is over. No effect without one."""
        self._steps.down()

    def close(self) -> None:
        for flag in (self._engines, self._steps):
            flag.close()
