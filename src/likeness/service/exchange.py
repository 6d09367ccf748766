"""Export and import of adapters: as files, and as the bytes of downloads and uploads.

Names inside a file are never used as paths; an upload is parsed in its own temporary folder.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..types import Adapter, Subject

AUTO = "auto"  # detect the format

if TYPE_CHECKING:
    from ..artifacts.exporting import Format
    from ..artifacts.extraction import Extraction
    from ..diffusion.family import BaseOutline


def exported(layout: "Format", adapter: Adapter) -> bytes:
    """What the layout's `export` writes, as bytes: a file's, or a tar.gz of the folder."""
    from ..artifacts.package import pack

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter"
        layout.export(adapter, path)
        return pack(path) if layout.is_folder else path.read_bytes()


def import_from(
    source: Path | bytes, format: str, said: Subject, base: "BaseOutline", formats: "Mapping[str, Format]", *,
    extraction: "Extraction | None" = None,
) -> Adapter:  # fmt: skip
    """Read an adapter of another program or installation, under a given name.

    Args:
        source: a file, a folder, or the bytes of an upload: a safetensors file, or a tar.gz of a folder.
        format: 'auto' or one of `formats`; the format is detected in any case.
        said: the caller's subject; a card in the file overrides everything but the name.
        extraction: see importing.read_foreign.

    Raises:
        UsageError: an unknown format.
        NotFound, CorruptAdapter, InputRefused, Mismatch: see importing.read_foreign.
    """
    from ..artifacts.foreign import foreign_card
    from ..artifacts.importing import read_foreign

    if format != AUTO:
        layout(formats, format)
    card = foreign_card(
        said.name, said.class_noun, said.identifier, base_id=base.id, base_sha256=base.sha256, family=base.family.name
    )
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(source, bytes):
            path = Path(folder) / "adapter.safetensors"
            path.write_bytes(source)
        else:
            path = source
        found = read_foreign(path, base, card, extraction=extraction)
    return Adapter(replace(found.card, name=said.name), found.weights)


def layout(formats: "Mapping[str, Format]", name: str) -> "Format":
    """The format with a name. Raises UsageError."""
    if name not in formats:
        raise UsageError(f"expected a format of {', '.join(formats)}")
    return formats[name]
