"""Object stores: one protocol, with a local folder and S3 as implementations; `objects_at` opens one by its URL.

Keys consist of tenants, names and hashes that are checked before; the checks here are a second line of defence. The
store does not interpret the bytes. Source: Amazon S3 User Guide, 'Object key naming guidelines', for the characters of
a key.
"""

import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol
from urllib.parse import unquote

from ..errors import MissingPart, NotFound, SettingsError, StorageError, StorageUnavailable, UsageError
from .files import make_private, opened

_PART = r"[A-Za-z0-9_!*'()][A-Za-z0-9_.!*'()-]{0,199}"  # no leading dot: excludes '..' and partly written files
_KEY = re.compile(rf"{_PART}(/{_PART}){{0,9}}")
_PREFIX = re.compile(rf"({_PART}/){{0,9}}({_PART})?")
_MOST_CHARACTERS = 900  # S3 allows 1024 bytes, including the configured prefix
_INCOMING = ".incoming"
_LOOK_S = 0.02
_GRACE_S = 3600.0  # much longer than writing a row can wait for the database
_MARGIN_BYTES = 256 << 10  # for the catalog's row and write-ahead log
_S3 = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/[^?#\x00-\x20\x7f]*)?")
_FILE = re.compile(r"file://(?:localhost)?(/[^?#\x00-\x20\x7f]*)")
_PLACES = "expected an object store: a folder, file:///FOLDER or s3://BUCKET/PREFIX"
# errors for: missing, a folder, a file as part of the path, a link
_NO_OBJECT = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True)
class ObjectFacts:
    """Properties of an object, without its content."""

    key: str
    bytes: int
    modified: datetime  # UTC


class Objects(Protocol):
    """Stores bytes by key. Writes are atomic: only complete objects can be read."""

    @property
    def grace_s(self) -> float:
        """Minimum age of an orphaned object in seconds; 0 if `alone` excludes writers."""

    def put(self, key: str, content: bytes) -> None:
        """Write or replace an object atomically. Raises UsageError, StorageUnavailable."""

    def get(self, key: str) -> bytes:
        """Raises NotFound, UsageError, StorageUnavailable."""

    def has(self, key: str) -> bool:
        """Raises UsageError, StorageUnavailable."""

    def delete(self, key: str) -> None:
        """Delete an object, if it exists. Raises UsageError, StorageUnavailable."""

    def list(self, prefix: str) -> Iterator[ObjectFacts]:
        """Objects whose keys begin with the characters of `prefix`, as in S3, sorted by key."""

    def prune(self, prefix: str) -> None:
        """Remove empty folders of a prefix that ends in '/', or of the whole store."""

    def writing(self) -> AbstractContextManager[None]:
        """A shared lock, held from before an object is written until its row is written. Raises StorageUnavailable."""

    def alone(self, wait_s: float = 0.0) -> AbstractContextManager[bool]:
        """Exclude writers, and delete files left by writers that died.

        Yields:
            False if there was still a writer after `wait_s`; then nothing was deleted.

        Raises:
            StorageUnavailable: the store cannot be opened, or files cannot be deleted.
        """


@contextmanager
def _answering() -> Iterator[None]:
    """Raises file-system errors (disk full, no permission, disk failure) as StorageUnavailable."""
    try:
        yield
    except OSError as error:
        raise StorageUnavailable(
            f"expected the object store's folder to work, got {errno.errorcode.get(error.errno or 0, 'an error')}",
            hint="check the folder, its permissions and the free space of its disk",
        ) from error


@dataclass(frozen=True)
class FileObjects:
    """Objects in a folder: the key is the path. Sub-folders are created and removed as needed."""

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
            with open(self.root / checked_key(key), "rb", opener=_regular) as file:
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
        with suppress(OSError):  # stops at the first folder that is not empty
            for folder in path.parents[: len(Path(key).parts) - 1]:
                folder.rmdir()

    def list(self, prefix: str) -> Iterator[ObjectFacts]:
        folder = self.root / checked_prefix(prefix).rpartition("/")[0]
        with _answering():
            found = [Path(at, name) for at, _, names in os.walk(folder, onerror=_unless_gone) for name in names]
        for path in sorted(found, key=Path.as_posix):  # by characters, as in S3; paths would sort by parts
            key = path.relative_to(self.root).as_posix()
            if not key.startswith(prefix) or "/." in f"/{key}" or path.is_symlink():  # partly written, or a lock
                continue
            with suppress(FileNotFoundError):  # deleted meanwhile
                if path.is_file():
                    facts = path.stat()
                    yield ObjectFacts(key, facts.st_size, datetime.fromtimestamp(facts.st_mtime, UTC))

    @property
    def grace_s(self) -> float:
        return 0.0 if self._has_locks() else _GRACE_S

    def prune(self, prefix: str) -> None:
        for folder, *_ in os.walk(self.root / checked_prefix(prefix), topdown=False):
            if folder != str(self.root) and "/." not in folder.removeprefix(str(self.root)):
                with suppress(OSError):  # not empty
                    os.rmdir(folder)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A shared lock of the folder; the system releases it if the process is killed."""
        with ExitStack() as stack:
            with _answering():
                make_private(self.root)
                folder = stack.enter_context(opened(self.root))
            with suppress(OSError):  # a file system without folder locks: see `grace_s`
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
                folder = stack.enter_context(opened(self.root))
                while not (is_alone := _locked(folder)) and time.monotonic() < end_s:
                    time.sleep(_LOOK_S)
                if is_alone:
                    for path in (self.root / _INCOMING).glob("*"):
                        path.unlink(missing_ok=True)
            yield is_alone

    def _has_locks(self) -> bool:
        """Whether this file system can lock folders; some network file systems cannot."""
        with suppress(FileNotFoundError), opened(self.root) as folder:
            try:
                fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True  # locked by another process
            except OSError:
                return False
        return True


def _locked(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _whole(answer: Any) -> Any:
    return answer


class S3Objects:
    """Objects in a bucket of S3 or a compatible service (AWS_ENDPOINT_URL_S3).

    boto3 finds credentials, region and endpoint (environment, profile, instance role).
    """

    grace_s: ClassVar[float] = _GRACE_S

    def __init__(self, bucket: str, prefix: str = "", *, endpoint_url: str | None = None) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise MissingPart(
                "expected the package boto3 for S3, which is not installed", hint="pip install 'likeness[aws]'"
            ) from error
        self.bucket = bucket
        self.prefix = f"{checked_key(prefix.strip('/'))}/" if prefix.strip("/") else ""
        config = Config(retries={"mode": "standard", "max_attempts": 4}, connect_timeout=5, read_timeout=60)
        self._client: Any = boto3.client("s3", endpoint_url=endpoint_url, config=config)

    def put(self, key: str, content: bytes) -> None:
        self._call("put_object", Key=self._full(key), Body=content)

    def get(self, key: str) -> bytes:
        # inside the call, because the connection can break while reading the body
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
        """Nothing to do: a bucket has no folders."""

    def writing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def alone(self, wait_s: float = 0.0) -> AbstractContextManager[bool]:
        return nullcontext(True)  # S3 writes atomically: no partly written objects

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
                f"expected a response from S3, got {type(error).__name__}",
                hint="check the endpoint and the credentials",
            ) from error


def objects_at(url: str) -> Objects:
    """The objects at `s3://bucket/prefix`, `file:///folder` or a folder's path.

    Raises:
        SettingsError: another kind of URL.
        MissingPart: S3 without boto3.
    """
    if bucket := _S3.fullmatch(url):
        return S3Objects(bucket[1], bucket[2] or "")
    if folder := _FILE.fullmatch(url):
        url = unquote(folder[1])
    if url and "://" not in url and "\0" not in url:
        return FileObjects(Path(url).expanduser())
    raise SettingsError(_PLACES)


def refuse_full(objects: Objects, needed_bytes: int) -> None:
    """Check free space before work with a result of this size. Raises StorageError: too little free space."""
    if not isinstance(objects, FileObjects):
        return
    folder = next(place for place in (objects.root.absolute(), *objects.root.absolute().parents) if place.exists())
    needed, free = needed_bytes + _MARGIN_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"expected {needed / 1e6:.1f} MB of free space for the result, got {free / 1e6:.1f} MB",
            hint="free some space, or set LIKENESS_OBJECTS to another disk or a bucket",
            code="FileFailed",
        )


def checked_key(key: str) -> str:
    """The key, if it is valid in every store. Raises UsageError."""
    if len(key) > _MOST_CHARACTERS or not _KEY.fullmatch(key):
        raise UsageError("expected an object key of at most 10 parts of letters, digits and _ . ! * ' ( ) -")
    return key


def checked_prefix(prefix: str) -> str:
    """The prefix, if it is the beginning of a valid key or empty. Raises UsageError."""
    if len(prefix) > _MOST_CHARACTERS or not _PREFIX.fullmatch(prefix):
        raise UsageError("expected the beginning of a valid object key")
    return prefix


def _move(staged: Path, path: Path) -> None:
    """Rename into a folder that a concurrent `delete` may remove."""
    for attempt in range(20):
        try:
            make_private(path.parent)
            os.replace(staged, path)
        except (FileNotFoundError, FileExistsError) as error:  # FileExistsError: the folder was removed again
            if path.parent.is_file():
                raise UsageError("expected a key that is not the folder of another key") from error
            if attempt == 19:
                raise
            continue
        except (NotADirectoryError, IsADirectoryError) as error:
            raise UsageError("expected a key that is not the folder of another key") from error
        break
    with suppress(FileNotFoundError):  # deleted meanwhile
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # so that the new name survives a power failure
        finally:
            os.close(folder)


def _unless_gone(error: OSError) -> None:
    """Raises the error of a folder that cannot be read, unless it was deleted meanwhile."""
    if error.errno not in _NO_OBJECT:
        raise error


def _regular(path: str, flags: int) -> int:
    """For `open`: a regular file only. Opening a pipe without O_NONBLOCK would wait for a writer."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return handle
