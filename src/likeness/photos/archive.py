"""Paths (files, folders, zip, tar) -> photographs in memory.

Nothing is ever extracted to a path: members are read, bounded, and handed on as bytes, so a hostile name has nowhere
to go. An archive that tries to climb out, links, or is larger than a set of photographs can be is refused whole, with
the reason's name first in the message. A single file that is no photograph, too large, packed oddly or damaged is
handed on by its name, with the reason and without its content, so that the photographs beside it can be used.

Of what is no photograph only the beginning is read. Files and folders are the user's own: of an archive's limits only
that on a file's size holds for them, four times as wide.

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
from ..types import MAX_PHOTOS, Photo
from .decode import looks_like_image

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
_CHUNK_BYTES = 1 << 20
_NAME_LENGTH = 120
_HEAD_BYTES = 128 << 10  # tells what a file is, and holds a job's whole config.json
_OWN_FILE_BYTES = 256 << 20  # TIFF of 80 megapixels


@dataclass(frozen=True)
class Limits:
    """How much one archive may hold."""

    members: int = 1000
    member_bytes: int = 64 << 20  # of one photograph; a larger one is not read
    total_bytes: int = 1 << 30  # of what is read; the asynchronous endpoint's payload limit
    # Photographs are compressed already: real ones pack at 1.0 to 1.1, so 100 is far from every honest archive.
    ratio: float = 100.0
    ratio_floor_bytes: int = 1 << 20  # below this even a bomb is harmless


def read_photos(paths: Sequence[str | os.PathLike[str]], limits: Limits | None = None) -> list[Photo]:
    """Every photograph named by `paths`, in the order given; folders and archives in their names' order.

    Hidden files and `__MACOSX` are skipped; other files that are no image are kept, so that `check` can name them. What
    a folder holds beside files (pipes, devices, links to nothing) is not opened and stays as a name without content. Of
    more photographs than a set may have only the beginnings are read: they are counted and refused.

    Args:
        limits: of each archive.

    Raises:
        UsageError: a path does not exist.
        ArchiveRefused: an archive is hostile, broken or too large.
    """
    limits = limits or Limits()
    photos: list[Photo] = []
    whole = 0
    for number, path in enumerate(map(Path, paths), start=1):
        if not (path.is_dir() or path.is_file()):
            message = f"expected files and folders, got a path that is neither: number {number} of {len(paths)}"
            raise UsageError(message, hint="check the path")
        for file in _files(path):
            # An archive that lies in a folder is not opened: nobody named it.
            read = _read_file(file, limits, open_archives=file == path, most_bytes=_own_limit(whole))
            whole += sum(photo.unread is None and looks_like_image(photo.content) for photo in read)
            photos += read
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
    if not path.is_dir():
        yield path
        return
    closed: list[Path] = []
    # Links to folders are not followed: they may form a ring.
    for folder, folders, names in os.walk(path, onerror=lambda error: closed.append(Path(error.filename))):
        yield from closed
        closed.clear()
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        yield from (Path(folder, name) for name in sorted(names) if not _is_hidden(name))
    yield from closed


def _own_limit(whole: int) -> int | None:
    return _OWN_FILE_BYTES if whole < MAX_PHOTOS else None


def _read_file(file: Path, limits: Limits, *, open_archives: bool, most_bytes: int | None) -> list[Photo]:
    name = _shown(file.name)
    try:
        if not file.is_file():  # opening a pipe would wait for its writer for ever
            return [Photo(name, b"", unread="not_readable" if file.is_dir() else None)]
        with file.open("rb") as stream:
            head = stream.read(512)
            stream.seek(0)
            if open_archives and (is_archive(head) or file.name.lower().endswith(_SUFFIXES)):
                return read_archive(stream, limits)
            return [_photo(name, stream, most_bytes)]
    except OSError:
        return [Photo(name, b"", unread="not_readable")]


def _photo(name: str, stream: IO[bytes], most_bytes: int | None, *, is_bomb: bool = False) -> Photo:
    """One file, read as far as it is a photograph; what headers promised is not trusted.

    Args:
        most_bytes: None = the set has enough photographs without this one.
        is_bomb: whether it unpacks to more than photographs do.
    """
    head = stream.read(_HEAD_BYTES)
    if not looks_like_image(head):
        return Photo(name, head, unread="not_an_image" if len(head) == _HEAD_BYTES else None)
    if most_bytes is None:
        return Photo(name, head, unread="too_many")
    if is_bomb:
        return Photo(name, b"", unread="compression")
    content = head + stream.read(max(most_bytes + 1 - len(head), 0))
    return Photo(name, content) if len(content) <= most_bytes else Photo(name, b"", unread="too_large")


def _collect(members: Iterable[Photo], limits: Limits) -> list[Photo]:
    photos: list[Photo] = []
    total_bytes = 0
    for photo in members:
        photos.append(photo)
        total_bytes += len(photo.content)
        if total_bytes > limits.total_bytes:
            message = f"expected at most {limits.total_bytes} bytes of photographs, got more"
            raise _refused("total_too_large", message, "send fewer")
    return photos


def _zip_members(file: IO[bytes], limits: Limits) -> Iterator[Photo]:
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
            if entry.flag_bits & 1:
                raise _refused("encrypted", "expected an open archive, got one with a password")
            if entry.is_dir() or _is_hidden(entry.filename):
                continue
            yield _zip_member(archive, entry, limits)


def _zip_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limits: Limits) -> Photo:
    name = _shown(entry.filename)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack a lot from little
        return Photo(name, b"", unread="compression")
    is_bomb = entry.file_size > max(limits.ratio_floor_bytes, limits.ratio * entry.compress_size)
    try:
        with archive.open(entry) as member:
            return _photo(name, member, limits.member_bytes, is_bomb=is_bomb)
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return Photo(name, b"", unread="damaged")


def _tar_members(file: IO[bytes], limits: Limits) -> Iterator[Photo]:
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
            member = archive.extractfile(entry)  # opens a view, writes nothing
            if member is not None:
                yield _photo(_shown(entry.name), member, limits.member_bytes)


def _gunzipped(file: IO[bytes], limits: Limits) -> IO[bytes]:
    """The plain tar of a gzipped one, bounded: a tar header may claim any size, a file of known length cannot."""
    packed_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    plain = tempfile.SpooledTemporaryFile(max_size=64 << 20)  # noqa: SIM115 - the caller closes it
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                plain.write(chunk)
                if plain.tell() > max(limits.ratio_floor_bytes, limits.ratio * packed_bytes):
                    raise _refused("compression_bomb", f"expected packing of at most {limits.ratio:g} to 1, got more")
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


def _is_hidden(name: str) -> bool:
    """Hidden files, and the resource forks that macOS adds."""
    parts = name.replace("\\", "/").split("/")
    return any((part.startswith(".") and part != ".") or part == "__MACOSX" for part in parts)


def _shown(name: str) -> str:
    """The last part of a name without control characters: it will be printed."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(letter for letter in last if letter.isprintable())[:_NAME_LENGTH] or "unnamed"
