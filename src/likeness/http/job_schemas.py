"""The documents of /v1/jobs. Unknown fields are refused."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from ..jobs.deliveries import Delivery
from ..jobs.job import Job, JobEvent, JobOrder, Notice, State
from ..jobs.queue import MOST_NOTICES
from ..storage.consent import MOST_CHARACTERS
from ..types import Kind
from .asked import Asked, Integer
from .schemas import Name


class NoticeIn(Asked):
    """A recipient of a message when the job ends."""

    kind: Literal["webhook", "mail", "sns"]
    target: Annotated[str, Field(max_length=2000, examples=["https://example.com/likeness"])]
    when: Literal["always", "success", "failure"] = "always"

    def notice(self) -> Notice:
        return Notice(self.kind, self.target, self.when)


class NewJob(Asked):
    """A fine-tune to run. The limits are those of the command line."""

    name: Name
    photos: str | None = Field(
        default=None,
        max_length=2000,
        description="s3:// or file:// URL of an archive; the subject's photographs by default",
    )
    class_noun: str | None = Field(default=None, max_length=100, description="the subject's by default")
    kind: Kind | None = Field(default=None, description="`style`; person or thing follow from the class noun")
    recipe: Annotated[str, Field(max_length=40, examples=["fast"])] = "standard"
    recipe_changes: dict[str, Any] = Field(
        default_factory=dict, description="recipe fields to change, for example `steps`"
    )
    seed: Integer = 0
    replace: bool = False
    keep_strangers: bool = Field(default=False, description="also use photographs that probably show another person")
    time_limit_s: Integer = JobOrder.time_limit_s
    queue_limit_s: Integer = JobOrder.queue_limit_s
    notices: Annotated[list[NoticeIn], Field(max_length=MOST_NOTICES)] = Field(default_factory=list)
    consent: Annotated[str, Field(max_length=MOST_CHARACTERS)] = Field(
        default="",
        description="who agreed, and when; needed for people, and for pictures of a style that show faces; a subject "
        "is created if there is none of this name",
    )


class FailureOut(BaseModel):
    code: str
    reason: str
    hint: str


class JobOut(BaseModel):
    """The current state of a job. Times are seconds since 1970."""

    id: str
    name: str
    recipe: str
    recipe_changes: dict[str, Any] = Field(description="as in the order")
    state: State
    place_in_queue: int | None
    progress: dict[str, Any]
    submitted_s: float
    started_s: float | None
    finished_s: float | None
    queue_until_s: float
    attempt: int
    failure: FailureOut | None
    adapter_sha256: str | None


class JobsOut(BaseModel):
    jobs: list[JobOut]


class EventOut(BaseModel):
    seq: int
    at_s: float
    kind: str
    facts: dict[str, Any]


class EventsOut(BaseModel):
    events: list[EventOut]


class DeliveryOut(BaseModel):
    """One message about a job, and its delivery."""

    id: str
    kind: str
    target: str
    state: Literal["waiting", "delivered", "given up"]
    attempts: int
    created_s: float
    due_s: float
    delivered_s: float | None
    last_error: str | None


class DeliveriesOut(BaseModel):
    messages: list[DeliveryOut]


class ReplayedOut(BaseModel):
    messages: int = Field(description="messages that will be sent again")


class SecretOut(BaseModel):
    secret: str = Field(description="the key that signs this tenant's webhooks")


class TestedOut(BaseModel):
    id: str = Field(description="the message's id, as in its header webhook-id")


def job_out(job: Job) -> JobOut:
    return JobOut.model_validate(job.to_json())


def event_out(event: JobEvent) -> EventOut:
    return EventOut(seq=event.seq, at_s=event.at_s, kind=event.kind, facts=dict(event.facts))


def delivery_out(delivery: Delivery) -> DeliveryOut:
    return DeliveryOut.model_validate(delivery, from_attributes=True)
