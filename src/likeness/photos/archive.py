"""Paths (files, folders, zip, tar) -> photographs in memory.

Nothing is ever extracted to a path: members are read, bounded, and handed on as bytes, so a hostile name has nowhere
to go. Archives that try are refused whole, with the reason's name first in the message, because half of a hostile
archive is no better than all of it. Does not know whether the bytes are an image; `checks` says that.

Sources: CWE-22 (path traversal), CWE-59 (links), CWE-409 (compression bombs); D. Fifield, 'A better zip bomb', 2019.
"""

import gzip
import io
import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import ArchiveRefused, UsageError
from ..types import Photo

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
_CHUNK_BYTES = 1 << 20
_NAME_LENGTH = 120


@dataclass(frozen=True)
class Limits:
    """How much one upload may hold."""

    members: int = 1000
    member_bytes: int = 64 << 20
    total_bytes: int = 1 << 30  # the asynchronous endpoint's payload limit
    # Photographs are compressed already: real ones pack at 1.0 to 1.1, so 100 is far from every honest archive.
    ratio: float = 100.0
    ratio_floor_bytes: int = 1 << 20  # below this even a bomb is harmless


def read_photos(paths: Sequence[str | os.PathLike[str]], limits: Limits | None = None) -> list[Photo]:
    """Every photograph named by `paths`, in the order given; folders and archives in their names' order.

    Hidden files and `__MACOSX` are skipped; other files that are no image are kept, so that `check` can name them. What
    a folder holds beside files (pipes, devices, links to nothing) is not opened and stays as a name without content.

    Raises:
        UsageError: a path does not exist or cannot be read.
        ArchiveRefused: an archive is hostile, broken or too large, or a file is too large.
    """
    limits = limits or Limits()
    photos: list[Photo] = []
    for path in map(Path, paths):
        for file in _files(path):
            # An archive that lies in a folder is not opened: nobody named it.
            photos += _read_file(file, limits, open_archives=file == path)
            _bound(photos, limits)
    return photos


def read_archive(content: bytes | IO[bytes], limits: Limits | None = None) -> list[Photo]:
    """Photographs of one zip, tar or gzipped tar.

    Args:
        content: the archive's bytes, or a seekable binary file.

    Raises:
        ArchiveRefused: see `Limits` and the module's docstring.
    """
    limits = limits or Limits()
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    head = file.read(512)
    file.seek(0)
    try:
        if _is_zip(head):
            return _collect(_zip_members(file, limits), limits)
        if head.startswith(b"\x1f\x8b"):
            with _gunzipped(file, limits) as plain:
                return _collect(_tar_members(plain, limits), limits)
        return _collect(_tar_members(file, limits), limits)
    except ArchiveRefused:
        raise
    except (OSError, EOFError, ValueError, RuntimeError, LookupError, OverflowError) as error:  # hostile headers
        raise _refused("not_an_archive", "expected a readable zip or tar, got one that is broken") from error
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, NotImplementedError) as error:
        raise _refused("not_an_archive", "expected a readable zip or tar, got something else") from error


def is_archive(head: bytes) -> bool:
    """Whether a file's first 512 bytes say zip, gzip or tar."""
    return _is_zip(head) or head.startswith(b"\x1f\x8b") or head[257:262] == b"ustar"


def _is_zip(head: bytes) -> bool:
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def _refused(reason: str, message: str, hint: str = "pack the photographs again, as plain files") -> ArchiveRefused:
    return ArchiveRefused(f"{reason}: {message}", hint=hint)


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for folder, folders, names in os.walk(path):  # links to folders are not followed: they may form a ring
            folders[:] = sorted(name for name in folders if not _is_hidden(name))
            yield from (Path(folder, name) for name in sorted(names) if not _is_hidden(name))
    elif path.is_file():
        yield path
    else:
        raise UsageError("expected a file or folder, got a path where neither is", hint="check the path")


def _read_file(file: Path, limits: Limits, *, open_archives: bool) -> list[Photo]:
    if not file.is_file():  # opening a pipe would wait for its writer for ever
        return [Photo(_shown(file.name), b"")]
    try:
        with file.open("rb") as stream:
            head = stream.read(512)
            stream.seek(0)
            if open_archives and (is_archive(head) or file.name.lower().endswith(_SUFFIXES)):
                return read_archive(stream, limits)
            return [Photo(_shown(file.name), _read_member(stream, limits))]
    except OSError as error:
        raise UsageError("expected a readable file, got one that cannot be opened", hint="check its rights") from error


def _collect(members: Iterable[tuple[str, bytes]], limits: Limits) -> list[Photo]:
    photos: list[Photo] = []
    for name, content in members:
        if is_archive(content[:512]):
            raise _refused("nested_archive", "expected photographs, got an archive inside the archive")
        photos.append(Photo(_shown(name), content))
        _bound(photos, limits)
    return photos


def _bound(photos: Sequence[Photo], limits: Limits) -> None:
    if len(photos) > limits.members:
        raise _refused("too_many_members", f"expected at most {limits.members} files, got more", "send fewer")
    if sum(len(photo.content) for photo in photos) > limits.total_bytes:
        raise _refused("total_too_large", f"expected at most {limits.total_bytes} bytes in all, got more", "send fewer")


def _zip_members(file: IO[bytes], limits: Limits) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if len(entries) > limits.members:
            raise _refused("too_many_members", f"expected at most {limits.members} files, got {len(entries)}")
        for entry in sorted(entries, key=lambda entry: entry.filename):
            _check_name(entry.filename)
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind == stat.S_IFLNK:
                raise _refused("link", "expected plain files, got a link")
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused("device", "expected plain files, got a device or pipe")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack a lot from little
                raise _refused("compression_method", "expected stored or deflated files, got another compression")
            if entry.flag_bits & 1:
                raise _refused("encrypted", "expected an open archive, got one with a password")
            if entry.is_dir() or _is_hidden(entry.filename):
                continue
            _check_size(entry.file_size, entry.compress_size, limits)
            with archive.open(entry) as member:
                yield entry.filename, _read_member(member, limits)


def _tar_members(file: IO[bytes], limits: Limits) -> Iterator[tuple[str, bytes]]:
    # errorlevel and the rest do not matter: nothing is extracted.
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for count, entry in enumerate(archive, start=1):
            if count > limits.members:
                raise _refused("too_many_members", f"expected at most {limits.members} files, got more")
            _check_name(entry.name)
            if entry.issym() or entry.islnk():
                raise _refused("link", "expected plain files, got a link")
            if not (entry.isreg() or entry.isdir()):
                raise _refused("device", "expected plain files, got a device or pipe")
            if entry.isdir() or _is_hidden(entry.name):
                continue
            _check_size(entry.size, entry.size, limits)
            member = archive.extractfile(entry)  # opens a view, writes nothing
            if member is not None:
                yield entry.name, _read_member(member, limits)


def _gunzipped(file: IO[bytes], limits: Limits) -> IO[bytes]:
    """The plain tar of a gzipped one, bounded: a tar header may claim any size, a file of known length cannot."""
    packed_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    plain = tempfile.SpooledTemporaryFile(max_size=64 << 20)  # noqa: SIM115 - the caller closes it
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                plain.write(chunk)
                _check_ratio(plain.tell(), packed_bytes, limits)
                if plain.tell() > limits.total_bytes:
                    raise _refused("total_too_large", f"expected at most {limits.total_bytes} bytes unpacked, got more")
    except BaseException:
        plain.close()
        raise
    plain.seek(0)
    return plain


def _check_name(name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if "\0" in name:
        raise _refused("bad_name", "expected printable file names, got one with a zero byte")
    if parts[0] == "" or parts[0].endswith(":"):
        raise _refused("absolute_path", "expected names inside the archive, got an absolute path")
    if ".." in parts:
        raise _refused("path_traversal", "expected names inside the archive, got one that climbs out of it")


def _check_size(size_bytes: int, packed_bytes: int, limits: Limits) -> None:
    if size_bytes > limits.member_bytes:
        raise _refused("member_too_large", f"expected at most {limits.member_bytes} bytes a file, got {size_bytes}")
    _check_ratio(size_bytes, packed_bytes, limits)


def _check_ratio(size_bytes: int, packed_bytes: int, limits: Limits) -> None:
    if size_bytes > limits.ratio_floor_bytes and size_bytes > limits.ratio * max(packed_bytes, 1):
        raise _refused("compression_bomb", f"expected packing of at most {limits.ratio:g} to 1, got more")


def _read_member(stream: IO[bytes], limits: Limits) -> bytes:
    """All bytes of a stream; what headers promised is not trusted."""
    content = stream.read(limits.member_bytes + 1)
    if len(content) > limits.member_bytes:
        raise _refused("member_too_large", f"expected at most {limits.member_bytes} bytes a file, got more")
    return content


def _is_hidden(name: str) -> bool:
    """Hidden files, and the resource forks that macOS adds."""
    parts = name.replace("\\", "/").split("/")
    return any((part.startswith(".") and part != ".") or part == "__MACOSX" for part in parts)


def _shown(name: str) -> str:
    """The last part of a name without control characters: it will be printed."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(letter for letter in last if letter.isprintable())[:_NAME_LENGTH] or "unnamed"
