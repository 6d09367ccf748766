"""Prepared photographs in their one stored form: PNGs without metadata and an index, in a folder or in a zip.

index.json                 [{"file": "01-portrait", "framing": "portrait", "source_sha256": "...", "crop": [...],
                             "glasses": null}, ...]
01-portrait.png            (H, W, 3) uint8, numbered by photograph
01-portrait-matte.png      (H, W) uint8
01-portrait-face.png       (H, W) uint8
"""

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..types import Crop, PreparedPhoto

INDEX = "index.json"
_PLANES = {"image": "", "matte": "-matte", "face": "-face"}


def save_prepared(photos: Sequence[PreparedPhoto], folder: Path) -> list[Path]:
    """Write them into a folder. Returns the images' paths, in order; see `matte_path`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _files(photos):
        (folder / name).write_bytes(content)
    return [folder / f"{name}.png" for name in _names(photos)]


def load_prepared(folder: Path) -> tuple[PreparedPhoto, ...]:
    """The inverse of `save_prepared`; nothing where there is no such folder.

    Folders of before version 0.2 have neither index nor face masks: those masks are empty.
    """
    if (folder / INDEX).exists():
        return _read(lambda name: (folder / name).read_bytes())
    found = []
    for path in sorted(folder.glob("*.png")):
        number, _, framing = path.stem.partition("-")
        if matte_path(path).exists():
            image, matte = (_pixels(file.read_bytes()) for file in (path, matte_path(path)))
            found.append(PreparedPhoto(image, matte, np.zeros_like(matte), framing, number))
    return tuple(found)


def pack_prepared(photos: Sequence[PreparedPhoto]) -> bytes:
    """The same as one object, so that a worker that takes a job over need not prepare again."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
        for name, content in _files(photos):
            archive.writestr(name, content)
    return packed.getvalue()


def unpack_prepared(content: bytes) -> tuple[PreparedPhoto, ...]:
    """The inverse of `pack_prepared`, of our own objects only."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return _read(archive.read)


def matte_path(image_path: Path) -> Path:
    """Where the matte of a prepared image lies."""
    return image_path.with_name(f"{image_path.stem}{_PLANES['matte']}.png")


def _names(photos: Sequence[PreparedPhoto]) -> list[str]:
    numbers: dict[str, int] = {}
    return [f"{numbers.setdefault(one.source_sha256, len(numbers) + 1):02d}-{one.framing}" for one in photos]


def _files(photos: Sequence[PreparedPhoto]) -> Iterator[tuple[str, bytes]]:
    names = _names(photos)
    facts = [
        {
            "file": name, "framing": photo.framing, "source_sha256": photo.source_sha256, "crop": photo.crop,
            "glasses": photo.glasses,
        }
        for name, photo in zip(names, photos, strict=True)
    ]  # fmt: skip
    yield INDEX, json.dumps(facts).encode()
    for name, photo in zip(names, photos, strict=True):
        for plane, ending in _PLANES.items():
            png = io.BytesIO()
            # level 1: a tenth larger, four times quicker
            Image.fromarray(getattr(photo, plane)).save(png, "PNG", compress_level=1)
            yield f"{name}{ending}.png", png.getvalue()


def _read(read: Callable[[str], bytes]) -> tuple[PreparedPhoto, ...]:
    found = []
    for fact in json.loads(read(INDEX)):
        image, matte, face = (_pixels(read(f"{fact['file']}{ending}.png")) for ending in _PLANES.values())
        crop = Crop(*fact["crop"]) if fact.get("crop") else None
        found.append(
            PreparedPhoto(image, matte, face, fact["framing"], fact["source_sha256"], crop, fact.get("glasses"))
        )
    return tuple(found)


def _pixels(png: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image, dtype=np.uint8)
