"""/v1/operator: all tenants of this installation, for keys of the tenant `local` and for a server without keys."""

import asyncio
import platform
import shutil
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from .. import __version__
from ..errors import NotFound
from ..jobs.job import Job
from ..service import Likeness
from ..storage.api_keys import list_keys
from .asked import WHOLE, Asked
from .generation import likeness_of
from .job_schemas import JobOut, job_out
from .schemas import REFUSALS, Id

router = APIRouter(prefix="/v1/operator", responses=REFUSALS, tags=["operation"])

MOST_FAILURES = 50
_SHOWN = (
    "waiting", "running", "rows", "row_limit", "slots", "slots_held", "host_adapters", "host_bytes", "images",
    "refused", "cancelled", "row_steps_per_s",
)  # fmt: skip
_PACKAGES = ("torch", "diffusers", "ai-edge-litert", "fastapi", "sqlalchemy")


@dataclass(frozen=True)
class FailedRequest:
    """A response with a status of 500 or above; the log has the rest, under the id."""

    at: str
    request_id: str
    method: str
    route: str
    status: int


class FailedRequests:
    """The newest responses with a status of 500 or above, since the start of the server."""

    def __init__(self) -> None:
        self._kept: deque[FailedRequest] = deque(maxlen=MOST_FAILURES)

    def add(self, request_id: str, method: str, route: str, status: int) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self._kept.append(FailedRequest(at, request_id, method, route, status))

    def __iter__(self) -> Iterator[FailedRequest]:
        """The newest first."""
        return iter(list(self._kept)[::-1])


class OpenJobOut(JobOut):
    tenant: str
    priority: int = Field(description="small goes first")


class OperatorOut(BaseModel):
    """The state of an installation. Bytes are of the home folder's disk."""

    versions: dict[str, str]
    keys: list[dict[str, str | None]] = Field(description="without their secrets")
    counts: dict[str, int] = Field(description="jobs by state")
    oldest_s: float
    workers: int = Field(description="that are alive")
    jobs: list[OpenJobOut] = Field(description="the first 200 that run or wait")
    engine: dict[str, float | None]
    disk_free_bytes: int
    disk_total_bytes: int
    failures: list[dict[str, str | int]]


class NewPriority(Asked):
    priority: Annotated[int, Field(ge=-1000, le=1000), WHOLE]


@router.get("")
async def show_installation(request: Request) -> OperatorOut:
    """Keys, queue, workers, engine, disk, versions and the newest server errors of an installation."""
    return await asyncio.to_thread(_installation, likeness_of(request), request.app.state.failed_requests)


@router.post("/jobs/{id}/cancel")
async def cancel_any_job(request: Request, id: Id) -> JobOut:
    """Cancel a job of any tenant."""
    queue = likeness_of(request).training

    def work() -> Job:
        return queue.queue.cancel(id, _found(queue.queue.store.find(id)).order.tenant)

    return job_out(await asyncio.to_thread(work))


@router.put("/jobs/{id}/priority")
async def set_priority(request: Request, id: Id, new: NewPriority) -> JobOut:
    """Set the priority of a job that waits; small goes first. A job that runs stays as it is."""
    queue = likeness_of(request).training

    def work() -> Job:
        queue.queue.store.prioritise(id, new.priority)
        return _found(queue.queue.store.find(id))

    return job_out(await asyncio.to_thread(work))


def _found(job: Job | None) -> Job:
    if job is None:
        raise NotFound("there is no job of this id", hint="GET /v1/operator lists the open ones", code="JobNotFound")
    return job


def _installation(likeness: Likeness, failures: FailedRequests) -> OperatorOut:
    queue = likeness.training.queue
    backlog, usage = queue.backlog(), shutil.disk_usage(likeness.home.root)
    facts = likeness.engine_facts()
    engine: dict[str, Any] = {} if facts is None else {name: getattr(facts, name) for name in _SHOWN}
    opened = [
        OpenJobOut(**job_out(job).model_dump(), tenant=job.order.tenant, priority=priority)
        for job, priority in queue.store.open()
    ]
    versions = {"likeness": __version__, "python": platform.python_version()}
    return OperatorOut(
        versions=versions | {name: metadata.version(name) for name in _PACKAGES},
        keys=[asdict(one) for one in list_keys(likeness.catalog)], counts=dict(backlog.counts),
        oldest_s=round(backlog.oldest_s, 1), workers=backlog.workers, jobs=opened, engine=engine,
        disk_free_bytes=usage.free, disk_total_bytes=usage.total, failures=[asdict(one) for one in failures],
    )  # fmt: skip
