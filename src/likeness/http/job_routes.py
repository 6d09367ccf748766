"""/v1/jobs: training as a service. Progress comes as server-sent events (WHATWG HTML, section 9.2), or as a list."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Annotated, TypeVar

from fastapi import APIRouter, Form, Header, Query, Request, Response, UploadFile
from pydantic import ValidationError

from ..errors import UsageError
from ..jobs.job import SUBJECT_PHOTOS, Job, JobEvent, JobOrder
from ..jobs.object_keys import preview_key
from ..jobs.queue import Queue
from ..service.training import Training
from ..types import PNG, class_noun_of
from ..worker.senders import check_notice, tenant_secret
from .auth import Asking
from .events import EVENTS, EventStream, event
from .invalid import invalid
from .job_schemas import (
    DeliveriesOut,
    EventsOut,
    JobOut,
    JobsOut,
    NewJob,
    NoticeIn,
    ReplayedOut,
    SecretOut,
    TestedOut,
    delivery_out,
    event_out,
    job_out,
)
from .schemas import REFUSALS, Id

T = TypeVar("T")

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=REFUSALS)

LOOK_EVERY_S = 0.5
MOST_EVENTS = 2**31 - 1  # PostgreSQL's integer, which numbers them

IdempotencyKey = Annotated[str | None, Header(max_length=200, description="requests with the same key create one job")]


def training_of_app(request: Request) -> Training:
    """The training service of this application."""
    training: Training = request.app.state.training
    return training


async def asked(training: Training, question: Callable[[Queue], T]) -> T:
    """Ask the queue, on a thread: the first question opens it, which takes seconds. Raises StorageUnavailable."""
    return await asyncio.to_thread(lambda: question(training.queue))


@router.post("", status_code=202)
async def submit(request: Request, asking: Asking, new: NewJob, idempotency_key: IdempotencyKey = None) -> JobOut:
    """Submit a training job: on a subject's photographs, or on an archive at an allowed location."""
    training = training_of_app(request)

    def work() -> Job:
        order = _order(training, new, asking.tenant, new.photos or SUBJECT_PHOTOS)
        return training.submit(order, consent=new.consent, idempotency_key=idempotency_key)

    return job_out(await asyncio.to_thread(work))


@router.post("/photos", status_code=202)
async def submit_archive(
    request: Request, asking: Asking, archive: UploadFile, order: Annotated[str, Form(max_length=1 << 16)],
    idempotency_key: IdempotencyKey = None,
) -> JobOut:  # fmt: skip
    """Submit a training job with its photographs in the request.

    `archive` is a zip or tar, `order` the JSON of a new job.
    """
    try:
        new = NewJob.model_validate_json(order)
    except ValidationError as error:
        raise invalid(error.errors(), hint="/openapi.json has the form of `order`: a new job") from error
    if new.photos is not None:
        raise UsageError("expected an archive or a location of one, got both")
    training = training_of_app(request)

    def work(content: bytes) -> Job:
        order = _order(training, new, asking.tenant, "")
        return training.submit(order, archive=content, consent=new.consent, idempotency_key=idempotency_key)

    async with request.app.state.uploads:
        return job_out(await asyncio.to_thread(work, await archive.read()))


@router.get("")
async def list_jobs(request: Request, asking: Asking, name: Id | None = None, limit: int = 100) -> JobsOut:
    """Jobs, the newest first."""
    found = await asked(training_of_app(request), lambda queue: queue.jobs_of(asking.tenant, name=name, limit=limit))
    return JobsOut(jobs=[job_out(job) for job in found])


@router.get("/webhook-secret")
async def webhook_secret(request: Request, asking: Asking) -> SecretOut:
    """The secret of this tenant's webhooks, which are signed as standardwebhooks.com specifies."""
    training = training_of_app(request)
    options = await asyncio.to_thread(lambda: training.send_options)
    return SecretOut(secret=tenant_secret(options.webhook_secret, asking.tenant))


@router.post("/test-notification", status_code=202)
async def test_notification(request: Request, asking: Asking, notice: NoticeIn) -> TestedOut:
    """Send SageMaker's TestNotification, as creating an endpoint does there. Consumers ignore it."""
    training = training_of_app(request)
    said = notice.notice()

    def work() -> str:
        check_notice(said, training.send_options)
        return training.deliveries.test(asking.tenant, said)

    await asked(training, lambda queue: None)  # from now on this process sends what is due
    return TestedOut(id=await asyncio.to_thread(work))


@router.get("/{id}")
async def show_job(request: Request, asking: Asking, id: Id) -> JobOut:
    """One job."""
    return job_out(await asked(training_of_app(request), lambda queue: queue.status(id, asking.tenant)))


@router.post("/{id}/cancel")
async def cancel_job(request: Request, asking: Asking, id: Id) -> JobOut:
    """Cancel a job that waits or runs; a finished job does not change."""
    return job_out(await asked(training_of_app(request), lambda queue: queue.cancel(id, asking.tenant)))


@router.get("/{id}/events", response_model=EventsOut)
async def job_events(
    request: Request, asking: Asking, id: Id, after: Annotated[int, Query(ge=0, le=MOST_EVENTS)] = 0,
    accept: Annotated[str, Header()] = "", last_event_id: Annotated[str, Header(max_length=20)] = "",
) -> Response | EventsOut:  # fmt: skip
    """Events of a job after event `after`.

    With `Accept: text/event-stream`, the stream continues until the job ends.
    """
    training = training_of_app(request)
    if last_event_id.isascii() and last_event_id.isdigit():
        after = max(after, int(last_event_id))
    if after > MOST_EVENTS:
        raise UsageError("expected Last-Event-ID to be the number of an event")
    found = await asked(training, lambda queue: queue.events(id, asking.tenant, after=after))  # 404 before any stream
    if EVENTS not in accept:
        return EventsOut(events=[event_out(event) for event in found])
    return EventStream(_stream(training, id, asking.tenant, after=after))


@router.get("/{id}/previews/{step}", response_class=Response)
async def job_preview(request: Request, asking: Asking, id: Id, step: int) -> Response:
    """The preview images of a checkpoint, side by side."""
    training = training_of_app(request)

    def work() -> bytes:
        training.queue.status(id, asking.tenant)
        return training.objects.get(preview_key(asking.tenant, id, step))

    return Response(await asyncio.to_thread(work), media_type=PNG)


@router.get("/{id}/messages")
async def job_messages(request: Request, asking: Asking, id: Id) -> DeliveriesOut:
    """Messages about a job, sent or waiting, and whether they were delivered."""
    training = training_of_app(request)
    await asked(training, lambda queue: queue.status(id, asking.tenant))
    found = await asyncio.to_thread(lambda: training.deliveries.of_job(asking.tenant, id))
    return DeliveriesOut(messages=[delivery_out(one) for one in found])


@router.post("/{id}/messages/replay", status_code=202)
async def replay_messages(request: Request, asking: Asking, id: Id) -> ReplayedOut:
    """Send every message about a job again, with the same ids."""
    training = training_of_app(request)
    await asked(training, lambda queue: queue.status(id, asking.tenant))
    return ReplayedOut(messages=await asyncio.to_thread(lambda: training.deliveries.replay(asking.tenant, id)))


async def _stream(training: Training, id: str, tenant: str, *, after: int) -> AsyncGenerator[bytes]:
    """The job's events, then its end."""
    while True:
        job, events = await asked(training, partial(_look, id, tenant, after))
        for one in events:
            after = one.seq
            yield event(one.kind, json.dumps({"at_s": one.at_s, **one.facts}), id=one.seq)
        if not events and job.is_over:
            yield event("end", job_out(job).model_dump_json())
            return
        await asyncio.sleep(LOOK_EVERY_S)


def _look(id: str, tenant: str, after: int, queue: Queue) -> tuple[Job, list[JobEvent]]:
    return queue.status(id, tenant), queue.store.events(id, after)


def _order(training: Training, new: NewJob, tenant: str, photos: str) -> JobOrder:
    if new.kind is None and not new.class_noun:
        class_noun = training.class_noun(tenant, new.name)
    else:
        class_noun = class_noun_of(new.kind, new.class_noun or None)
    changes = {key: tuple(value) if isinstance(value, list) else value for key, value in new.recipe_changes.items()}
    return JobOrder(
        tenant, new.name, photos, class_noun=class_noun, recipe=new.recipe, changes=changes, seed=new.seed,
        replace=new.replace, keep_strangers=new.keep_strangers,
        time_limit_s=new.time_limit_s, queue_limit_s=new.queue_limit_s,
        notices=tuple(one.notice() for one in new.notices),
    )  # fmt: skip
