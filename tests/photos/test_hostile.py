"""Random damage to images and archives: a verdict or a named error, nothing else, and nothing on the disk."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from likeness.errors import LikenessError, UnreadablePhoto
from likeness.photos import Limits, check, decode, read_archive
from likeness.types import Photo

QUICK = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _pictures() -> list[bytes]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    contents = []
    for file_format in ("JPEG", "PNG", "WEBP"):
        stream = io.BytesIO()
        noise.save(stream, file_format)
        contents.append(stream.getvalue())
    return contents


def _archives() -> list[bytes]:
    plain, packed = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        entry = tarfile.TarInfo("a/" + "long" * 40 + ".jpg")
        entry.size = 2000
        tar.addfile(entry, io.BytesIO(bytes(2000)))
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(range(256)) * 8)
    return [plain.getvalue(), packed.getvalue(), gzip.compress(plain.getvalue())]


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
    except UnreadablePhoto:
        pass
    else:
        assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
    result = check([Photo("x", content)], False)
    assert len(result.reports) == 1


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
    assert all("/" not in photo.name for photo in photos)
    assert list(tmp_path.iterdir()) == []
