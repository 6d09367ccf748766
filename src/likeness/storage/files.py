"""This machine's files: their errors as ours, and folders that only their owner reads."""

import os
from pathlib import Path

from ..errors import FileFailed, StorageUnavailable


def file_failed(error: OSError) -> FileFailed:
    """The system's complaint without the path that it complains of."""
    why = os.strerror(error.errno) if error.errno else type(error).__name__
    return FileFailed(
        f"expected the files and connections of this machine to work, got: {why}",
        hint="look at free space and rights, and at --out and --home",
    )


def make_folder(folder: Path) -> None:
    """The folder of a database's file, where it is missing. Raises StorageUnavailable."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageUnavailable(
            f"expected to make the folder of a database, got {os.strerror(error.errno or 0)}",
            hint="check LIKENESS_HOME and its rights",
        ) from error
