"""Random damage to images and archives: a verdict or a named error, nothing else, and nothing on the disk."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from likeness.errors import InputRefused, LikenessError
from likeness.photos import Limits, check, decode, read_archive
from likeness.types import Photo

QUICK = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _pictures() -> list[bytes]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    wide = Image.fromarray(np.random.default_rng(1).integers(0, 65535, (40, 40), dtype=np.uint16))
    frames: dict[str, Any] = {"save_all": True, "append_images": [noise.rotate(90), noise.rotate(180)], "duration": 40}
    contents = [
        _saved(noise, "JPEG"), _saved(noise.convert("CMYK"), "JPEG"), _saved(noise, "JPEG", progressive=True),
        _saved(noise, "PNG"), _saved(wide, "PNG"), _saved(noise.quantize(16), "PNG"), _saved(noise, "PNG", **frames),
        _saved(noise, "AVIF"), _saved(noise, "GIF"), _saved(noise, "GIF", **frames), _saved(noise, "BMP"),
        _saved(noise, "TIFF"), _saved(noise, "TIFF", compression="tiff_lzw"), _saved(wide, "TIFF"),
        _saved(noise, "WEBP"), _saved(noise, "WEBP", lossless=True), _saved(noise, "WEBP", **frames),
    ]  # fmt: skip
    heic = io.BytesIO()
    pillow_heif.from_pillow(noise).save(heic, quality=80)
    return [*contents, heic.getvalue()]


def _saved(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, file_format, **options)
    return stream.getvalue()


NAMES = (
    "a.jpg", "a/" + "long" * 40 + ".jpg", "../up.jpg", "/etc/passwd", "C:\\x.jpg", "a\\..\\..\\x.jpg", "./a.jpg",
    "a//b.jpg", "\x1b[31mred\n.jpg", "é\u202egpj.exe", "__MACOSX/._a.jpg", ".hidden", "folder/",
)  # fmt: skip


def _archives() -> list[bytes]:
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    zips = [_zipped([name], method) for name in NAMES for method in methods[:2]]
    zips += [_zipped(["a.jpg", "b.jpg"], method) for method in methods]
    tars = [_tarred([name]) for name in NAMES] + [_tarred(["a.jpg", "b.jpg"])]
    return [*zips, *tars, *(gzip.compress(tar, mtime=0) for tar in tars[-2:])]


def _zipped(names: list[str], method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), bytes(range(256)) * 8, method)
    return stream.getvalue()


def _tarred(names: list[str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = 2000
            archive.addfile(entry, io.BytesIO(bytes(2000)))
    return stream.getvalue()


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    content = bytearray(draw(st.sampled_from(originals)))
    for place, value in draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=12)):
        content[place] = value
    end = draw(st.one_of(st.none(), st.integers(0, len(content))))
    return draw(st.sampled_from([b"", b"", b"\xff\xd8\xff", b"PK\x03\x04", b"\x1f\x8b"])) + bytes(content[:end])


@QUICK
@given(content=damaged(_pictures()) | st.binary(max_size=300))
def test_damaged_images(content: bytes) -> None:
    try:
        image = decode(content)
    except InputRefused:
        pass
    else:
        assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
    result = check([Photo("x", content)], "thing")
    assert len(result.reports) == 1


@pytest.mark.parametrize("content", _pictures())
def test_the_images_are_fine_before_they_are_damaged(content: bytes) -> None:
    assert decode(content).shape == (40, 40, 3)


@QUICK
@given(content=damaged(_archives()) | st.binary(max_size=700))
def test_damaged_archives(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos, refusal = [], None
    try:
        photos = read_archive(content, Limits(members=5, member_bytes=10_000, total_bytes=50_000))
    except LikenessError as error:
        refusal = error
    assert refusal is None or (refusal.message and refusal.hint)
    assert all("/" not in photo.name and photo.name.isprintable() for photo in photos)
    assert list(tmp_path.iterdir()) == []
