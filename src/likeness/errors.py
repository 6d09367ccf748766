"""Every error that Likeness raises on purpose. A class says what the caller can do; `code` says what happened.

    LikenessError                 HTTP status; exit code 1 unless said
    ├── UsageError           400  change the argument that `param` names; exit code 2 [PromptTooLong]
    ├── SettingsError        400  change the configuration; exit code 2
    ├── MissingPart          503  install the package, file or model that this needs
    ├── InputRefused         422  send other files [PhotosRefused, UnreadablePhoto, UnsupportedAdapter, ArchiveRefused]
    ├── NotFound             404  ask for something that exists
    │                             [AdapterNotFound, SubjectNotFound, JobNotFound, ObjectNotFound, BaseNotFound]
    ├── AlreadyExists        409  choose another name or key, or replace what is there
    │                             [AdapterExists, SubjectExists, IdempotencyConflict]
    ├── AdapterBusy          409  wait until the other process has trained or deleted this name
    ├── Mismatch             409  use what fits: the base of the adapter, a smaller rank, the first run's arguments
    │                             [WrongBase, RankTooLarge, CheckpointMismatch]
    ├── ConsentMissing       403  record that the person agrees
    ├── CorruptAdapter       422  import or train the adapter again: its file is damaged
    ├── CorruptBase          500  install the base again: its files are damaged or incomplete
    ├── EngineBusy           503  try again after `retry_after_s`: the queue is full, or the deadline out of reach or
    │                             passed, or no replica could make it [DeadlinePassed, ReplicaLost]
    ├── EngineClosed         503  open the engine again: it was shut down
    ├── RequestCancelled     499  nothing: the caller cancelled
    ├── DeviceFailed         500  report it: the device failed at this request, or has no memory for it
    ├── OutOfMemory          507  use a smaller base, rank or batch
    ├── TrainingError        500  train again as `hint` says; other jobs go on [NonFiniteLoss, PoisonJob,
    │                             TimeLimitReached]
    ├── QueueFull            429  wait until jobs are finished
    ├── Interrupted          500  run it again: it resumes from a checkpoint; exit code 130
    ├── KeyRefused           401  send a valid API key
    └── StorageError         503  free space, a port or a right on this machine [FileFailed, PortUnavailable]
        ├── StorageUnavailable    wait: the object store or a database does not answer as it should
        ├── StorageDamaged        restore a backup: a database, or a row of one, cannot be read
        └── DeletionUnfinished    nothing: the deletion is recorded and continues

`http.failures` has the errors of the HTTP layer alone, `deploy.sagemaker.aws` those of AWS.

Names in brackets are further codes of a class; otherwise `code` is the name of the class. Codes are stable: HTTP
responses, `--json` and the records of jobs contain them.

Messages say what was expected and what was got; `hint` says what to do. Neither repeats text of a user, which a later
reader (a shell, a log parser, a browser) could interpret.
"""

import os
import re

_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,160}")


class LikenessError(Exception):
    """Base of the tree.

    Args:
        message: expected and got, one sentence.
        hint: what the reader can do about it.
        code: stable, for machines; the name of the class unless given.
    """

    exit_code = 1
    http_status = 400

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or type(self).__name__

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(LikenessError):
    """Args: param: name of the field that is out of its range, where it is a field of a request."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", code: str = "", param: str | None = None) -> None:
        super().__init__(message, hint=hint, code=code)
        self.param = param


class SettingsError(LikenessError):
    exit_code = 2


class MissingPart(LikenessError):
    http_status = 503


class InputRefused(LikenessError):
    http_status = 422


class NotFound(LikenessError):
    http_status = 404


class AlreadyExists(LikenessError):
    http_status = 409


class AdapterBusy(LikenessError):
    http_status = 409


class Mismatch(LikenessError):
    http_status = 409


class ConsentMissing(LikenessError):
    http_status = 403


class CorruptAdapter(LikenessError):
    http_status = 422


class CorruptBase(LikenessError):
    http_status = 500


class EngineBusy(LikenessError):
    """Args: retry_after_s: when to try again, estimated from the throughput of the last steps."""

    http_status = 503

    def __init__(
        self, message: str, *, hint: str = "try again later", code: str = "", retry_after_s: float = 1.0
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.retry_after_s = retry_after_s


class EngineClosed(LikenessError):
    http_status = 503


class RequestCancelled(LikenessError):
    http_status = 499  # by convention: the client closed the request


class DeviceFailed(LikenessError):
    http_status = 500


class OutOfMemory(LikenessError):
    http_status = 507


class TrainingError(LikenessError):
    http_status = 500


class QueueFull(LikenessError):
    http_status = 429


class Interrupted(LikenessError):
    exit_code = 130
    http_status = 500


class StorageError(LikenessError):
    http_status = 503


class StorageUnavailable(StorageError):
    pass


class StorageDamaged(StorageError):
    pass


class DeletionUnfinished(StorageError):
    pass


class KeyRefused(LikenessError):
    http_status = 401


def reason_of(error: OSError | LikenessError) -> str:
    """The operating system's message without the path, or the message of an error of ours."""
    if isinstance(error, LikenessError):
        return error.message
    return os.strerror(error.errno) if error.errno else type(error).__name__


def plain_name(text: str) -> str:
    """A key, field or module name for a message, if it has only letters, digits, _ . and -."""
    return text if _PLAIN.fullmatch(text) else "(a name with other characters)"
