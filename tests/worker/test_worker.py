"""Real worker processes on SQLite: what was killed goes on elsewhere, what is poisonous fails alone, and named."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from fixtures.installation import PHOTOS, Installation, archive, installed, picture, pids_with
from fixtures.waiting import until
from likeness.jobs.job import Job
from likeness.service import build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc"),
]

TRAINER, PREPARER = "likeness.worker.trainer", "likeness.worker.preparer"


def facts(installation: Installation, job: Job, kind: str) -> list[dict[str, object]]:
    found = installation.training.queue.events(job.id, job.order.tenant)
    return [dict(event.facts) for event in found if event.kind == kind]


def has_checkpoints(installation: Installation, job: Job, count: int) -> bool:
    return len(facts(installation, job, "checkpoint")) >= count


def test_killed_trainers_and_killed_workers_lose_no_job_and_repeat_little(installation: Installation) -> None:
    every = 5
    jobs = [installation.submit(name, steps=60, checkpoint_every=every) for name in ("rex", "max")]
    installation.start("w-0")
    until(lambda: {installation.job(job).worker for job in jobs} == {"w-0"})
    installation.start("w-1", "--concurrency", "1", wait=False)  # comes too late for the two jobs
    until(lambda: all(facts(installation, job, "checkpoint") for job in jobs))
    (trainer,) = installation.children("w-0", TRAINER)
    os.kill(trainer, signal.SIGKILL)
    until(lambda: sum(len(facts(installation, job, "joined")) for job in jobs) == 3)
    until(lambda: b"ready, waiting" in (installation.settings.home / "w-1.log").read_bytes())
    orphans = installation.children("w-0", TRAINER) + installation.children("w-0", PREPARER)
    installation.kill("w-0")
    until(lambda: not set(orphans) & set(pids_with(TRAINER) + pids_with(PREPARER)))
    until(lambda: any(installation.job(job).worker == "w-1" for job in jobs))
    until(lambda: all(installation.job(job).is_over for job in jobs))
    for job in jobs:
        over = installation.job(job)
        assert (over.state, over.failure) == ("succeeded", None)
        card = installation.training.library.read("local", job.order.name).card
        assert (card.content_sha256, card.steps) == (over.adapter_sha256, 60)
        assert [said["state"] for said in facts(installation, job, "state")] == ["queued", "running", "succeeded"]
        assert len(facts(installation, job, "photos")) == 1  # what was checked once is not checked again
        # each joined where the last checkpoint before it was taken
        steps: list[int] = []
        for event in installation.training.queue.events(job.id, "local"):
            if event.kind == "joined":
                assert event.facts["step"] in (steps[-1:] or [0])
            if event.kind == "checkpoint":
                steps.append(int(str(event.facts["step"])))
        assert steps == sorted(set(steps))  # none was taken twice
    # nothing but what was published stays
    kept = {facts.key.split("/")[1] for facts in installation.training.objects.list("local/")}
    assert kept == {"adapters"}


def test_a_receipt_during_a_training_is_true_also_when_the_worker_is_killed(installation: Installation) -> None:
    likeness = build(installation.settings)
    installation.start("w-0")
    for name, is_killed in (("rex", False), ("max", True)):
        job = installation.submit(name, steps=20_000, checkpoint_every=1)
        until(partial(has_checkpoints, installation, job, 4))
        if is_killed:  # before it has seen the cancellation, perhaps while a checkpoint is written
            os.kill(installation.processes["w-0"].pid, signal.SIGSTOP)
            installation.training.queue.cancel(job.id, "local")
            installation.kill("w-0")
        receipt = likeness.forget(name)
        # a worker that is alive may delete the checkpoints of a cancelled job before `forget` does
        assert {item.kind for item in receipt.items} >= ({"jobs", "checkpoints"} if is_killed else {"jobs"})
        assert not any(name in path.name for path in installation.settings.home.rglob("*"))
        assert not any(path.is_file() for path in (installation.settings.home / "objects" / "local").rglob("*"))
    likeness.close()


def test_what_becomes_of_bad_input_of_poison_and_of_who_does_not_want_any_more(
    tmp_path: Path, tiny_base_folder: Path
) -> None:
    with installed(tmp_path / "home", tiny_base_folder) as installation:
        upload = installation.training.upload

        def submit(name: str, content: bytes = PHOTOS, **changes: object) -> Job:
            return installation.submit(name, photos=upload("local", name, content), **changes)

        many = {f"{seed}.jpg": picture(seed) for seed in range(3)}
        bad = {
            "ArchiveRefused": submit("climber", archive({"../climber.jpg": picture(0)})),
            "PhotosRefused": submit("empty", archive({"read.me": b"nothing"})),
            "InputRefused": submit("config", archive({**many, "config.json": b"{"})),
        }
        unknown = submit("unknown", archive({**many, "config.json": b'{"stepps": 3}'}))
        limits = submit("limits", archive({**many, "config.json": b'{"steps": 1000000}'}))
        renamed = submit("before", archive({**many, "config.json": b'{"name": "after", "steps": 4}'}))
        late = submit("late", steps=20_000, time_limit_s=6)
        unwanted = submit("unwanted", steps=20_000)
        installation.start("w-0", "--concurrency", "4")
        until(lambda: facts(installation, unwanted, "joined"))
        installation.training.queue.cancel(unwanted.id, "local")
        everybody = [*bad.values(), unknown, limits, renamed, late]
        until(lambda: all(installation.job(job).is_over for job in everybody))
        for code, job in bad.items():
            failure = installation.job(job).failure
            assert failure is not None
            assert (installation.job(job).state, failure.code, bool(failure.hint)) == ("failed", code, True)
        said = installation.job(unknown).failure
        assert said is not None and "stepps" in said.reason
        said = installation.job(limits).failure
        assert said is not None and "steps from 1 to 20000" in said.reason
        assert installation.job(renamed).state == "succeeded"
        assert installation.training.library.read("local", "after").card.steps == 4
        said = installation.job(late).failure
        assert said is not None and said.code == "TimeLimitReached"
        assert installation.job(unwanted).state == "cancelled"
        assert [record.name for record in installation.training.library.catalog.list_adapters("local")] == ["after"]
