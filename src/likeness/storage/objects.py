"""Bytes by key: one protocol, a local folder, and S3. Whoever has a URL gets one of them from `objects_at`.

Keys are ours, made of tenants, names and hashes; the checks here are the second fence, not the first. Knows nothing of
what the bytes are. Source: Amazon S3 User Guide, 'Object key naming guidelines', for the letters of a key.
"""

import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol
from urllib.parse import unquote, urlsplit

from ..errors import FileFailed, MissingPart, NotFound, SettingsError, StorageUnavailable, UsageError
from .files import make_private

_PART = r"[A-Za-z0-9_!*'()][A-Za-z0-9_.!*'()-]{0,199}"  # no leading dot: neither '..' nor our own half-written files
_KEY = re.compile(rf"{_PART}(/{_PART}){{0,9}}")
_PREFIX = re.compile(rf"({_PART}/){{0,9}}({_PART})?")
_MOST_CHARACTERS = 900  # S3 takes 1024 bytes, of which a configured prefix needs some
_INCOMING = ".incoming"
_LOOK_S = 0.02
_GRACE_S = 3600.0  # much longer than a row waits for its database
_MARGIN_BYTES = 256 << 10  # for the catalog's row and its log
_PLACES = "expected a place for objects: a folder, file:///FOLDER or s3://BUCKET/PREFIX"
# not there; a folder; a part of the path that is a file; a link: no object of ours
_NO_OBJECT = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True)
class ObjectFacts:
    """What is known of an object without reading it."""

    key: str
    bytes: int
    modified: datetime  # UTC


class Objects(Protocol):
    """A place for bytes. Whatever can be read was written whole."""

    @property
    def grace_s(self) -> float:
        """How old an object must be to be an orphan, seconds: 0 where `alone` keeps writers out."""

    def put(self, key: str, content: bytes) -> None:
        """Write or replace an object, all of it or nothing. Raises UsageError, StorageUnavailable."""

    def get(self, key: str) -> bytes:
        """Raises NotFound, UsageError, StorageUnavailable."""

    def has(self, key: str) -> bool:
        """Raises UsageError, StorageUnavailable."""

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error. Raises UsageError, StorageUnavailable."""

    def list(self, prefix: str) -> Iterator[ObjectFacts]:
        """Objects whose keys begin with `prefix` (letter by letter, as in S3), by key."""

    def prune(self, prefix: str) -> None:
        """Take away what is left of a prefix that ends in '/' (or of all) beside objects: a folder with its name."""

    def writing(self) -> AbstractContextManager[None]:
        """To be held from before an object is put until the row that owns it is written. Raises StorageUnavailable."""

    def alone(self, wait_s: float = 0.0) -> AbstractContextManager[bool]:
        """Keep all who write out, and delete what those left who died at it.

        Yields:
            False where somebody was still writing after `wait_s`; nothing was deleted then.

        Raises:
            StorageUnavailable: the place cannot be opened, or what was left cannot be deleted.
        """


@contextmanager
def _answering() -> Iterator[None]:
    """What the file system refuses (no room, no right, a disk that fails) as StorageUnavailable."""
    try:
        yield
    except OSError as error:
        raise StorageUnavailable(
            f"expected the folder of objects to work, got {errno.errorcode.get(error.errno or 0, 'an error')}",
            hint="check the folder, its rights and the free space of its disk",
        ) from error


@dataclass(frozen=True)
class FileObjects:
    """Objects in a folder: the key is the path. Folders appear with the first object and go with the last."""

    root: Path

    @_answering()
    def put(self, key: str, content: bytes) -> None:
        path = self.root / checked_key(key)
        with self.writing():
            self._write(path, content)

    def _write(self, path: Path, content: bytes) -> None:
        incoming = self.root / _INCOMING
        make_private(incoming)
        handle, staged = tempfile.mkstemp(dir=incoming)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            _move(Path(staged), path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(staged)

    @_answering()
    def get(self, key: str) -> bytes:
        try:
            with open(self.root / checked_key(key), "rb", opener=_no_links) as file:
                return file.read()
        except OSError as error:
            if error.errno in _NO_OBJECT:
                raise NotFound(
                    "there is no object of this key", hint="it may have been deleted", code="ObjectNotFound"
                ) from error
            raise

    @_answering()
    def has(self, key: str) -> bool:
        path = self.root / checked_key(key)
        return path.is_file() and not path.is_symlink()

    @_answering()
    def delete(self, key: str) -> None:
        path = self.root / checked_key(key)
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
        with suppress(OSError):  # the first folder that still holds something ends it
            for folder in path.parents[: len(Path(key).parts) - 1]:
                folder.rmdir()

    def list(self, prefix: str) -> Iterator[ObjectFacts]:
        folder = self.root / checked_prefix(prefix).rpartition("/")[0]
        found = folder.rglob("*") if folder.is_dir() else []
        for path in sorted(found, key=Path.as_posix):  # letter by letter, as in S3; paths would sort part by part
            key = path.relative_to(self.root).as_posix()
            if not key.startswith(prefix) or "/." in f"/{key}" or path.is_symlink():  # half-written; a lock
                continue
            with suppress(FileNotFoundError):  # deleted while we looked
                if path.is_file():
                    facts = path.stat()
                    yield ObjectFacts(key, facts.st_size, datetime.fromtimestamp(facts.st_mtime, UTC))

    @property
    def grace_s(self) -> float:
        return 0.0 if self._has_locks() else _GRACE_S

    def prune(self, prefix: str) -> None:
        for folder, *_ in os.walk(self.root / checked_prefix(prefix), topdown=False):
            if folder != str(self.root) and "/." not in folder.removeprefix(str(self.root)):
                with suppress(OSError):  # it holds something
                    os.rmdir(folder)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A shared lock of the folder; the system lets go of it where the process is killed."""
        with ExitStack() as stack:
            with _answering():
                make_private(self.root)
                folder = stack.enter_context(_opened(self.root))
            with suppress(OSError):  # a file system without locks of folders: see `grace_s`
                fcntl.flock(folder, fcntl.LOCK_SH)
            yield

    @contextmanager
    def alone(self, wait_s: float = 0.0) -> Iterator[bool]:
        if not self.root.is_dir() or not self._has_locks():
            yield True
            return
        end_s = time.monotonic() + wait_s
        with ExitStack() as stack:
            with _answering():
                folder = stack.enter_context(_opened(self.root))
                while not (is_alone := _locked(folder)) and time.monotonic() < end_s:
                    time.sleep(_LOOK_S)
                if is_alone:
                    for path in (self.root / _INCOMING).glob("*"):
                        path.unlink(missing_ok=True)
            yield is_alone

    def _has_locks(self) -> bool:
        """Whether this file system locks folders; some that are on other machines do not."""
        with suppress(FileNotFoundError), _opened(self.root) as folder:
            try:
                fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True  # somebody has it
            except OSError:
                return False
        return True


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)  # with it goes its lock


def _locked(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _whole(answer: Any) -> Any:
    return answer


class S3Objects:
    """Objects in a bucket of S3, or of anything that speaks its protocol (AWS_ENDPOINT_URL_S3).

    Credentials, region and endpoint are boto3's own business (environment, profile, instance role).
    """

    grace_s: ClassVar[float] = _GRACE_S

    def __init__(self, bucket: str, prefix: str = "", *, endpoint_url: str | None = None) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise MissingPart("S3 needs the package boto3", hint="pip install 'likeness[aws]'") from error
        self.bucket = bucket
        self.prefix = f"{checked_key(prefix.strip('/'))}/" if prefix.strip("/") else ""
        config = Config(retries={"mode": "standard", "max_attempts": 4}, connect_timeout=5, read_timeout=60)
        self._client: Any = boto3.client("s3", endpoint_url=endpoint_url, config=config)

    def put(self, key: str, content: bytes) -> None:
        self._call("put_object", Key=self._full(key), Body=content)

    def get(self, key: str) -> bytes:
        # within the call: the connection may break in the middle of the body
        content: bytes = self._call("get_object", lambda answer: answer["Body"].read(), Key=self._full(key))
        return content

    def has(self, key: str) -> bool:
        try:
            self._call("head_object", Key=self._full(key))
        except NotFound:
            return False
        return True

    def delete(self, key: str) -> None:
        self._call("delete_object", Key=self._full(key))

    def list(self, prefix: str) -> Iterator[ObjectFacts]:
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", Prefix=self.prefix + checked_prefix(prefix), **token)
            for found in page.get("Contents", ()):
                key = found["Key"].removeprefix(self.prefix)
                yield ObjectFacts(key, found["Size"], found["LastModified"].astimezone(UTC))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def prune(self, prefix: str) -> None:
        """A bucket has no folders."""

    def writing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def alone(self, wait_s: float = 0.0) -> AbstractContextManager[bool]:
        return nullcontext(True)  # an object appears whole: nothing is ever left half-written

    def _full(self, key: str) -> str:
        return self.prefix + checked_key(key)

    def _call(self, operation: str, read: Callable[[Any], Any] = _whole, /, **arguments: object) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return read(getattr(self._client, operation)(Bucket=self.bucket, **arguments))
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in ("NoSuchKey", "404"):
                raise NotFound(
                    "there is no object of this key", hint="it may have been deleted", code="ObjectNotFound"
                ) from error
            hint = "check the bucket's name and the credentials"
            raise StorageUnavailable(
                f"expected S3 to {operation.replace('_', ' ')}, got {code[:40]}", hint=hint
            ) from error
        except BotoCoreError as error:
            raise StorageUnavailable(
                f"expected an answer of S3, got {type(error).__name__}", hint="check the endpoint and the credentials"
            ) from error


def objects_at(url: str) -> Objects:
    """The objects at `s3://bucket/prefix`, `file:///folder` or a folder's path.

    Raises:
        SettingsError: another kind of URL.
        MissingPart: S3 without boto3.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:  # brackets without an address in them
        raise SettingsError(_PLACES) from error
    if parts.scheme == "s3" and parts.netloc and not parts.query:
        return S3Objects(parts.netloc, parts.path)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return FileObjects(Path(unquote(parts.path)))
    if "://" not in url and url:
        return FileObjects(Path(url).expanduser())
    raise SettingsError(_PLACES)


def refuse_full(objects: Objects, needed_bytes: int) -> None:
    """Before work whose result has this size. Raises FileFailed: the disk of a folder has less room."""
    if not isinstance(objects, FileObjects):
        return
    folder = next(place for place in (objects.root.absolute(), *objects.root.absolute().parents) if place.exists())
    needed, free = needed_bytes + _MARGIN_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        raise FileFailed(
            f"expected {needed / 1e6:.1f} MB of free space for the result, got {free / 1e6:.1f} MB",
            hint="make room, or set LIKENESS_OBJECTS to another place",
        )


def checked_key(key: str) -> str:
    """The key, if it can be one everywhere. Raises UsageError."""
    if len(key) > _MOST_CHARACTERS or not _KEY.fullmatch(key):
        raise UsageError("expected an object key of at most 10 parts of letters, digits and _ . ! * ' ( ) -")
    return key


def checked_prefix(prefix: str) -> str:
    """The beginning of a key, or nothing, which is the beginning of every key. Raises UsageError."""
    if len(prefix) > _MOST_CHARACTERS or not _PREFIX.fullmatch(prefix):
        raise UsageError("expected the beginning of an object key")
    return prefix


def _move(staged: Path, path: Path) -> None:
    """Rename into a folder that a concurrent `delete` may remove under our hands."""
    for attempt in range(20):
        try:
            make_private(path.parent)
            os.replace(staged, path)
        except (FileNotFoundError, FileExistsError) as error:  # the second: a folder that was there and is gone again
            if path.parent.is_file():
                raise UsageError("expected a key that is no part of another key's path") from error
            if attempt == 19:
                raise
            continue
        except (NotADirectoryError, IsADirectoryError) as error:
            raise UsageError("expected a key that is no part of another key's path") from error
        break
    with suppress(FileNotFoundError):  # deleted again by now
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name, too, survives a power cut
        finally:
            os.close(folder)


def _no_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)
