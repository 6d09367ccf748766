"""Faults of ours are waited out, as long as the job is wanted and has time; faults of the sender's end it at once."""

import dataclasses

import pytest
from likeness.jobs.link import Link
from likeness.jobs.steps import Gone, Steps

from likeness.artifacts.library import AdapterLibrary
from likeness.errors import InputRefused, RankTooLarge, StorageUnavailable, TimeLimitReached
from likeness.jobs import places, steps
from likeness.jobs.locations import Locations
from likeness.jobs.store import JobStore
from likeness.jobs.tables import jobs
from likeness.jobs.types import Claim, JobOrder
from tests.jobs.installation import PHOTOS, Installation


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(steps, "FIRST_PAUSE_S", 0.02)


@pytest.fixture
def made(installation: Installation) -> Steps:
    training = installation.training
    nobody = Link("nobody", {})
    return Steps(
        JobStore(training.database), training.library, Locations(training.objects, (), None),
        preparer=nobody, trainer=nobody, full=lambda concurrency: None,
    )  # fmt: skip


def begun(installation: Installation, **changes: object) -> tuple[Claim, JobOrder]:
    job = installation.submit("rex", **changes)
    claim = installation.training.queue.store.claim(job.id, "w-0")
    assert claim is not None
    return claim, job.order


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


def test_a_store_that_is_away_and_a_full_disk_are_waited_for(installation: Installation, made: Steps) -> None:
    claim, order = begun(installation)
    errors = [StorageUnavailable("expected S3 to put object, got 503"), OSError(28, "No space left on device")]
    library = dataclasses.replace(made.library, objects=Flaky(made.library, errors))  # type: ignore[arg-type]
    made = dataclasses.replace(made, library=library)
    assert made.fetch(claim, order)["bytes"] == len(PHOTOS)
    assert installation.training.objects.get(places.photos_key("local", claim.job)) == PHOTOS
    told = [event.facts for event in installation.training.queue.events(claim.job, "local") if event.kind == "waiting"]
    assert [said["message"] for said in told] == ["expected S3 to put object, got 503", "No space left on device"]


def test_waiting_ends_with_the_jobs_time_or_its_owners_wish(installation: Installation, made: Steps) -> None:
    claim, order = begun(installation, time_limit_s=60)

    def away() -> None:
        raise StorageUnavailable("expected S3 to get object, got 503")

    def late() -> None:
        database = installation.training.database
        database.run(lambda c: c.execute(jobs.update().values(started_s=jobs.c.started_s - 3600)))
        raise OSError(28, "No space left on device")

    with pytest.raises(TimeLimitReached, match="60 s"):
        made.patiently(claim, order, late)
    installation.training.queue.cancel(claim.job, "local")
    with pytest.raises(Gone):
        made.patiently(claim, order, away)


@pytest.mark.parametrize(
    "photos", ["local/uploads/rex/none", "s3://somebody/elses", "ben/uploads/x", "file:///etc/passwd"]
)
def test_what_is_not_there_or_not_allowed_is_the_senders(installation: Installation, made: Steps, photos: str) -> None:
    claim, order = begun(installation)
    with pytest.raises(InputRefused):
        made.fetch(claim, dataclasses.replace(order, photos=photos))


def test_an_input_above_a_gigabyte_is_refused_before_it_is_read(
    installation: Installation, made: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("likeness.jobs.locations.MOST_BYTES", 100)
    claim, order = begun(installation)
    with pytest.raises(InputRefused, match="at most 100 bytes"):
        made.fetch(claim, order)


def test_a_named_place_is_the_only_one_that_is_read(installation: Installation, made: Steps, tmp_path_factory) -> None:
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
    installation: Installation, made: Steps
) -> None:
    claim, order = begun(installation)
    made.fetch(claim, order)
    objects, preview = installation.training.objects, places.preview_key("local", claim.job, 5)
    for key in (places.prepared_key("local", claim.job), preview):
        objects.put(key, b"x")
    made.tidy(order, claim.job)
    assert [facts.key for facts in objects.list(places.job_prefix("local", claim.job))] == [preview]


def test_a_rank_that_came_with_the_archive_is_refused_before_the_trainer_is_asked(
    installation: Installation, made: Steps
) -> None:
    claim, order = begun(installation)
    larger = dataclasses.replace(order, changes={**order.changes, "rank": made.most_rank + 1})
    with pytest.raises(RankTooLarge):
        made.train(claim, larger)
    with pytest.raises(RankTooLarge):
        made._admit(claim, larger, consent="")
    assert installation.training.queue.status(claim.job, "local").order == order
