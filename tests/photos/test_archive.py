"""Archives: the honest ones are read, each hostile kind is refused by name."""

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from likeness.errors import InputRefused, UsageError
from likeness.photos import Limits, check, read_archive, read_photos
from likeness.types import MAX_PHOTOS, Photo

PICTURE = b"\xff\xd8\xff not really"
JPEG = b"\xff\xd8\xff" + bytes(range(17))
MARK = PICTURE + b" to be damaged"
TIGHT = Limits(members=3, member_bytes=4000, total_bytes=6000, ratio=50, ratio_floor_bytes=1000)


def zipped(*members: tuple[str, bytes], mode: int = 0, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            archive.writestr(entry, content, method)
    return stream.getvalue()


def tarred(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname = kind, len(content), "/etc/passwd"
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def lying_zip() -> bytes:
    """A zip whose directory promises 10 bytes for its second member of 5000."""
    content = bytearray(zipped(("a.jpg", PICTURE), ("b.jpg", JPEG * 250)))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = content.rindex(signature) + offset
        content[place : place + 4] = struct.pack("<I", 10)
    return bytes(content)


def mixed(method: int) -> bytes:
    """A zip whose second member is packed by another method."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", PICTURE)
        archive.writestr("b.jpg", JPEG * 20, method)
    return stream.getvalue()


def test_reads_files_folders_and_archives(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "b.jpg").write_bytes(b"b")
    (tmp_path / "set" / ".hidden").write_bytes(b"x")
    (tmp_path / "a.zip").write_bytes(zipped(("z/2.jpg", b"2"), ("z/1.jpg", b"1"), ("__MACOSX/z/1.jpg", b"x")))
    (tmp_path / "a.tar").write_bytes(tarred(("t/3.jpg", b"3"), ("t/.DS_Store", b"x")))
    (tmp_path / "a.tgz").write_bytes(gzip.compress(tarred(("t/4.jpg", b"4"))))
    names = ("set", "a.zip", "a.tar", "a.tgz")
    photos = read_photos([tmp_path / name for name in names])
    assert [photo.name for photo in photos] == ["b.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert [photo.content for photo in photos] == [b"b", b"1", b"2", b"3", b"4"]


REFUSALS: dict[str, Callable[[], bytes]] = {
    "path_traversal zip": lambda: zipped(("../../evil.jpg", PICTURE)),
    "path_traversal tar": lambda: tarred(("a/../../evil.jpg", PICTURE)),
    "path_traversal backslash": lambda: zipped(("..\\evil.jpg", PICTURE)),
    "absolute_path zip": lambda: zipped(("/etc/evil.jpg", PICTURE)),
    "absolute_path tar": lambda: tarred(("/etc/evil.jpg", PICTURE)),
    "absolute_path drive": lambda: zipped(("C:/evil.jpg", PICTURE)),
    "link zip": lambda: zipped(("a.jpg", b"/etc/passwd"), mode=stat.S_IFLNK | 0o777),
    "link tar symbolic": lambda: tarred(("a.jpg", b""), kind=tarfile.SYMTYPE),
    "link tar hard": lambda: tarred(("a.jpg", b""), kind=tarfile.LNKTYPE),
    "device zip": lambda: zipped(("a.jpg", b""), mode=stat.S_IFCHR | 0o666),
    "device tar": lambda: tarred(("a.jpg", b""), kind=tarfile.CHRTYPE),
    "device tar pipe": lambda: tarred(("a.jpg", b""), kind=tarfile.FIFOTYPE),
    "too_many_members zip": lambda: zipped(*((f"{i}.jpg", b"x") for i in range(4))),
    "too_many_members tar": lambda: tarred(*((f"{i}.jpg", b"x") for i in range(4))),
    "total_too_large tar": lambda: tarred(*((f"{i}.jpg", JPEG * 150) for i in range(3))),
    "total_too_large tgz": lambda: gzip.compress(tarred(("a.jpg", b"x")), compresslevel=0),
    "compression_bomb tgz": lambda: gzip.compress(b"\0" * 1_000_000, mtime=0),
    "not_an_archive zip": lambda: zipped(("a.jpg", PICTURE))[:40],
    "not_an_archive tgz": lambda: gzip.compress(tarred(("a.jpg", PICTURE)))[:60],
    "not_an_archive other": lambda: b"Rar!\x1a\x07" + b"x" * 600,
}


@pytest.mark.parametrize("case", REFUSALS)
def test_hostile_archives_are_refused_by_name(case: str, tmp_path: Path) -> None:
    path = tmp_path / "upload.zip"
    path.write_bytes(REFUSALS[case]())
    with pytest.raises(InputRefused, match=f"^{case.split()[0]}:") as refusal:
        read_photos([path], TIGHT)
    assert refusal.value.hint
    assert "evil" not in str(refusal.value)
    assert [file.name for file in tmp_path.iterdir()] == ["upload.zip"]


SPOILT: dict[str, Callable[[], bytes]] = {
    "too_large zip": lambda: zipped(("a.jpg", PICTURE), ("b.jpg", JPEG * 300), method=zipfile.ZIP_STORED),
    "too_large tar": lambda: tarred(("a.jpg", PICTURE), ("b.jpg", JPEG * 300)),
    "compression bomb": lambda: zipped(("a.jpg", PICTURE), ("b.jpg", JPEG + b"\0" * 3900)),
    "compression lzma": lambda: mixed(zipfile.ZIP_LZMA),
    "compression bzip2": lambda: mixed(zipfile.ZIP_BZIP2),
    "damaged lying": lying_zip,
    "damaged stored": lambda: zipped(("a.jpg", PICTURE), ("b.jpg", MARK), method=zipfile.ZIP_STORED).replace(
        MARK, MARK[::-1], 1
    ),
    "not_an_image nested zip": lambda: zipped(("a.jpg", PICTURE), ("b.jpg", zipped(("a.jpg", b"x")))),
    "not_an_image nested tar": lambda: tarred(("a.jpg", PICTURE), ("b.jpg", gzip.compress(b"x", mtime=0))),
    "not_an_image video": lambda: zipped(("a.jpg", PICTURE), ("b.jpg", b"\0\0\0\x14ftypqt  " + bytes(3000))),
    "not_an_image zeros": lambda: tarred(("a.jpg", PICTURE), ("b.jpg", bytes(5_000))),
    "empty": lambda: zipped(("a.jpg", PICTURE), ("b.jpg", b"")),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_one_file_spoils_nothing_but_itself(case: str) -> None:
    photos = read_archive(SPOILT[case](), TIGHT)
    assert [photo.name for photo in photos] == ["a.jpg", "b.jpg"] and photos[0] == Photo("a.jpg", PICTURE)
    (reason,) = check(photos, "thing").reports[1].reasons
    assert (reason.code, reason.verdict) == (case.split()[0], "refused") and reason.hint


def test_what_is_no_photograph_counts_for_little_in_an_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its beginning is read, so an album's films do not fill the limit of what is unpacked."""
    monkeypatch.setattr("likeness.photos.archive.HEAD_BYTES", 100)
    photos = read_archive(tarred(*((f"{i}.mov", bytes(3500)) for i in range(3))), TIGHT)
    assert [len(photo.content) for photo in photos] == [100] * 3
    reasons = [reason.code for report in check(photos, "thing").reports for reason in report.reasons]
    assert reasons == ["not_an_image"] * 3  # equal beginnings are no equal files


def test_an_archives_limits_are_not_a_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(6):
        (tmp_path / f"{index}.jpg").write_bytes(JPEG * 250 + b"%d" % index)
    (tmp_path / "IMG_0042.MOV").write_bytes(b"\0\0\0\x14ftypqt  ")
    os.truncate(tmp_path / "IMG_0042.MOV", 1 << 40)  # no such file fits into memory
    photos = read_photos([tmp_path], TIGHT)
    assert [photo.unread for photo in photos] == [None] * 6 + ["not_an_image"]
    assert sum(len(photo.content) for photo in photos) > TIGHT.total_bytes
    (reason,) = check(photos, "thing").reports[-1].reasons
    assert reason.message == "expected a photograph, got a video"
    monkeypatch.setattr("likeness.photos.archive.OWN_FILE_BYTES", 2000)
    (tmp_path / "7.jpg").write_bytes(JPEG * 10)
    assert [photo.unread for photo in read_photos([tmp_path])] == ["too_large"] * 6 + [None, "not_an_image"]


def test_more_photographs_than_a_set_has_are_counted_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("likeness.photos.archive.HEAD_BYTES", 20)
    for index in range(MAX_PHOTOS + 3):
        (tmp_path / f"{index:03d}.jpg").write_bytes(JPEG * 10)
    photos = read_photos([tmp_path])
    assert [photo.unread for photo in photos] == [None] * MAX_PHOTOS + ["too_many"] * 3
    assert {len(photo.content) for photo in photos[MAX_PHOTOS:]} == {20}
    with pytest.raises(InputRefused, match=f"at most {MAX_PHOTOS} photographs, got {MAX_PHOTOS + 3}"):
        check(photos, "thing")


def test_a_file_or_folder_without_the_right_to_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(PICTURE)
    (tmp_path / "b.jpg").write_bytes(PICTURE)
    (tmp_path / "closed").mkdir()
    listed, opened = os.scandir, Path.open

    def scandir(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    def open_(self: Path, *mode: Any) -> Any:
        if self.name == "b.jpg":
            raise PermissionError
        return opened(self, *mode)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(Path, "open", open_)
    photos = read_photos([tmp_path])
    assert [(photo.name, photo.unread) for photo in photos] == [
        ("a.jpg", None), ("b.jpg", "not_readable"), ("closed", "not_readable")
    ]  # fmt: skip


def test_encrypted_zip_is_refused() -> None:
    content = bytearray(zipped(("a.jpg", PICTURE)))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(InputRefused, match=r"^encrypted:"):
        read_archive(bytes(content))


def test_archives_in_a_folder_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("a.jpg", PICTURE)))
    assert [photo.name for photo in read_photos([tmp_path])] == ["a.zip"]


def test_stored_zips_are_read() -> None:
    (photo,) = read_archive(zipped(("a.jpg", PICTURE), method=zipfile.ZIP_STORED))
    assert photo.content == PICTURE


def test_what_is_no_file_is_skipped_by_name(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(PICTURE)
    os.mkfifo(tmp_path / "a.jpg")  # to open it would wait for ever
    (tmp_path / "c.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "d.jpg").symlink_to(tmp_path / "b.jpg")
    photos = read_photos([tmp_path])
    assert [(photo.name, photo.content) for photo in photos] == [
        ("a.jpg", b""), ("b.jpg", PICTURE), ("c.jpg", b""), ("d.jpg", PICTURE)
    ]  # fmt: skip
    codes = [[reason.code for reason in report.reasons] for report in check(photos, "thing").reports]
    assert codes == [["empty"], ["unreadable"], ["empty"], ["unreadable", "exact_duplicate"]]


def test_a_pipe_that_is_named_is_a_usage_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError):
        read_photos([tmp_path / "pipe"])


def test_missing_path_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_photos([tmp_path / "nothing"])


def test_names_lose_folders_and_control_characters() -> None:
    (photo,) = read_archive(zipped(("deep/\x1b[31mred\n.jpg", PICTURE)))
    assert photo.name == "[31mred.jpg"
