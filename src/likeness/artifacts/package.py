"""A folder <-> one tar.gz, for object stores and for SageMaker's TargetModel.

Packing is deterministic: sorted names; fixed owner, mode and times. manifest.json is the first member and lists all
files with size and SHA-256; unpacking accepts exactly these files and no other kind of member. Knows nothing about
LoRA.
Format: POSIX.1-1988 ustar, https://www.gnu.org/software/tar/manual/html_node/Standard.html.
"""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ..errors import AlreadyExists, CorruptAdapter, InputRefused, NotFound
from .card import MAX_BYTES, strict_json

MANIFEST_NAME = "manifest.json"
MAX_FILES = 64
MAX_UNPACKED_BYTES = 2 << 30
_BLOCK = 512
_PASSED_OVER = (tarfile.DIRTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE)
_CHUNK = 1 << 20
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # no leading dot: excludes '..' and hidden files
_NAME = re.compile(rf"{_PART}(/{_PART}){{0,5}}")
_HINT = "pack the adapter again with `likeness export`"


def pack(folder: Path) -> bytes:
    """The folder as tar.gz bytes; equal folders give equal bytes.

    Raises:
        NotFound: no such folder.
        InputRefused: links, invalid names, or above the limits of an archive.
    """
    if not folder.is_dir():
        raise NotFound(
            "expected a folder to pack, got none", hint="`likeness list` shows the adapters", code="AdapterNotFound"
        )
    contents: dict[str, bytes] = {}
    size = 0
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise _refused("expected files and folders, got a link or a device", hint="remove it first")
        if path.is_file():
            _check_name(name)
            size += path.stat().st_size
            _check_room(len(contents) + 1, size)
            contents[name] = path.read_bytes()
    listing = {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in contents.items()}
    manifest = json.dumps({"format": 1, "files": listing}, indent=2, sort_keys=True).encode() + b"\n"
    packed = io.BytesIO()
    # Level 1: float16 weights hardly compress, and higher levels cost more time.
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=packed, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in [(MANIFEST_NAME, manifest), *sorted(contents.items())]:
            entry = tarfile.TarInfo(name)  # uid, gid and mtime are 0, owner names empty
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def refuse_existing(folder: Path) -> None:
    """Raises AlreadyExists: the folder exists."""
    if folder.exists():
        raise AlreadyExists(
            "expected a new folder, got one that exists",
            hint="choose another path, or remove the folder first",
            code="AdapterExists",
        )


def unpack(source: bytes | Path, into: Path, *, needs_manifest: bool = True) -> Path:
    """Unpack into a new folder, atomically.

    Args:
        into: must not exist; its parent must.
        needs_manifest: False also accepts archives of other programs: without a manifest, with entries for folders,
            with hidden files (which are skipped). If there is a manifest, it is always checked.

    Returns:
        `into`.

    Raises:
        AlreadyExists: `into` exists.
        InputRefused: not a tar.gz; links, devices, folders, invalid or repeated names; too many or too large files.
        CorruptAdapter: files or hashes do not match the manifest.
    """
    refuse_existing(into)
    staged = Path(tempfile.mkdtemp(prefix=".incoming-", dir=into.parent))
    try:
        with _opened(source) as raw, gzip.GzipFile(fileobj=raw, mode="rb") as stream:
            _unpack_entries(stream, staged, needs_manifest=needs_manifest)
        os.rename(staged, into)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:  # BadGzipFile is an OSError
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise
        raise _refused(f"expected a complete tar.gz, got {type(error).__name__}") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return into


def _opened(source: bytes | Path) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not source.is_file():
        raise NotFound("expected a tar.gz, got no file", hint="check the path", code="AdapterNotFound")
    return source.open("rb")


def _unpack_entries(stream: gzip.GzipFile, folder: Path, *, needs_manifest: bool) -> None:
    manifest: dict[str, tuple[int, str]] | None = None
    seen: set[str] = set()
    for entry in _entries(stream, foreign=not needs_manifest):
        if manifest is None and not seen and entry.name == MANIFEST_NAME and entry.size <= MAX_BYTES:
            manifest = _read_manifest(_exactly(stream, entry.size))
        elif manifest is None and needs_manifest:
            raise _refused("expected manifest.json as the first file")
        else:
            if entry.name in seen:
                raise _refused("expected each file once, got a repeated name")
            if manifest is not None and entry.name not in manifest:
                raise CorruptAdapter("expected only files of the manifest, got another", hint=_HINT)
            seen.add(entry.name)
            _unpack_file(stream, entry, folder, expected=None if manifest is None else manifest[entry.name])
        _exactly(stream, -entry.size % _BLOCK)
    if manifest is None and not seen:
        raise _refused("expected files in the archive, got none")
    if manifest is not None and (missing := len(manifest.keys() - seen)):
        raise CorruptAdapter(f"expected all files of the manifest, {missing} are missing", hint=_HINT)


def _entries(stream: gzip.GzipFile, *, foreign: bool) -> Iterator[tarfile.TarInfo]:
    """Yields headers one by one; the caller reads the file's blocks in between.

    Args:
        foreign: skip folders, hidden files and extended headers (times, owners), and remove a leading './'.

    tarfile is not used to iterate, because it would interpret extended headers, sparse maps and links.
    """
    size = 0
    for count in range(MAX_FILES + 2):
        block = _exactly(stream, _BLOCK)
        if not any(block):
            _check_end(stream)
            return
        try:
            entry = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.TarError, ValueError) as error:
            raise _refused(f"expected a tar header, got {type(error).__name__}") from None
        is_file = entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
        if entry.size < 0 or not (is_file or (foreign and entry.type in _PASSED_OVER)):
            raise _refused("expected regular files only, got a link, a folder or a device")
        size += entry.size
        _check_room(count, size)
        if foreign:
            entry.name = entry.name.removeprefix("./")
            if not is_file or PurePosixPath(entry.name).name.startswith("."):
                _pass_over(stream, entry.size)
                continue
        _check_name(entry.name, inside=True)
        yield entry
    raise _refused(f"expected at most {MAX_FILES} files")


def _pass_over(stream: gzip.GzipFile, size: int) -> None:
    left = size + -size % _BLOCK
    while left:
        left -= len(_exactly(stream, min(left, _CHUNK)))


def _check_end(stream: gzip.GzipFile) -> None:
    rest = stream.read(32 * _BLOCK)  # a tar is padded to 20 blocks
    if any(rest) or stream.read(1):
        raise _refused("expected nothing after the end of the archive")


def _read_manifest(content: bytes) -> dict[str, tuple[int, str]]:
    document = strict_json(content)
    files = document.get("files")
    if document.get("format") != 1 or not isinstance(files, dict) or len(files) > MAX_FILES:
        raise CorruptAdapter("expected a manifest of format 1 with a list of files", hint=_HINT)
    listed: dict[str, tuple[int, str]] = {}
    for name, fact in files.items():
        _check_name(name)
        if not isinstance(fact, dict) or type(fact.get("bytes")) is not int or not isinstance(fact.get("sha256"), str):
            raise CorruptAdapter("expected bytes and sha256 for each file of the manifest", hint=_HINT)
        listed[name] = (fact["bytes"], fact["sha256"])
    return listed


def _unpack_file(
    stream: gzip.GzipFile, entry: tarfile.TarInfo, folder: Path, *, expected: tuple[int, str] | None
) -> None:
    path = folder / entry.name
    digest = hashlib.sha256()
    left = entry.size
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    except OSError:
        raise _refused("expected names that can exist together, got a file that is also a folder") from None
    with file:
        while left:
            chunk = _exactly(stream, min(left, _CHUNK))
            digest.update(chunk)
            file.write(chunk)
            left -= len(chunk)
    if expected is not None and (entry.size, digest.hexdigest()) != expected:
        raise CorruptAdapter("a file does not match the manifest", hint=_HINT)


def _exactly(stream: gzip.GzipFile, size: int) -> bytes:
    content = stream.read(size)
    if len(content) != size:
        raise _refused("expected more data, got the end of the archive")
    return content


def _check_name(name: str, *, inside: bool = False) -> None:
    reserved = name == MANIFEST_NAME and not inside
    if reserved or len(name) > 100 or not _NAME.fullmatch(name):
        raise _refused("expected file names of letters, digits, _ . - and /, inside the folder, at most 100 characters")


def _check_room(count: int, size: int) -> None:
    if count > MAX_FILES or size > MAX_UNPACKED_BYTES:
        raise _refused(f"expected at most {MAX_FILES} files and {MAX_UNPACKED_BYTES} bytes unpacked")


def _refused(message: str, *, hint: str = _HINT) -> InputRefused:
    return InputRefused(message, hint=hint, code="ArchiveRefused")
