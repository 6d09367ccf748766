"""unpack(pack(x)) == x, byte for byte and every time; a hostile archive writes nothing at all."""

import gzip
import hashlib
import io
import json
import os
import tarfile
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from likeness.artifacts import adapter as folders
from likeness.artifacts import package
from likeness.artifacts.package import pack, unpack
from likeness.errors import AlreadyExists, CorruptAdapter, InputRefused, LikenessError, NotFound

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def file_entry(name: str, content: bytes = b"x"):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    return entry, content


def special(name: str, kind: bytes, target: str = ""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry, b""


def manifest_of(files: dict[str, bytes]) -> bytes:
    facts = {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in files.items()}
    return json.dumps({"format": 1, "files": facts}).encode()


def archive_of(*entries, manifest: bytes | None, tar_format: int = tarfile.USTAR_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tar_format) as archive:
        first = [] if manifest is None else [file_entry("manifest.json", manifest)]
        for entry, content in [*first, *entries]:
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def files_in(folder) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def folder(tools, tmp_path):
    folders.write(tools.adapter(), tmp_path / "anna-2")
    return tmp_path / "anna-2"


def test_round_trip_from_bytes_and_file(tools, folder, tmp_path):
    packed = pack(folder)
    (tmp_path / "a.tar.gz").write_bytes(packed)
    for source in (packed, tmp_path / "a.tar.gz"):
        target = unpack(source, tmp_path / f"from-{type(source).__name__}")
        assert files_in(target) == files_in(folder)
        tools.assert_same(folders.read(target), folders.read(folder))
        assert pack(target) == packed


def test_packing_ignores_times_modes_and_order(tools, folder, tmp_path):
    first = pack(folder)
    for path in folder.rglob("*"):
        os.utime(path, (1, time.time() + 1000))
        path.chmod(0o700)
    assert pack(folder) == first
    assert first[4:8] == bytes(4)  # gzip's own time of day
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        entries = archive.getmembers()
    assert entries[0].name == "manifest.json"
    assert [e.name for e in entries[1:]] == sorted(e.name for e in entries[1:])
    assert {(e.uid, e.gid, e.mtime, e.mode, e.uname, e.gname) for e in entries} == {(0, 0, 0, 0o644, "", "")}


def test_existing_and_missing_places(folder, tmp_path):
    packed = pack(folder)
    with pytest.raises(AlreadyExists):
        unpack(packed, folder)
    with pytest.raises(NotFound):
        unpack(tmp_path / "none.tar.gz", tmp_path / "x")
    with pytest.raises(NotFound):
        pack(tmp_path / "none")


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../x", "a//x", ".hidden", "a\\x", "a b", "$(x)", "a/", "x" * 99 + "/y", "manifest.json"]
)
def test_names_that_leave_the_folder(tmp_path, name):
    hostile = archive_of(file_entry(name), manifest=manifest_of({name: b"x"}))
    (tmp_path / "in").mkdir()
    with pytest.raises(LikenessError):
        unpack(hostile, tmp_path / "in" / "x")
    assert list((tmp_path / "in").iterdir()) == []
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_links_devices_and_folders(tmp_path, kind):
    with pytest.raises(InputRefused, match="regular files"):
        unpack(archive_of(special("a", kind, "/etc/passwd"), manifest=manifest_of({"a": b""})), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_extended_headers(tmp_path, tar_format):
    name = "n" * 150
    with pytest.raises(InputRefused):
        unpack(archive_of(file_entry(name), manifest=manifest_of({}), tar_format=tar_format), tmp_path / "x")


def test_what_the_manifest_does_not_say(tmp_path):
    listed = manifest_of({"a": b"x", "b": b"y"})
    a, b = file_entry("a", b"x"), file_entry("b", b"y")
    cases = {
        "missing": (archive_of(a, manifest=listed), CorruptAdapter),
        "extra": (archive_of(a, b, file_entry("c"), manifest=listed), CorruptAdapter),
        "another file": (archive_of(a, file_entry("b", b"z"), manifest=listed), CorruptAdapter),
        "another size": (archive_of(a, file_entry("b", b"yy"), manifest=listed), CorruptAdapter),
        "twice": (archive_of(a, b, b, manifest=listed), InputRefused),
        "no manifest": (archive_of(a, b, manifest=None), InputRefused),
        "a file as a folder": (
            archive_of(a, file_entry("a/b"), manifest=manifest_of({"a": b"x", "a/b": b"x"})),
            InputRefused,
        ),
        "other format": (archive_of(manifest=b'{"format": 2, "files": {}}'), CorruptAdapter),
        "no facts": (archive_of(a, manifest=b'{"format": 1, "files": {"a": 3}}'), CorruptAdapter),
        "no JSON": (archive_of(a, manifest=b"\xff"), CorruptAdapter),
    }
    for reason, (content, error) in cases.items():
        with pytest.raises(error):
            unpack(content, tmp_path / "x")
        assert list(tmp_path.iterdir()) == [], reason


def test_too_many_and_too_large(tmp_path, folder, monkeypatch):
    many = {f"f{i}": b"x" for i in range(package.MAX_FILES + 1)}
    with pytest.raises(LikenessError):
        unpack(archive_of(*[file_entry(n, c) for n, c in many.items()], manifest=manifest_of(many)), tmp_path / "x")
    packed = pack(folder)
    monkeypatch.setattr(package, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(InputRefused, match="1000 bytes"):
        unpack(packed, tmp_path / "x")
    with pytest.raises(InputRefused, match="1000 bytes"):
        pack(folder)


def test_bombs_are_not_inflated(tmp_path, monkeypatch):
    """A header that claims a huge file is refused before its first byte; so are endless zeros behind the end."""
    monkeypatch.setattr(package, "MAX_UNPACKED_BYTES", 1 << 20)
    manifest = manifest_of({"a": b"x"})
    start = gzip.decompress(archive_of(manifest=manifest))[: 2 * 512]  # header and one block of manifest
    huge = tarfile.TarInfo("a")
    huge.size = 1 << 40
    with pytest.raises(InputRefused, match="bytes unpacked"):
        unpack(gzip.compress(start + huge.tobuf(tarfile.GNU_FORMAT), mtime=0), tmp_path / "x")
    good = archive_of(manifest=manifest_of({}))
    with pytest.raises(InputRefused, match="after the end"):
        unpack(gzip.compress(gzip.decompress(good) + bytes(8 << 20), mtime=0), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_pack_refuses_links_and_a_manifest_of_its_own(folder):
    (folder / "unet" / "link").symlink_to("/etc/hostname")
    with pytest.raises(InputRefused, match="link"):
        pack(folder)
    (folder / "unet" / "link").unlink()
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(InputRefused, match="names"):
        pack(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not gzip",
        gzip.compress(b"", mtime=0),
        gzip.compress(b"short", mtime=0),
        gzip.compress(b"\xff" * 512, mtime=0),
    ],
)
def test_what_is_no_archive(tmp_path, content):
    with pytest.raises(InputRefused):
        unpack(content, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@FUZZ
@given(data=st.data())
def test_damage_is_refused(folder, tmp_path, data):
    """Cut anywhere: refused. A flipped bit: refused, or it was one that gzip itself ignores and the files are whole."""
    packed = pack(folder)
    place = data.draw(st.integers(0, len(packed) - 1))
    flipped = bytearray(packed)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    target = tmp_path / "x"
    with pytest.raises(LikenessError):
        unpack(packed[:place], target)
    try:
        unpack(bytes(flipped), target)
    except LikenessError:
        assert not target.exists()
    else:
        assert files_in(target) == files_in(folder)
        for path in sorted(target.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        target.rmdir()


@FUZZ
@given(content=st.binary(max_size=3000))
def test_any_bytes_in_a_gzip(tmp_path, content):
    with pytest.raises(LikenessError):
        unpack(gzip.compress(content, mtime=0), tmp_path / "x")
