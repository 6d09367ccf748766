"""Folders and files that only their owner can read: faces and names are in them."""

from contextlib import suppress
from pathlib import Path


def make_private(folder: Path) -> Path:
    """Make a folder and those that are missing above it, mode 700. One that is there keeps its rights.

    `Path.mkdir(parents=True, mode=...)` gives the mode to the last folder only.
    """
    if not folder.exists():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def make_private_file(file: Path) -> None:
    """Make an empty file, mode 600, and its folder. Where that fails, whatever opens the file says so."""
    make_private(file.parent)
    with suppress(OSError):
        file.touch(mode=0o600)
