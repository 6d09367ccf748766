"""Temporary files of servers and workers: in the home folder, so that files of killed processes can be found.

    HOME/scratch/<random>/      of one process, which holds a lock of the folder while it runs

For example, adapters are packed in such files. The next process that starts in the home folder deletes the files of
killed processes.
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
_VARIABLE = "TMPDIR"  # inherited by child processes


@contextmanager
def scratch(home: Path) -> Iterator[Path]:
    """Within the block, temporary files of this process and its children are in a folder of its own.

    Deletes the folders of killed processes. Raises OSError.
    """
    root = home / FOLDER
    make_private(root)
    gate = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)  # so that a new folder is not deleted before it is locked
        for folder in root.iterdir():
            if _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)
        mine = Path(tempfile.mkdtemp(dir=root))
        held = os.open(mine, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
    finally:
        os.close(gate)
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE], tempfile.tempdir = str(mine), None  # None: read TMPDIR again
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
