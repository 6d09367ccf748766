"""Local files: operating-system errors as Likeness errors; private folders and files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import StorageError, StorageUnavailable, reason_of


def file_failed(error: OSError) -> StorageError:
    """An operating-system error as a Likeness error, without the path."""
    return StorageError(
        f"expected this machine's files and connections to work, got: {reason_of(error)}",
        hint="check free space and permissions, and the paths of --out and --home",
        code="FileFailed",
    )


def make_private(folder: Path) -> Path:
    """Create a folder and its missing parents with mode 700. An existing folder keeps its permissions.

    `Path.mkdir(parents=True, mode=...)` applies the mode to the last folder only.
    """
    if not folder.exists():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def make_private_file(file: Path) -> None:
    """Create the empty file of a database with mode 600, and its folder. If the file cannot be created, opening it
    fails.

    Raises:
        StorageUnavailable: the folder cannot be created.
    """
    try:
        make_private(file.parent)
    except OSError as error:
        raise StorageUnavailable(
            f"expected to create the folder of a database, got {reason_of(error)}",
            hint="check LIKENESS_HOME and its permissions",
        ) from error
    with suppress(OSError):
        file.touch(mode=0o600)


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """The descriptor of a file or folder, for locks: closing it releases them."""
    handle = os.open(path, flags, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)
