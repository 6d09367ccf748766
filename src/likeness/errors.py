"""Every error that Likeness raises on purpose. A class says what the caller can do; `code` says what happened.

    LikenessError                 HTTP status; exit code 1 unless said
    ├── UsageError           400  change the argument that `param` names; exit code 2 [PromptTooLong]
    ├── SettingsError        400  change the configuration; exit code 2
    ├── MissingPart          503  install the package, file or model that this needs
    ├── InputRefused         422  send other files [PhotosRefused, UnreadablePhoto, UnsupportedAdapter]
    │   └── ArchiveRefused   422  send another archive: this one is hostile, too large or not an archive
    ├── NotFound             404  ask for something that exists
    │                             [AdapterNotFound, SubjectNotFound, JobNotFound, ObjectNotFound, BaseNotFound]
    ├── AlreadyExists        409  choose another name or key, or replace what is there
    │                             [AdapterExists, SubjectExists, IdempotencyConflict]
    ├── AdapterBusy          409  wait until the other process has trained or deleted this name
    ├── WrongBase            409  load the base that the adapter was trained on
    ├── RankTooLarge         409  train or import at a smaller rank, or raise LIKENESS_RANK
    ├── CheckpointMismatch   409  restart: the checkpoint is of another job, recipe, base or set of photographs
    ├── ConsentMissing       403  record that the person agrees
    ├── CorruptAdapter       422  import or train the adapter again: its file is damaged
    ├── CorruptBase          500  install the base again: its files are damaged or incomplete
    ├── EngineBusy           503  try again after `retry_after_s`: the queue is full or the deadline out of reach
    ├── DeadlinePassed       503  try again after `retry_after_s`: accepted, and not finished in time
    ├── EngineClosed         503  open the engine again: it was shut down
    ├── RequestCancelled     499  nothing: the caller cancelled
    ├── DeviceFailed         500  report it: the device failed at this request, or has no memory for it
    ├── OutOfMemory          507  use a smaller base, rank or batch
    ├── TrainingError        500  train again as `hint` says; other jobs go on [NonFiniteLoss, PoisonJob,
    │                             TimeLimitReached]
    ├── QueueFull            429  wait until jobs are finished
    ├── Interrupted          500  run it again: it resumes from a checkpoint; exit code 130
    ├── StorageError         503
    │   ├── StorageUnavailable    wait: the object store or a database does not answer as it should
    │   ├── StorageDamaged        restore a backup: a database, or a row of one, cannot be read
    │   ├── DeletionUnfinished    nothing: the deletion is recorded and continues
    │   └── FileFailed            free space, a port or a right on this machine [PortUnavailable]
    ├── AccessError          400  change the request; the connection is closed. See also http.failures
    │   ├── KeyRefused       401  send a valid API key
    │   └── TooManyRequests  429  slow down: try again after `retry_after_s`
    ├── ModelFailed          424  read `status` and message of the model server
    └── HostUnavailable      503  try again later: the model server does not answer, or has no room

Names in brackets are further codes of a class; otherwise `code` is the name of the class. Codes are stable: HTTP
responses, `--json` and the records of jobs contain them.

Messages say what was expected and what was got; `hint` says what to do. Neither repeats text of a user, which a later
reader (a shell, a log parser, a browser) could interpret.
"""

import os


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


class ArchiveRefused(InputRefused):
    pass


class NotFound(LikenessError):
    http_status = 404


class AlreadyExists(LikenessError):
    http_status = 409


class AdapterBusy(LikenessError):
    http_status = 409


class WrongBase(LikenessError):
    http_status = 409


class RankTooLarge(LikenessError):
    http_status = 409


class CheckpointMismatch(LikenessError):
    http_status = 409


class ConsentMissing(LikenessError):
    http_status = 403


class CorruptAdapter(LikenessError):
    http_status = 422


class CorruptBase(LikenessError):
    http_status = 500


class EngineBusy(LikenessError):
    """The request was refused before any work.

    Args:
        retry_after_s: when to try again, estimated from the throughput of the last steps.
    """

    http_status = 503

    def __init__(self, message: str, *, hint: str = "try again later", retry_after_s: float) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class DeadlinePassed(LikenessError):
    """Args: retry_after_s: when the queue is expected to be shorter."""

    http_status = 503

    def __init__(self, message: str, *, hint: str = "try again later", retry_after_s: float = 1.0) -> None:
        super().__init__(message, hint=hint)
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


class FileFailed(StorageError):
    pass


class AccessError(LikenessError):
    pass


class KeyRefused(AccessError):
    http_status = 401


class TooManyRequests(AccessError):
    """Args: retry_after_s: when the key may be used again."""

    http_status = 429

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class ModelFailed(LikenessError):
    """Args: status: the HTTP status of the model server's response."""

    http_status = 424

    def __init__(self, message: str, *, hint: str = "", status: int) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class HostUnavailable(LikenessError):
    http_status = 503


def reason_of(error: OSError | LikenessError) -> str:
    """The operating system's message without the path, or the message of an error of ours."""
    if isinstance(error, LikenessError):
        return error.message
    return os.strerror(error.errno) if error.errno else type(error).__name__
