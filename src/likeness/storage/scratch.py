"""Temporary files of a long-lived process: in the home and not in the system's folder, so that they are found again.

    HOME/scratch/<random>/      one process's; it holds a lock of the folder as long as it lives

An adapter is packed in such files for a moment. A process that is killed leaves them, and the next one that starts in
the home deletes them.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .files import make_private

FOLDER = "scratch"
_VARIABLE = "TMPDIR"  # children have it too


@contextmanager
def scratch(home: Path) -> Iterator[Path]:
    """As long as the block runs, the temporary files of this process and its children are in a folder of its own.

    Deletes the folders of processes that are gone. Raises OSError.
    """
    root = home / FOLDER
    make_private(root)
    gate = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)  # a folder that is new and not locked yet is nobody's to delete
        for folder in root.iterdir():
            if _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)
        mine = Path(tempfile.mkdtemp(dir=root))
        held = os.open(mine, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
    finally:
        os.close(gate)
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE], tempfile.tempdir = str(mine), None  # None: to be looked up again
    try:
        yield mine
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before
        tempfile.tempdir = None
        shutil.rmtree(mine, ignore_errors=True)
        os.close(held)


def _is_abandoned(folder: Path) -> bool:
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
    return False
