"""Photographs for an upload: files that cannot be photographs are left out and named."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputRefused
from ..photos import read_photos, refusal_of_file, refuse_too_many
from ..types import Photo
from .group import Call


def photos_to_send(call: Call, paths: Sequence[Path]) -> list[Photo]:
    """Read photographs; print each file that is left out.

    Raises:
        InputRefused: no photograph is left, or too many for one set.
        UsageError, InputRefused: see `read_photos`.
    """
    read = read_photos(paths)
    refuse_too_many(read)
    kept = []
    for photo in read:
        if (reason := refusal_of_file(photo)) is None:
            kept.append(photo)
        else:
            call.terminal.note(f"left out {photo.name}: {reason.message}")
    if not kept:
        raise InputRefused(
            "expected at least one photograph, got none",
            hint="`likeness check` shows the reasons",
            code="PhotosRefused",
        )
    return kept
