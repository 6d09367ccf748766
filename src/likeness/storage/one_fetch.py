"""An object that several processes of a node need at the same time crosses the network once.

    HOME/fetching/<hash of the key>/    locked, shared, by each process that needs the object; the last one deletes it
        lock                            locked by the one that fetches, and by the others while they read
        content                         complete, because it is renamed to this name

So nothing stays on the disk longer than it is needed, and a deletion need not look here. A process that is killed
releases its locks: another one fetches, and what it left is deleted at the next start on this node.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from .files import make_private, opened
from .objects import FileObjects, Objects

FOLDER = "fetching"  # in the home folder


class Reads(Protocol):
    """The part of `Objects` that reads."""

    def get(self, key: str) -> bytes: ...
    def has(self, key: str) -> bool: ...


def shared_get(objects: Objects, home: Path) -> Callable[[str], bytes]:
    """`objects.get`, with one fetch for all processes of this node. Objects in a folder are in its page cache anyway.

    Raises:
        OSError: the home folder cannot be written.
    """
    return objects.get if isinstance(objects, FileObjects) else OneFetch(objects, home).get


class OneFetch:
    """Fetches for the processes of one home folder. Raises OSError: it cannot be written."""

    def __init__(self, objects: Reads, home: Path) -> None:
        self._objects, self._folder = objects, make_private(home / FOLDER)
        for place in self._folder.iterdir():
            with suppress(FileNotFoundError), opened(place) as handle:
                _drop_unless_wanted(place, handle)

    def get(self, key: str) -> bytes:
        """As `Objects.get`. The store is asked whether the object is still there if another process fetched it."""
        with self._wanted(key) as place, opened(place / "lock", os.O_RDWR | os.O_CREAT) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            content = place / "content"
            if content.exists() and self._objects.has(key):
                return content.read_bytes()
            fetched = self._objects.get(key)
            with suppress(OSError):  # a full disk, say: the others fetch it themselves
                (place / "staged").write_bytes(fetched)
                (place / "staged").replace(content)
            return fetched

    @contextmanager
    def _wanted(self, key: str) -> Iterator[Path]:
        place = self._folder / hashlib.sha256(key.encode()).hexdigest()
        handle = _held(place)
        try:
            yield place
        finally:
            _drop_unless_wanted(place, handle)
            os.close(handle)


def _held(place: Path) -> int:
    """The folder, locked; made again if another process has just deleted it."""
    while True:
        make_private(place)
        with suppress(FileNotFoundError):
            handle = os.open(place, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_SH)
            if _is_at(place, handle):
                return handle
            os.close(handle)


def _is_at(place: Path, handle: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(place), os.fstat(handle))
    return False


def _drop_unless_wanted(place: Path, handle: int) -> None:
    with suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(place, ignore_errors=True)
