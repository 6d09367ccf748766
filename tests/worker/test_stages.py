"""Faults of the installation are waited out, as long as the job is wanted and has time; faults of the input end it."""

import dataclasses
import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fixtures.installation import PHOTOS, Installation
from fixtures.waiting import HANG_S, until
from likeness.artifacts import bundle
from likeness.errors import InputRefused, Mismatch, StorageUnavailable, TrainingError
from likeness.jobs import object_keys
from likeness.jobs.job import Claim, JobOrder
from likeness.jobs.locations import Locations
from likeness.jobs.tables import jobs
from likeness.storage.library import AdapterLibrary
from likeness.worker import stages
from likeness.worker.child_process import ChildProcess
from likeness.worker.stages import Gone, Stages
from tests.storage.cards import adapter
from tests.worker.claims import claimed, stages_of, taken_over


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(stages, "FIRST_PAUSE_S", 0.02)


@pytest.fixture
def made(installation: Installation) -> Stages:
    return stages_of(installation.training)


def begun(installation: Installation, **changes: object) -> tuple[Claim, JobOrder]:
    job = installation.submit("rex", **changes)
    return claimed(installation.training.database, job=job.id), job.order


class Flaky:
    """An object store that is away for so many calls."""

    def __init__(self, library: AdapterLibrary, errors: list[Exception]) -> None:
        self.objects, self.errors = library.objects, errors

    def put(self, key: str, content: bytes) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.objects.put(key, content)

    def __getattr__(self, name: str) -> object:
        return getattr(self.objects, name)


def test_a_store_that_is_away_and_a_full_disk_are_waited_for(installation: Installation, made: Stages) -> None:
    claim, order = begun(installation)
    errors = [StorageUnavailable("expected S3 to put object, got 503"), OSError(28, "No space left on device")]
    library = dataclasses.replace(made.library, objects=Flaky(made.library, errors))  # type: ignore[arg-type]
    made = dataclasses.replace(made, library=library)
    assert made.fetch(claim, order)["bytes"] == len(PHOTOS)
    assert installation.training.objects.get(object_keys.photos_key("local", claim.job)) == PHOTOS
    told = [event.facts for event in installation.training.queue.events(claim.job, "local") if event.kind == "waiting"]
    assert [said["message"] for said in told] == ["expected S3 to put object, got 503", "No space left on device"]


def test_waiting_ends_with_the_jobs_time_or_its_owners_wish(installation: Installation, made: Stages) -> None:
    claim, order = begun(installation, time_limit_s=60)

    def away() -> None:
        raise StorageUnavailable("expected S3 to get object, got 503")

    def late() -> None:
        database = installation.training.database
        database.run(lambda c: c.execute(jobs.update().values(started_s=jobs.c.started_s - 3600)))
        raise OSError(28, "No space left on device")

    with pytest.raises(TrainingError, match="60 s"):
        made.patiently(claim, order, late)
    installation.training.queue.cancel(claim.job, "local")
    with pytest.raises(Gone):
        made.patiently(claim, order, away)


@pytest.mark.parametrize(
    "photos", ["local/uploads/rex/none", "s3://somebody/elses", "ben/uploads/x", "file:///etc/passwd"]
)
def test_what_is_not_there_or_not_allowed_is_the_senders(installation: Installation, made: Stages, photos: str) -> None:
    claim, order = begun(installation)
    with pytest.raises(InputRefused):
        made.fetch(claim, dataclasses.replace(order, photos=photos))


def test_an_input_above_a_gigabyte_is_refused_before_it_is_read(
    installation: Installation, made: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("likeness.jobs.locations.MOST_BYTES", 100)
    claim, order = begun(installation)
    with pytest.raises(InputRefused, match="at most 100 bytes"):
        made.fetch(claim, order)


def test_a_named_place_is_the_only_one_that_is_read(installation: Installation, made: Stages, tmp_path_factory) -> None:
    allowed, other = tmp_path_factory.mktemp("allowed"), tmp_path_factory.mktemp("other")
    (allowed / "a.tar").write_bytes(PHOTOS)
    (other / "b.tar").write_bytes(PHOTOS)
    (allowed / "link.tar").symlink_to(other / "b.tar")
    places_outside = Locations(installation.training.objects, [f"file://{allowed}"], None)
    assert places_outside.read(f"file://{allowed}/a.tar", "local") == PHOTOS
    for location in (f"file://{allowed}/../{other.name}/b.tar", f"file://{other}/b.tar", f"file://{allowed}/link.tar"):
        with pytest.raises(InputRefused):
            places_outside.read(location, "local")
    with pytest.raises(InputRefused):
        places_outside.write(f"file://{allowed}/result", b"")


def test_a_job_that_is_over_keeps_only_what_was_made_of_the_photographs(
    installation: Installation, made: Stages
) -> None:
    claim, order = begun(installation)
    made.fetch(claim, order)
    objects, preview = installation.training.objects, object_keys.preview_key("local", claim.job, 5)
    for key in (object_keys.prepared_key("local", claim.job), preview):
        objects.put(key, b"x")
    installation.training.queue.cancel(claim.job, "local")
    made.clean_up(claim, order)
    assert [facts.key for facts in objects.list(object_keys.job_prefix("local", claim.job))] == [preview]


def test_a_rank_that_came_with_the_archive_is_refused_before_the_trainer_is_asked(
    installation: Installation, made: Stages
) -> None:
    claim, order = begun(installation)
    larger = dataclasses.replace(order, changes={**order.changes, "rank": made.most_rank + 1})
    with pytest.raises(Mismatch):
        made.train(claim, larger)
    with pytest.raises(Mismatch):
        made.admit(claim, larger, consent="")
    assert installation.training.queue.status(claim.job, "local").order == order


def test_who_kills_the_trainer_three_times_fails_alone(
    installation: Installation, made: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a real process, which another job shares until it has crashed once."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    trainer = ChildProcess("tests.worker.fragile_trainer", {"lease_s": HANG_S})
    made = dataclasses.replace(made, trainer=trainer)
    innocent, poison = (
        claimed(installation.training.database, job=installation.submit(name).id) for name in ("innocent", "poison")
    )
    store, stop = installation.training.queue.store, threading.Event()

    def facts(claim: Claim, kind: str) -> list[Mapping[str, object]]:
        return [event.facts for event in store.events(claim.job) if event.kind == kind]

    def train(claim: Claim) -> None:
        job = store.find(claim.job)
        assert job is not None
        made.train(claim, job.order)

    def tend() -> None:  # one thread starts all processes: they end with it
        while not stop.wait(0.01):
            trainer.tend()

    with ThreadPoolExecutor(3) as threads:
        tending, beside = threads.submit(tend), threads.submit(train, innocent)
        try:
            until(lambda: facts(innocent, "joined"))
            with pytest.raises(TrainingError, match="died 3 times at the same place") as caught:
                train(poison)
            assert caught.value.code == "PoisonJob"
            store.cancel(innocent.job, "local")  # it would wait on
            with pytest.raises(Gone):
                beside.result(HANG_S)
        finally:
            store.cancel(innocent.job, "local")
            stop.set()
            trainer.close(patience_s=0.0)
        tending.result(HANG_S)
    assert [said["deaths"] for said in facts(poison, "died")] == [1, 2, 3]
    assert [said["alone"] for said in facts(poison, "joined")] == [False, True, True]
    assert facts(poison, "died")[0]["together"] == 2


def left(installation: Installation, claim: Claim) -> list[str]:
    return [facts.key for facts in installation.training.objects.list(object_keys.job_prefix("local", claim.job))]


def test_an_error_that_was_not_foreseen_ends_the_job(
    installation: Installation, made: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Stages, claim: object, order: object) -> None:
        raise RuntimeError("a word of somebody's")

    monkeypatch.setattr(Stages, "fetch", broken)
    claim, _ = begun(installation)
    made.run(claim)
    failure = installation.training.queue.status(claim.job, "local").failure
    assert failure is not None and failure.code == "InternalError"
    assert "somebody" not in str(failure)


def test_what_was_done_is_not_done_again_by_the_next_worker(
    installation: Installation, made: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def stage(name: str, result: dict[str, str]) -> None:
        def work(self: Stages, claim: Claim, *given: object) -> dict[str, str]:
            done.append(f"{name} {claim.worker}")
            if done == ["fetch w-0", "prepare w-0", "train w-0"]:
                taken_over(installation.training.database)
            return result

        monkeypatch.setattr(Stages, name, work)

    stage("fetch", {})
    stage("prepare", {})
    stage("train", {"adapter_sha256": "a" * 64})
    stage("score", {})
    stage("publish", {})
    claim, _ = begun(installation)
    made.run(claim)
    assert installation.training.queue.status(claim.job, "local").state == "running"
    made.run(dataclasses.replace(claim, worker="w-1", attempt=2))
    assert done == ["fetch w-0", "prepare w-0", "train w-0", "train w-1", "score w-1", "publish w-1"]


def test_forgotten_in_the_middle_of_a_stage(
    installation: Installation, made: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgotten_meanwhile(self: Stages, claim: Claim, order: object) -> dict[str, object]:
        installation.training.queue.erase([claim.job])
        installation.training.objects.put(object_keys.photos_key("local", claim.job), b"faces")
        return {}

    monkeypatch.setattr(Stages, "fetch", forgotten_meanwhile)
    claim, _ = begun(installation)
    made.run(claim)
    assert left(installation, claim) == []


def test_taken_over_in_the_middle_of_a_stage_nothing_is_swept_and_nothing_is_said(
    installation: Installation, made: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = Stages.fetch

    def overtaken(self: Stages, claim: Claim, order: JobOrder) -> dict[str, object]:
        found = fetch(self, claim, order)
        taken_over(installation.training.database)
        return found

    monkeypatch.setattr(Stages, "fetch", overtaken)
    claim, _ = begun(installation)
    made.run(claim)
    assert left(installation, claim) == [object_keys.photos_key("local", claim.job)]
    assert installation.training.queue.status(claim.job, "local").state == "running"


def test_a_worker_whose_job_was_taken_over_publishes_nothing(installation: Installation, made: Stages) -> None:
    claim, order = begun(installation)
    kept, content = bundle.encode(adapter("rex"))
    installation.training.objects.put(object_keys.trained_key("local", claim.job), content)
    taken_over(installation.training.database)
    with pytest.raises(Gone):
        made.publish(claim, order, kept.card.content_sha256)
    assert installation.training.library.catalog.list_adapters("local") == ()


@pytest.mark.parametrize("meanwhile", ["cancelled", "forgotten", "taken over"])
def test_a_job_that_ends_while_it_is_published_leaves_an_adapter_only_where_another_worker_has_it(
    installation: Installation, made: Stages, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    training = installation.training
    claim, order = begun(installation)
    kept, content = bundle.encode(adapter("rex"))
    training.objects.put(object_keys.trained_key("local", claim.job), content)
    publish = AdapterLibrary.publish

    def slow(self: AdapterLibrary, *given: Any, **named: Any) -> object:
        card = publish(self, *given, **named)
        if meanwhile == "cancelled":
            training.queue.cancel(claim.job, "local")
        elif meanwhile == "forgotten":
            training.queue.erase([claim.job])
        else:
            taken_over(training.database)
        return card

    monkeypatch.setattr(AdapterLibrary, "publish", slow)
    with pytest.raises(Gone):
        made.publish(claim, order, kept.card.content_sha256)
    assert training.library.catalog.has_adapter("local", "rex") == (meanwhile == "taken over")
    if meanwhile == "taken over":  # whose worker comes to the same end
        again = dataclasses.replace(claim, worker="w-1", attempt=2)
        monkeypatch.undo()
        assert made.publish(again, order, kept.card.content_sha256) == {"adapter_sha256": kept.card.content_sha256}
