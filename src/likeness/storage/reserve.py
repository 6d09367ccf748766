"""Disk space reserved for writes that must succeed on a full disk: a file that is removed when its space is needed.

Deleting needs free space, because a database writes to its log before it overwrites rows; so does the state of a
training whose result cannot be published.
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
ENOUGH = 4  # times BYTES
_CHUNK = 1 << 20

T = TypeVar("T")


@dataclass(frozen=True)
class Reserve:
    """One file in a folder, never read.

    Args:
        bytes: its size.
        enough: with less than so many times its size free, no reserve is created.
    """

    folder: Path
    bytes: int = BYTES
    enough: int = ENOUGH

    @property
    def _path(self) -> Path:
        return self.folder / FILE_NAME

    def keep(self) -> bool:
        """Write the file if it is missing and there is space; returns whether it exists."""
        with suppress(OSError):
            if not self._path.exists() and shutil.disk_usage(self.folder).free >= self.enough * self.bytes:
                staged = self._path.with_suffix(".new")
                try:
                    with staged.open("wb") as file:
                        for start in range(0, self.bytes, _CHUNK):  # some file systems store zeros without using space
                            file.write(os.urandom(min(_CHUNK, self.bytes - start)))
                    staged.rename(self._path)
                finally:
                    staged.unlink(missing_ok=True)
        return self._path.exists()

    def give(self) -> bool:
        """Remove the reserve; returns whether there was one."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def used_by(self, work: Callable[[], T]) -> T:
        """Run something idempotent; if storage refuses it, free the reserve and run it again.

        Raises:
            StorageUnavailable: there is no reserve, or its space was not enough.
        """
        try:
            return work()
        except StorageUnavailable:
            if not self.give():
                raise
        done = work()
        self.keep()
        return done
