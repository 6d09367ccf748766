"""The types of the training service: orders, jobs, events, claims."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from ..errors import StorageDamaged
from ..training.recipe import FineTuneOrder, recipe_named
from ..types import Subject

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]
NoticeKind = Literal["object", "webhook", "mail", "sns"]

SUBJECT_PHOTOS = "subject"  # instead of an archive: the photographs kept for the subject of the job's name
STATES: frozenset[str] = frozenset(get_args(State))
FINAL: frozenset[State] = frozenset({"succeeded", "failed", "cancelled", "expired"})


@dataclass(frozen=True)
class Notice:
    """A recipient of a message about the end of a job."""

    kind: NoticeKind
    target: str  # an https URL, an e-mail address, a topic's ARN, or the URL of an object to write
    when: Literal["always", "success", "failure"] = "always"


@dataclass(frozen=True)
class Invocation:
    """Fields of an asynchronous invocation of SageMaker, which the messages about its end repeat."""

    endpoint: str
    inference_id: str
    input_location: str
    output_location: str
    failure_location: str
    content_type: str = "application/x-tar"
    accept: str = ""
    custom_attributes: str = ""


@dataclass(frozen=True)
class JobOrder:
    """The request for one fine-tune, as it is stored."""

    tenant: str
    name: str  # of the adapter
    photos: str  # key of an archive among our objects, the s3:// or file:// URL of one, or SUBJECT_PHOTOS
    class_noun: str = "person"
    recipe: str = "standard"
    changes: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))  # fields of the recipe
    seed: int = 0
    replace: bool = False  # whether an existing adapter of this name is replaced
    keep_strangers: bool = False  # photographs that probably show another person are used too
    time_limit_s: int = 3600  # from the first claim, including the time with a dead worker
    queue_limit_s: int = 21_600
    notices: tuple[Notice, ...] = ()
    invocation: Invocation | None = None

    def document(self) -> str:
        """JSON with sorted keys: equal orders are equal texts."""
        return json.dumps(asdict(replace(self, changes={})) | {"changes": self.recipe_changes}, sort_keys=True)

    @property
    def recipe_changes(self) -> dict[str, object]:
        """The changed fields of its recipe, as JSON types."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in self.changes.items()}

    @property
    def sha256(self) -> str:
        """Hash of the whole order, with the location of the photographs: equal uploads need equal keys."""
        return hashlib.sha256(self.document().encode()).hexdigest()

    def fine_tune(self, family: str = "") -> FineTuneOrder:
        """The order in the pipeline's form. Raises UsageError for a value outside its limits.

        Args:
            family: of the base that trains it, see `recipe_named`.
        """
        recipe = recipe_named(self.recipe, family, **self.changes)
        return FineTuneOrder(Subject(self.name, self.class_noun), recipe, seed=self.seed, replace=self.replace)


def read_order(document: str) -> JobOrder:
    """The inverse of `JobOrder.document`; for our own database only. Raises StorageDamaged."""
    order: JobOrder = _read(JobOrder, document, "order")
    changes = {key: tuple(value) if isinstance(value, list) else value for key, value in order.changes.items()}
    return replace(order, changes=changes)


def read_document(text: str) -> dict[str, Any]:
    """A JSON object from our own database. Raises StorageDamaged."""
    found: dict[str, Any] = _read(dict[str, Any], text, "row")
    return found


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _read(kind: Any, text: str, what: str) -> Any:
    try:
        return _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        reason = error.errors()[0]["type"]
        raise StorageDamaged(f"expected a job's {what} to be readable, got {reason}") from error


@dataclass(frozen=True)
class Failure:
    """Why a job did not succeed: a stable code, a reason, and what to do."""

    code: str
    reason: str
    hint: str = ""


@dataclass(frozen=True)
class Job:
    """The current state of a job. Times are seconds since 1970 by the database's clock."""

    id: str
    order: JobOrder
    state: State
    submitted_s: float
    started_s: float | None
    finished_s: float | None
    queue_until_s: float
    failure: Failure | None
    place_in_queue: int | None  # 1 = next; None when it does not wait
    worker: str | None
    attempt: int  # how often a worker claimed it
    progress: Mapping[str, object]  # the newest event of its stage
    adapter_sha256: str | None  # content hash of the published adapter

    @property
    def is_over(self) -> bool:
        return self.state in FINAL

    def to_json(self) -> dict[str, Any]:
        """The one JSON form of a job: of HTTP and of the command line."""
        return {
            "id": self.id, "name": self.order.name, "recipe": self.order.recipe,
            "recipe_changes": self.order.recipe_changes, "state": self.state,
            "place_in_queue": self.place_in_queue, "progress": dict(self.progress), "submitted_s": self.submitted_s,
            "started_s": self.started_s, "finished_s": self.finished_s, "queue_until_s": self.queue_until_s,
            "attempt": self.attempt,
            "failure": None if self.failure is None else asdict(self.failure), "adapter_sha256": self.adapter_sha256,
        }  # fmt: skip


@dataclass(frozen=True)
class JobEvent:
    """An event of a job; `seq` grows, so a reader resumes after the last event it has read."""

    seq: int
    at_s: float
    kind: str  # 'state', 'stage', 'progress', 'losses', 'checkpoint', 'preview', 'photos', 'score', 'taken over'
    facts: Mapping[str, object]


@dataclass(frozen=True)
class Claim:
    """One worker's right to work on one job. A later claim ends an earlier one."""

    job: str
    worker: str
    attempt: int
