"""However a job's work ends, the job has an end too, and nothing of somebody forgotten stays."""

from collections.abc import Callable
from typing import Any

import pytest
from dbos import DBOS
from likeness.jobs.link import Link
from likeness.jobs.steps import Steps

from likeness.jobs import places, workflow
from likeness.jobs.store import JobStore
from likeness.jobs.types import Job
from tests.jobs.installation import Installation


class TakenAway(BaseException):
    """As DBOS says it when a step's row is not there any more."""


Work = Callable[[], dict[str, Any]]


@pytest.fixture
def steps(installation: Installation) -> Steps:
    training, nobody = installation.training, Link("nobody", {})
    return Steps(
        JobStore(training.database), training.library, training.locations, preparer=nobody, trainer=nobody,
        full=lambda concurrency: None,
    )  # fmt: skip


@pytest.fixture
def fine_tune(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The workflow as it is registered, without DBOS around it."""
    registered: list[Callable[[str], str]] = []
    monkeypatch.setattr(DBOS, "workflow", lambda **options: registered.append)
    monkeypatch.setattr(DBOS, "run_step", lambda options, work: work())
    workflow.register_workflow(steps, "w-0", keep_photos_s=100.0)
    return registered[0]


def left(installation: Installation, job: Job) -> list[str]:
    return [facts.key for facts in installation.training.objects.list(places.job_prefix("local", job.id))]


def test_an_error_that_nobody_foresaw_ends_the_job(
    installation: Installation, fine_tune: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Steps, claim: object, order: object) -> None:
        raise RuntimeError("a word of somebody's")

    monkeypatch.setattr(Steps, "fetch", broken)
    job = installation.submit("rex")
    assert fine_tune(job.id) == "failed"
    failure = installation.job(job).failure
    assert failure is not None and failure.code == "InternalError"
    assert "somebody" not in str(failure)


def test_forgotten_in_the_middle_of_a_step(
    installation: Installation, fine_tune: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = installation.submit("rex")

    def forgotten_meanwhile(options: object, work: Work) -> dict[str, Any]:
        installation.training.forget("local", "rex")
        installation.training.objects.put(places.photos_key("local", job.id), b"faces")
        raise TakenAway

    monkeypatch.setattr(DBOS, "run_step", forgotten_meanwhile)
    with pytest.raises(TakenAway):
        fine_tune(job.id)
    assert left(installation, job) == []


def test_taken_over_in_the_middle_of_a_step_nothing_is_swept(
    installation: Installation, fine_tune: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = installation.submit("rex")

    def taken_over(options: object, work: Work) -> dict[str, Any]:
        work()
        installation.training.queue.store.claim(job.id, "w-1")
        raise TakenAway

    monkeypatch.setattr(DBOS, "run_step", taken_over)
    with pytest.raises(TakenAway):
        fine_tune(job.id)
    assert left(installation, job) == [places.photos_key("local", job.id)]
