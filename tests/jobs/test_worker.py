"""Real worker processes on SQLite: what is killed is gone on with, what is poisonous fails alone, what is cancelled stops."""

import os
import signal
import sys
import time

import pytest

from tests.jobs.installation import Installation, pids_with, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc"),
]

TRAINER, PREPARER = "likeness.jobs.trainer", "likeness.jobs.preparer"


def test_killed_trainers_and_killed_workers_lose_no_job(installation: Installation) -> None:
    jobs = [installation.submit(name, steps=40, checkpoint_every=5) for name in ("rex", "max", "bob")]
    installation.start("w-0")
    until(lambda: "checkpoint" in installation.kinds(jobs[0]))
    (trainer,) = installation.children("w-0", TRAINER)
    os.kill(trainer, signal.SIGKILL)  # the job in it goes on in the next one, from its checkpoint
    until(lambda: installation.kinds(jobs[0]).count("joined") == 2)
    resumed = [
        event.facts["step"]
        for event in installation.training.queue.events(jobs[0].id, "local")
        if event.kind == "joined"
    ]
    assert resumed[0] == 0
    assert resumed[1] >= 5
    installation.start("w-1")
    running = [job for job in jobs if installation.job(job).worker == "w-0" and not installation.job(job).is_over]
    assert running
    orphans = installation.children("w-0", TRAINER) + installation.children("w-0", PREPARER)
    installation.kill("w-0")
    killed_s = time.monotonic()
    until(lambda: not set(orphans) & set(pids_with(TRAINER) + pids_with(PREPARER)), 5)
    until(lambda: all(installation.job(job).worker == "w-1" for job in running))
    assert time.monotonic() - killed_s < 2 * installation.settings.heartbeat_s + 5
    until(lambda: all(installation.job(job).is_over for job in jobs))
    for job in jobs:
        over = installation.job(job)
        assert (over.state, over.failure) == ("succeeded", None)
        found = installation.training.library.read("local", job.order.name)
        assert found.card.content_sha256 == over.adapter_sha256
        assert found.card.steps == 40
        states = [
            event.facts["state"]
            for event in installation.training.queue.events(job.id, "local")
            if event.kind == "state"
        ]
        assert states == ["queued", "running", "succeeded"]
        assert installation.kinds(job).count("photos") == 1  # what was checked once is not checked again
