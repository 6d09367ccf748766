"""Disk space reserved for deletions.

Deleting needs free space: a database writes to its log before it overwrites rows. On a full disk, data could not be
deleted. A file of a few megabytes in the home folder is therefore removed when a deletion needs its space.
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
ENOUGH = 4  # times BYTES: with less free space no reserve is created

T = TypeVar("T")


@dataclass(frozen=True)
class Reserve:
    """One file in a folder, never read."""

    folder: Path

    @property
    def _path(self) -> Path:
        return self.folder / FILE_NAME

    def keep(self) -> bool:
        """Write the file if it is missing and there is space; returns whether it exists."""
        with suppress(OSError):
            if not self._path.exists() and shutil.disk_usage(self.folder).free >= ENOUGH * BYTES:
                staged = self._path.with_suffix(".new")
                try:
                    staged.write_bytes(os.urandom(BYTES))  # some file systems store zeros without using space
                    staged.rename(self._path)
                finally:
                    staged.unlink(missing_ok=True)
        return self._path.exists()

    def _give(self) -> bool:
        """Remove the reserve; returns whether there was one."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def used_by(self, deletion: Callable[[], T]) -> T:
        """Run an idempotent deletion; if storage refuses it, free the reserve and run it again.

        Raises:
            StorageUnavailable: there is no reserve, or its space was not enough.
        """
        try:
            return deletion()
        except StorageUnavailable:
            if not self._give():
                raise
        done = deletion()
        self.keep()
        return done
