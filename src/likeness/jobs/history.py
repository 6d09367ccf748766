"""Finished jobs, as a backup keeps them: the order, the end, and the measurements.

Left out are the messages and their recipients, and where the photographs were, unless they are kept with the subject.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

import sqlalchemy as sa

from ..errors import AlreadyExists, StorageDamaged
from ..storage.database import Database
from .job import FINAL, SUBJECT_PHOTOS, Job, JobOrder
from .store import JobStore
from .tables import REQUEST_PATIENCE_S, events, jobs

log = logging.getLogger("likeness.jobs")


@dataclass(frozen=True)
class PastJob:
    """A job that is over."""

    id: str
    order: JobOrder
    state: str  # a final one
    submitted_s: float
    started_s: float | None
    finished_s: float
    attempt: int
    code: str | None  # of the failure
    reason: str | None
    hint: str | None
    adapter_sha256: str | None
    losses: tuple[float, ...] = ()  # see `store.curve`
    previews: tuple[int, ...] = ()  # steps of the checkpoints with portraits, see `object_keys.preview_key`
    score: Mapping[str, Any] | None = None  # the score card's document


def past_jobs(store: JobStore, tenant: str) -> Iterator[PastJob]:
    """A tenant's jobs that are over, the oldest first. Damaged ones are left out."""
    query = sa.select(jobs.c.id).where(jobs.c.tenant == tenant, jobs.c.state.in_(FINAL)).order_by(jobs.c.submitted_s)
    found = store.database.run(lambda connection: connection.execute(query).scalars().all(), reads_only=True)
    for id in found:
        try:
            job = store.find(id, tenant)
        except StorageDamaged as error:
            log.error("job %s is damaged and was left out: %s", id, error)
            continue
        if job is not None and job.is_over and job.finished_s is not None:
            yield _past(store, job, job.finished_s)


def _past(store: JobStore, job: Job, finished_s: float) -> PastJob:
    facts: dict[str, list[Mapping[str, Any]]] = {}
    after = 0
    while page := store.events(job.id, after):
        after = page[-1].seq
        for one in page:
            facts.setdefault(one.kind, []).append(one.facts)
    code, reason, hint = (None, None, None) if job.failure is None else astuple(job.failure)
    return PastJob(
        job.id, without_recipients(job.order), job.state, job.submitted_s, job.started_s, finished_s, job.attempt,
        code=code, reason=reason, hint=hint, adapter_sha256=job.adapter_sha256,
        losses=tuple(facts.get("losses", [{"losses": []}])[-1]["losses"]),
        previews=tuple(sorted({one["step"] for one in facts.get("preview", [])})),
        score=facts.get("score", [{}])[-1].get("card"),
    )  # fmt: skip


def without_recipients(order: JobOrder) -> JobOrder:
    """The order without recipients of messages and locations of photographs."""
    photos = SUBJECT_PHOTOS if order.photos == SUBJECT_PHOTOS else ""
    return replace(order, photos=photos, notices=(), invocation=None)


def add_past(database: Database, past: PastJob, *, keep_photos_s: float) -> bool:
    """Write a job that is over; False: it exists.

    Args:
        keep_photos_s: from its end until the photographs that it was trained on are deleted, if its subject has them.

    Raises:
        AlreadyExists: another tenant has a job of this id.
    """
    order = without_recipients(past.order)
    row = {
        "id": past.id, "tenant": order.tenant, "name": order.name, "order_sha256": order.sha256,
        "order": order.document(), "state": past.state, "code": past.code, "reason": past.reason, "hint": past.hint,
        "submitted_s": past.submitted_s, "started_s": past.started_s, "finished_s": past.finished_s,
        "queue_until_s": past.submitted_s + order.queue_limit_s, "priority": 1, "attempt": past.attempt,
        "adapter_sha256": past.adapter_sha256, "purge_s": past.finished_s + keep_photos_s,
    }  # fmt: skip
    ended = {"state": past.state}
    if past.code is not None:
        ended |= {"code": past.code, "reason": past.reason or "", "hint": past.hint or ""}
    told: list[tuple[float, str, Mapping[str, object]]] = [(past.submitted_s, "state", {"state": "queued"})]
    told += [(past.finished_s, "preview", {"step": step}) for step in past.previews]
    if past.score is not None:
        told.append((past.finished_s, "score", {"card": past.score}))
    if past.losses:
        told.append((past.finished_s, "losses", {"losses": list(past.losses)}))
    told.append((past.finished_s, "state", ended))

    def work(connection: sa.Connection) -> bool:
        owner = connection.execute(sa.select(jobs.c.tenant).where(jobs.c.id == past.id)).scalar()
        if owner is not None and owner != order.tenant:
            raise AlreadyExists("another job of this id exists")
        if owner is not None:
            return False
        connection.execute(jobs.insert().values(**row))
        for at_s, kind, facts in told:
            connection.execute(events.insert().values(job=past.id, at_s=at_s, kind=kind, facts=json.dumps(facts)))
        return True

    return database.run(work, patience_s=REQUEST_PATIENCE_S)
