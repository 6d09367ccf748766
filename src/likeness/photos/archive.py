"""Paths (files, folders, zip, tar) -> photographs in memory.

Nothing is extracted to a path: members are read into memory, with limits, so a malicious name has no effect. An archive
with paths that leave it, with links, or larger than a set of photographs is refused as a whole; the message begins with
the name of the reason. A single file that is no image, too large, packed unusually or damaged is returned by name, with
the reason and without content, so that the other photographs can be used.

Only the beginning of a file that is no image is read. Files and folders belong to the user: of an archive's limits only
the size of a file applies to them, times four.

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

from ..errors import InputRefused, UsageError
from ..types import MAX_PHOTOS, Photo, printable_name
from .decode import looks_like_image

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
_CHUNK_BYTES = 1 << 20
HEAD_BYTES = 128 << 10  # enough to recognise a file's type, and for a job's whole config.json
OWN_FILE_BYTES = 256 << 20  # TIFF of 80 megapixels


@dataclass(frozen=True)
class Limits:
    """Limits of one archive."""

    members: int = 1000
    member_bytes: int = 64 << 20  # of one photograph; a larger one is not read
    total_bytes: int = 1 << 30  # of all content read; SageMaker's payload limit for asynchronous endpoints
    # Photographs are compressed already: real ones pack at 1.0 to 1.1, far below 100.
    ratio: float = 100.0
    ratio_floor_bytes: int = 1 << 20  # below this even a bomb is harmless


def read_photos(paths: Sequence[str | os.PathLike[str]], limits: Limits | None = None) -> list[Photo]:
    """Every photograph named by `paths`, in the order given; folders and archives sorted by name.

    Hidden files and `__MACOSX` are skipped. Other files that are no image are kept, so that `check` can name them.
    Pipes, devices and dangling links in a folder are not opened; they are returned as names without content. If there
    are more photographs than a set may have, only their beginnings are read; the set is then refused by its count.

    Args:
        limits: of each archive.

    Raises:
        UsageError: a path does not exist.
        InputRefused: an archive is hostile, broken or too large.
    """
    limits = limits or Limits()
    photos: list[Photo] = []
    whole = 0
    for number, path in enumerate(map(Path, paths), start=1):
        if not (path.is_dir() or path.is_file()):
            message = f"expected files and folders, got a path that is neither: number {number} of {len(paths)}"
            raise UsageError(message, hint="check the path; photographs can be files, folders, zip or tar archives")
        for file in _files(path):
            # An archive inside a folder is not opened: it was not named explicitly.
            read = _read_file(file, limits, open_archives=file == path, most_bytes=_own_limit(whole))
            whole += sum(photo.unread is None and looks_like_image(photo.content) for photo in read)
            photos += read
    return photos


def read_archive(content: bytes | IO[bytes], limits: Limits | None = None) -> list[Photo]:
    """Photographs of one zip, tar or gzipped tar.

    Args:
        content: the archive's bytes, or a seekable binary file.

    Raises:
        InputRefused: see `Limits` and the module's docstring.
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
    except InputRefused:
        raise
    except (OSError, EOFError, ValueError, RuntimeError, LookupError, OverflowError) as error:  # hostile headers
        raise _refused("not_an_archive", "expected a readable zip or tar archive, got a damaged one") from error
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, NotImplementedError) as error:
        raise _refused("not_an_archive", "expected a zip or tar archive, got another kind of file") from error


def is_archive(head: bytes) -> bool:
    """Whether a file's first 512 bytes are those of zip, gzip or tar."""
    return _is_zip(head) or head.startswith(b"\x1f\x8b") or head[257:262] == b"ustar"


def _is_zip(head: bytes) -> bool:
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def _refused(
    reason: str, message: str, hint: str = "pack the photographs again, as regular files, without links or a password"
) -> InputRefused:
    return InputRefused(f"{reason}: {message}", hint=hint, code="ArchiveRefused")


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    closed: list[Path] = []
    # Links to folders are not followed: they may form a cycle.
    for folder, folders, names in os.walk(path, onerror=lambda error: closed.append(Path(error.filename))):
        yield from closed
        closed.clear()
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        yield from (Path(folder, name) for name in sorted(names) if not _is_hidden(name))
    yield from closed


def _own_limit(whole: int) -> int | None:
    return OWN_FILE_BYTES if whole < MAX_PHOTOS else None


def _read_file(file: Path, limits: Limits, *, open_archives: bool, most_bytes: int | None) -> list[Photo]:
    name = printable_name(file.name)
    try:
        if not file.is_file():  # opening a pipe would block until something writes to it
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
    """One file; it is read completely only if it is an image. Sizes in headers are not trusted.

    Args:
        most_bytes: None: the set already has too many photographs, so only the beginning is read.
        is_bomb: whether its compression ratio exceeds that of photographs.
    """
    head = stream.read(HEAD_BYTES)
    if not looks_like_image(head):
        return Photo(name, head, unread="not_an_image" if len(head) == HEAD_BYTES else None)
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
                raise _refused("link", "expected regular files, got a link")
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused("device", "expected regular files, got a device or pipe")
            if entry.flag_bits & 1:
                raise _refused("encrypted", "expected an archive without a password, got an encrypted one")
            if entry.is_dir() or _is_hidden(entry.filename):
                continue
            yield _zip_member(archive, entry, limits)


def _zip_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limits: Limits) -> Photo:
    name = printable_name(entry.filename)
    # other methods allow much higher compression ratios
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return Photo(name, b"", unread="compression")
    is_bomb = entry.file_size > max(limits.ratio_floor_bytes, limits.ratio * entry.compress_size)
    try:
        with archive.open(entry) as member:
            return _photo(name, member, limits.member_bytes, is_bomb=is_bomb)
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return Photo(name, b"", unread="damaged")


def _tar_members(file: IO[bytes], limits: Limits) -> Iterator[Photo]:
    # errorlevel and similar options do not matter: nothing is extracted.
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for count, entry in enumerate(archive, start=1):
            if count > limits.members:
                raise _refused("too_many_members", f"expected at most {limits.members} files, got more")
            _check_name(entry.name)
            if entry.issym() or entry.islnk():
                raise _refused("link", "expected regular files, got a link")
            if not (entry.isreg() or entry.isdir()):
                raise _refused("device", "expected regular files, got a device or pipe")
            if entry.isdir() or _is_hidden(entry.name):
                continue
            member = archive.extractfile(entry)  # a reader; writes nothing
            if member is not None:
                yield _photo(printable_name(entry.name), member, limits.member_bytes)


def _gunzipped(file: IO[bytes], limits: Limits) -> IO[bytes]:
    """The uncompressed tar, limited in size: a tar header can claim any size, a file of known length cannot."""
    packed_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    plain = tempfile.SpooledTemporaryFile(max_size=64 << 20)  # noqa: SIM115 - the caller closes it
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                plain.write(chunk)
                if plain.tell() > max(limits.ratio_floor_bytes, limits.ratio * packed_bytes):
                    raise _refused(
                        "compression_bomb", f"expected a compression ratio of at most {limits.ratio:g} to 1, got more"
                    )
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
        raise _refused("bad_name", "expected printable file names, got one with a NUL byte")
    if parts[0] == "" or parts[0].endswith(":"):
        raise _refused("absolute_path", "expected relative paths in the archive, got an absolute path")
    if ".." in parts:
        raise _refused("path_traversal", "expected paths inside the archive, got one that leaves it (..)")


def _is_hidden(name: str) -> bool:
    """Hidden files, and the resource forks that macOS adds."""
    parts = name.replace("\\", "/").split("/")
    return any((part.startswith(".") and part != ".") or part == "__MACOSX" for part in parts)
