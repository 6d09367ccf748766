"""Adapters to and from other programs: as files on a disk, and as the bytes of an upload or a download.

A name that a file brings along is never used as a path; what is uploaded is parsed in a folder of its own.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..types import Adapter, Subject

AUTO = "auto"  # an import finds the layout by itself

if TYPE_CHECKING:
    from ..artifacts.formats import Format
    from ..diffusion.family import BaseOutline


def export_to(adapter: Adapter, format: str, path: Path) -> Path:
    """Write a file or folder in another program's layout. Raises UsageError, AlreadyExists."""
    layout(format).export(adapter, path)
    return path


def exported(adapter: Adapter, format: str) -> bytes:
    """What `export_to` writes, as bytes: a safetensors file, or a tar.gz of the folder. Raises UsageError."""
    from ..artifacts.package import pack

    with tempfile.TemporaryDirectory() as folder:
        path = export_to(adapter, format, Path(folder) / "adapter")
        return pack(path) if layout(format).is_folder else path.read_bytes()


def import_from(source: Path | bytes, format: str, said: Subject, base: "BaseOutline") -> Adapter:
    """Read an adapter of another program, or of another Likeness, under the name that is said.

    Args:
        source: a file, a folder, or the bytes of an upload: a safetensors file, or a tar.gz of a folder.
        format: 'auto' or a layout's name; the layout is found by what is there in any case.
        said: by the caller; a card in the file goes before all of it but the name.

    Raises:
        UsageError: an unknown format.
        NotFound, CorruptAdapter, InputRefused, ArchiveRefused, WrongBase: see reading.read_foreign.
    """
    from ..artifacts.foreign import foreign_card
    from ..artifacts.reading import read_foreign

    if format != AUTO:
        layout(format)
    card = foreign_card(
        said.name, said.class_noun, said.identifier, base_id=base.id, base_sha256=base.sha256, family=base.family.name
    )
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(source, bytes):
            path = Path(folder) / "adapter.safetensors"
            path.write_bytes(source)
        else:
            path = source
        found = read_foreign(path, base, card)
    return Adapter(replace(found.card, name=said.name), found.weights)


def layout(format: str) -> "Format":
    """The layout of a name. Raises UsageError."""
    formats = layouts()
    if format not in formats:
        raise UsageError(f"expected a format of {', '.join(formats)}")
    return formats[format]


def layouts() -> "Mapping[str, Format]":
    """All layouts by name."""
    from ..artifacts.formats import FORMATS

    return FORMATS
