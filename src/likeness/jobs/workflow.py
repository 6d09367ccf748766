"""The durable order of a job's steps, in DBOS's terms: what is done stays done, whoever goes on.

    fetch -> prepare (with check) -> train -> score -> publish (with packing) -> the end and its messages

A step that failed for good returns its failure as its result: a recovered workflow then fails again, with the same
reason, instead of trying again. A worker that lost its job raises `Gone` inside the step; DBOS refuses its result,
since the row belongs to somebody else by then.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from dbos import DBOS

from ..errors import LikenessError, StorageDamaged
from .ledger import PATIENCE_S
from .queue import WORKFLOW
from .steps import Failed, Gone, Steps, failure_document
from .types import Claim, Failure, JobOrder, read_order

MOST_RECOVERIES = 10  # workers that may die with one job before it is given up
Document = dict[str, Any]

_log = logging.getLogger(__name__)


def register_workflow(steps: Steps, worker: str, *, keep_photos_s: float) -> None:
    """Tell DBOS what 'fine-tune' means. Once in a process, before DBOS.launch."""

    def fine_tune(job: str) -> str:
        claim = steps.ledger.claim(job, worker)
        if claim is None:
            return "nothing to do"
        order: JobOrder | None = None
        try:
            try:
                order = _order(steps, job)
            except StorageDamaged as error:
                failure = Failure(error.code, error.message, "submit it again")
                steps.ledger.finish(claim, "failed", failure=failure, keep_photos_s=0.0)
                return "failed"
            return _run(steps, claim, order, keep_photos_s=keep_photos_s)
        except Gone:
            return "gone"
        finally:  # also where DBOS says in its own way that the job was forgotten or taken over in the middle of a step
            steps.let_go(claim, order)

    DBOS.workflow(name=WORKFLOW, max_recovery_attempts=MOST_RECOVERIES)(fine_tune)


def _run(steps: Steps, claim: Claim, order: JobOrder, *, keep_photos_s: float) -> str:
    state, failure = "succeeded", None
    try:
        _once("fetch", lambda: steps.fetch(claim, order))
        prepared = _once("prepare", lambda: steps.prepare(claim, order))
        order = read_order(prepared["order"])
        trained = _once("train", lambda: steps.train(claim, order))
        if steps.scores:
            _once("score", lambda: steps.score(claim, order))
        _once("publish", lambda: steps.publish(claim, order, trained["adapter_sha256"]))
    except Failed as ended:
        said = ended.document
        state, failure = "failed", Failure(said["code"], said["message"], said["hint"])
    except Gone:
        raise
    except Exception:  # ours, and unforeseen: an end that says so is better than a job that runs for ever
        _log.exception("job %s", claim.job)
        state, failure = "failed", Failure("InternalError", "the service failed at this job", "submit again")
    if not steps.ledger.finish(claim, state, failure=failure, keep_photos_s=keep_photos_s):  # type: ignore[arg-type]
        return "gone"
    return state


def _once(name: str, work: Callable[[], Mapping[str, Any]]) -> Document:
    """A step: run, or remembered. Raises Failed, Gone."""

    def outcome() -> Document:
        try:
            return {"done": dict(work())}
        except Failed as ended:
            return {"failed": dict(ended.document)}
        except LikenessError as error:
            return {"failed": failure_document(error)}

    found: Document = DBOS.run_step({"name": name}, outcome)
    if "failed" in found:
        raise Failed(found["failed"])
    done: Document = found["done"]
    return done


def _order(steps: Steps, job: str) -> JobOrder:
    found = steps.ledger.find(job, patience_s=PATIENCE_S)
    if found is None:
        raise Gone
    return found.order
