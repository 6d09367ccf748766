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

if TYPE_CHECKING:
    from ..artifacts.formats import Format
    from ..diffusion.base import BaseModel


def export_to(adapter: Adapter, format: str, path: Path) -> Path:
    """Write a file or folder in another program's layout. Raises UsageError, AdapterExists."""
    layout(format).export(adapter, path)
    return path


def exported(adapter: Adapter, format: str) -> bytes:
    """What `export_to` writes, as bytes: a safetensors file, or a tar.gz of the folder. Raises UsageError."""
    from ..artifacts.package import pack

    with tempfile.TemporaryDirectory() as folder:
        path = export_to(adapter, format, Path(folder) / "adapter")
        return pack(path) if layout(format).is_folder else path.read_bytes()


def import_from(path: Path, format: str, said: Subject, base: "BaseModel") -> Adapter:
    """Read a file or folder of another program, or of another Likeness, under the name that is said.

    Args:
        said: by whoever imports it; a card in the file goes before all of it but the name.

    Raises:
        CorruptAdapter: damaged or no plain LoRA.
        WrongBase: layers that this base lacks, or a card of another base.
    """
    from ..artifacts.adapter import check_base
    from ..artifacts.foreign import foreign_card
    from ..diffusion.lora import target_modules

    names = {
        network: tuple(target_modules(module, base.family.targets[network]))
        for network, module in base.networks.items()
    }
    card = foreign_card(
        said.name, said.class_noun, said.identifier, base_id=base.id, base_sha256=base.sha256, family=base.family.name
    )
    found = layout(format).load(path, names, card)
    check_base(found.card, base.sha256)
    return Adapter(replace(found.card, name=said.name), found.weights)


def imported(content: bytes, format: str, said: Subject, base: "BaseModel") -> Adapter:
    """`import_from` of an upload: a safetensors file, or a tar.gz as `exported` makes. Raises also ArchiveRefused."""
    from ..artifacts.package import unpack

    with tempfile.TemporaryDirectory() as folder:
        if layout(format).is_folder:
            path = unpack(content, Path(folder) / "adapter")
        else:
            path = Path(folder) / "adapter.safetensors"
            path.write_bytes(content)
        return import_from(path, format, said, base)


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
