"""This machine's files: their errors as ours, and folders and files that only their owner reads."""

from contextlib import suppress
from pathlib import Path

from ..errors import FileFailed, StorageUnavailable, reason_of


def file_failed(error: OSError) -> FileFailed:
    """The system's complaint without the path that it complains of."""
    return FileFailed(
        f"expected the files and connections of this machine to work, got: {reason_of(error)}",
        hint="look at free space and rights, and at --out and --home",
    )


def make_private(folder: Path) -> Path:
    """Make a folder and those that are missing above it, mode 700. One that is there keeps its rights.

    `Path.mkdir(parents=True, mode=...)` gives the mode to the last folder only.
    """
    if not folder.exists():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def make_private_file(file: Path) -> None:
    """Make the empty file of a database, mode 600, and its folder. A file that cannot be made is told by its opening.

    Raises:
        StorageUnavailable: the folder cannot be made.
    """
    try:
        make_private(file.parent)
    except OSError as error:
        raise StorageUnavailable(
            f"expected to make the folder of a database, got {reason_of(error)}",
            hint="check LIKENESS_HOME and its rights",
        ) from error
    with suppress(OSError):
        file.touch(mode=0o600)
