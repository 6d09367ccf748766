"""Uploads contain photographs and no other files."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from likeness.commands.sending import photos_to_send
from likeness.errors import InputRefused
from likeness.types import MAX_PHOTOS

JPEG = b"\xff\xd8\xff" + bytes(100)


@pytest.fixture
def call() -> Any:
    """A command's call whose notes are kept."""
    notes: list[str] = []
    return SimpleNamespace(terminal=SimpleNamespace(note=notes.append), notes=notes)


def test_what_is_no_photograph_stays_and_is_named(call: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "IMG_0042.MOV").write_bytes(b"\0\0\0\x14ftypqt  ")
    (tmp_path / "a.aae").write_bytes(b"<?xml")
    (tmp_path / "config.json").write_bytes(b'{"name": "mallory"}')  # a job's settings, were it sent
    (tmp_path / "nothing.jpg").write_bytes(b"")
    assert [photo.name for photo in photos_to_send(call, [tmp_path])] == ["a.jpg"]
    left = ["IMG_0042.MOV: expected a photograph, got a video", "a.aae", "config.json", "nothing.jpg"]
    assert len(call.notes) == 4
    assert all(note.startswith(f"left out {start}") for note, start in zip(call.notes, left, strict=True))


def test_a_folder_of_something_else_is_not_sent(call: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"words")
    with pytest.raises(InputRefused, match="got none"):
        photos_to_send(call, [tmp_path])


def test_more_than_a_set_is_refused_before_it_is_sent(call: Any, tmp_path: Path) -> None:
    for index in range(MAX_PHOTOS + 1):
        (tmp_path / f"{index}.jpg").write_bytes(JPEG)
    with pytest.raises(InputRefused, match=f"got {MAX_PHOTOS + 1}"):
        photos_to_send(call, [tmp_path])
