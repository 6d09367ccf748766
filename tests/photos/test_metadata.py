"""Metadata of photographs is in no file that we write: place, time, device, comment, colour profile."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from likeness.photos import MediaPipeFaces, check, prepare
from likeness.service import save_prepared
from likeness.storage.prepared_photos import pack_prepared
from likeness.types import Photo, PreparedPhoto
from tests.telling import SECRETS
from tests.telling import telling as told


@pytest.fixture(scope="module")
def telling(virtual_man: list[Photo]) -> Photo:
    """A photograph with all of it."""
    return Photo("holiday.jpg", told(Image.open(io.BytesIO(virtual_man[0].content))))


@pytest.fixture(scope="module")
def prepared(telling: Photo, faces: MediaPipeFaces) -> list[PreparedPhoto]:
    (usable,) = check([telling], "person", detector=faces).usable
    as_thing = prepare(usable.image, None, telling.sha256, size_px=64)
    return prepare(usable.image, usable.face, telling.sha256, size_px=64) + as_thing


def chunks(png: bytes) -> Iterator[bytes]:
    """The names of a PNG's chunks."""
    place = 8
    while place < len(png):
        yield png[place + 4 : place + 8]
        place += 12 + int.from_bytes(png[place : place + 4], "big")


def only_pixels(png: bytes) -> bool:
    return set(chunks(png)) == {b"IHDR", b"IDAT", b"IEND"} and not any(secret in png for secret in SECRETS)


def test_the_photograph_tells(telling: Photo) -> None:
    assert all(secret in telling.content for secret in SECRETS)
    with Image.open(io.BytesIO(telling.content)) as picture:
        assert picture.getexif().get_ifd(0x8825)[2] == (52.0, 31.0, 12.0)
        kept = io.BytesIO()
        picture.save(kept, "PNG", exif=picture.getexif())
    assert not only_pixels(kept.getvalue())


def test_prepared_files_do_not(prepared: list[PreparedPhoto], tmp_path: Path) -> None:
    save_prepared(prepared, tmp_path)
    files = [path.read_bytes() for path in tmp_path.glob("*.png")]
    assert len(files) == 3 * len(prepared) == 12
    assert all(map(only_pixels, files))
    assert not any("holiday" in path.name for path in tmp_path.iterdir())


def test_what_a_job_keeps_does_not(prepared: list[PreparedPhoto]) -> None:
    packed = pack_prepared(prepared)
    assert not any(secret in packed for secret in (*SECRETS, b"holiday"))
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        images = [archive.read(name) for name in archive.namelist() if name.endswith(".png")]
    assert len(images) == 3 * len(prepared)
    assert all(map(only_pixels, images))
