"""Room on the home's disk that is kept for deletions.

Deleting needs room: a database writes what it deletes to its log before it overwrites it. On a disk without any the
people whose data fill it could not be forgotten. So a file of a few megabytes lies in the home, and goes when a
deletion needs its room.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..errors import StorageUnavailable

FILE_NAME = "reserve"
BYTES = 8 << 20  # more than the logs of both databases, which SQLite empties at 4 MB each
ENOUGH = 4  # times BYTES: with less than that the disk's last room is left to others

T = TypeVar("T")


@dataclass(frozen=True)
class Reserve:
    """One file in a folder. Nothing reads it."""

    folder: Path

    @property
    def _path(self) -> Path:
        return self.folder / FILE_NAME

    def keep(self) -> bool:
        """Write the file where it is missing and the disk has room; whether it is there."""
        with suppress(OSError):
            if not self._path.exists() and shutil.disk_usage(self.folder).free >= ENOUGH * BYTES:
                staged = self._path.with_suffix(".new")
                try:
                    staged.write_bytes(os.urandom(BYTES))  # zeros take no room on some file systems
                    staged.rename(self._path)
                finally:
                    staged.unlink(missing_ok=True)
        return self._path.exists()

    def _give(self) -> bool:
        """Whether there was a reserve; its room is free now."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def used_by(self, deletion: Callable[[], T]) -> T:
        """Run a deletion that can be repeated; where the storage refuses it, again with the reserve's room.

        Raises:
            StorageUnavailable: there is no reserve, or its room did not help.
        """
        try:
            return deletion()
        except StorageUnavailable:
            if not self._give():
                raise
        done = deletion()
        self.keep()
        return done
