"""Every error that Likeness raises on purpose.

    LikenessError
    ├── UsageError              an option or argument is out of its range
    │   └── PromptTooLong       the base does not read as far as the subject
    ├── SettingsError           the configuration names an unknown key or a bad value
    ├── MissingPart             a package, file or model that this verb needs is not installed
    ├── PortUnavailable         the address to listen at is taken, not this machine's, or needs rights
    ├── PhotoError
    │   ├── ArchiveRefused      an archive is hostile, too large or not an archive
    │   ├── UnreadablePhoto     bytes that are no photograph we can decode
    │   └── PhotosRefused       the set as a whole cannot be trained on
    ├── BaseError
    │   ├── BaseNotFound        no such folder, hub id or revision
    │   └── CorruptBase         weights missing, unexpected, or not matching their checksums
    ├── AdapterError
    │   ├── AdapterNotFound
    │   ├── AdapterExists
    │   ├── AdapterBusy         another process is training or deleting this name
    │   ├── CorruptAdapter      truncated, NaN, unknown keys, or not safetensors
    │   ├── UnsupportedAdapter  a whole file of a kind that is not read: DoRA, LoHa, a zip, ...
    │   ├── RankTooLarge        above LIKENESS_RANK, the largest that is trained, imported and served
    │   └── WrongBase           trained on another base than the one that is loaded
    ├── EngineError
    │   ├── EngineBusy          the queue is full, or the deadline cannot be met; try again later
    │   ├── DeadlinePassed      accepted, but not finished in time
    │   ├── RequestCancelled    taken back by whoever sent it
    │   ├── EngineClosed        the engine is shutting down
    │   └── DeviceFailed        the device failed at this request, or has no memory for it
    ├── SubjectError
    │   ├── SubjectNotFound
    │   ├── SubjectExists
    │   └── ConsentMissing      nobody has said that the person agrees
    ├── StorageError
    │   ├── ObjectNotFound      nothing under this key, or not any more
    │   ├── DeletionUnfinished  recorded, not complete yet, and going on by itself
    │   ├── StorageUnavailable  the object store or the catalog does not answer as it should
    │   ├── StorageDamaged      a database, or a row of one, is there and cannot be read
    │   └── FileFailed          this machine's files or connections: no room, no right, no folder there
    ├── AccessError
    │   ├── KeyRefused          no API key, or one that is unknown or revoked
    │   ├── OriginRefused       a web page of another site asks, or by another host's name
    │   ├── TooManyRequests     of this key: rate or concurrency
    │   ├── RequestTooLarge
    │   ├── MediaTypeRefused    the body is of another media type than this route takes
    │   └── RequestTooSlow      the body did not arrive in time
    ├── JobError
    │   ├── JobNotFound         no such job, or another tenant's
    │   ├── IdempotencyConflict the key was used for another order
    │   ├── QueueFull           too many jobs are waiting
    │   ├── InputRefused        what was sent to be trained on cannot be read or is not allowed
    │   ├── TimeLimitReached    the job ran longer than it was given
    │   ├── PoisonJob           the job's own process died three times at the same place
    │   └── OutOfMemory         the device or this machine cannot hold this job, even alone
    ├── HostingError
    │   ├── ModelFailed         the model server refused a model or a request to it
    │   └── HostUnavailable     the model server does not answer, or has no room
    └── TrainingError
        ├── NonFiniteLoss       this job's loss is no number any more; other jobs go on
        ├── CheckpointMismatch  a checkpoint belongs to another job, recipe or set of photos
        └── Interrupted         stopped by the user; a checkpoint was written

Messages say what was expected and what was got; `hint` says what to do. Neither ever repeats text of a
user's that some later reader (a shell, a log parser, a browser) could take for its own language.
"""

import os


class LikenessError(Exception):
    """Base of the tree.

    Args:
        message: expected and got, one sentence.
        hint: what the reader can do about it.
    """

    exit_code = 1
    http_status = 400

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def code(self) -> str:
        """The class name: stable, for machines."""
        return type(self).__name__

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(LikenessError):
    """Args: param: name of the field that is out of its range, where it is a field of a request."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", param: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.param = param


class PromptTooLong(UsageError):
    pass


class SettingsError(LikenessError):
    exit_code = 2


class MissingPart(LikenessError):
    http_status = 503


class PortUnavailable(LikenessError):
    http_status = 503


class PhotoError(LikenessError):
    http_status = 422


class ArchiveRefused(PhotoError):
    pass


class UnreadablePhoto(PhotoError):
    pass


class PhotosRefused(PhotoError):
    pass


class BaseError(LikenessError):
    http_status = 500


class BaseNotFound(BaseError):
    http_status = 404


class CorruptBase(BaseError):
    pass


class AdapterError(LikenessError):
    pass


class AdapterNotFound(AdapterError):
    http_status = 404


class AdapterExists(AdapterError):
    http_status = 409


class AdapterBusy(AdapterError):
    http_status = 409


class CorruptAdapter(AdapterError):
    http_status = 422


class UnsupportedAdapter(AdapterError):
    http_status = 422


class RankTooLarge(AdapterError):
    http_status = 409


class WrongBase(AdapterError):
    http_status = 409


class EngineError(LikenessError):
    http_status = 503


class EngineBusy(EngineError):
    """Nothing was done for this request.

    Args:
        retry_after_s: when it is worth trying again, from the throughput of the last steps.
    """

    def __init__(self, message: str, *, hint: str = "try again later", retry_after_s: float) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class DeadlinePassed(EngineError):
    """Args: retry_after_s: when there should be less to do."""

    def __init__(self, message: str, *, hint: str = "try again later", retry_after_s: float = 1.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class RequestCancelled(EngineError):
    http_status = 499  # by convention: the client has gone


class EngineClosed(EngineError):
    pass


class DeviceFailed(EngineError):
    http_status = 500


class SubjectError(LikenessError):
    pass


class SubjectNotFound(SubjectError):
    http_status = 404


class SubjectExists(SubjectError):
    http_status = 409


class ConsentMissing(SubjectError):
    http_status = 403


class StorageError(LikenessError):
    http_status = 503


class ObjectNotFound(StorageError):
    http_status = 404


class DeletionUnfinished(StorageError):
    pass


class StorageUnavailable(StorageError):
    pass


class StorageDamaged(StorageError):
    pass


class FileFailed(StorageError):
    pass


class AccessError(LikenessError):
    pass


class KeyRefused(AccessError):
    http_status = 401


class OriginRefused(AccessError):
    http_status = 403


class TooManyRequests(AccessError):
    """Args: retry_after_s: when the key may come again."""

    http_status = 429

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class RequestTooLarge(AccessError):
    http_status = 413


class MediaTypeRefused(AccessError):
    http_status = 415


class RequestTooSlow(AccessError):
    http_status = 408


class JobError(LikenessError):
    http_status = 500


class JobNotFound(JobError):
    http_status = 404


class IdempotencyConflict(JobError):
    http_status = 409


class QueueFull(JobError):
    http_status = 429


class InputRefused(JobError):
    http_status = 422


class TimeLimitReached(JobError):
    http_status = 504


class PoisonJob(JobError):
    pass


class OutOfMemory(JobError):
    http_status = 507


class HostingError(LikenessError):
    http_status = 503


class ModelFailed(HostingError):
    """Args: status: the HTTP status that the model server gave."""

    http_status = 424

    def __init__(self, message: str, *, hint: str = "", status: int) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class HostUnavailable(HostingError):
    pass


class TrainingError(LikenessError):
    http_status = 500


class NonFiniteLoss(TrainingError):
    pass


class CheckpointMismatch(TrainingError):
    http_status = 409


class Interrupted(TrainingError):
    exit_code = 130


def reason_of(error: OSError | LikenessError) -> str:
    """The system's complaint without the path that it complains of, or the message of an error of ours."""
    if isinstance(error, LikenessError):
        return error.message
    return os.strerror(error.errno) if error.errno else type(error).__name__
