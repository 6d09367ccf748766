"""An uploaded archive lies there until its job is over: not longer, whatever happened, and not shorter."""

from dataclasses import replace

import pytest

from fixtures.installation import PHOTOS, Installation
from likeness.errors import AdapterBusy, InputRefused, UsageError
from likeness.jobs.job import JobOrder
from likeness.jobs.locations import Locations
from likeness.jobs.retention import Retention
from likeness.jobs.tables import jobs
from likeness.storage.objects import FileObjects
from tests.worker.claims import claimed

ORDER = JobOrder("local", "rex", "", "dog", "fast")


def uploads(installation: Installation) -> list[str]:
    return [facts.key for facts in installation.training.objects.list("local/uploads/")]


def test_a_refused_order_leaves_nothing_and_takes_nothing_from_the_open_one(installation: Installation) -> None:
    training = installation.training
    with pytest.raises(UsageError):
        training.submit(replace(ORDER, seed=-1), archive=PHOTOS)
    assert uploads(installation) == []
    job = training.submit(ORDER, archive=PHOTOS)
    assert uploads(installation) == [job.order.photos]
    for archive in (PHOTOS, PHOTOS + b"0"):
        with pytest.raises(AdapterBusy):
            training.submit(ORDER, archive=archive)
        assert uploads(installation) == [job.order.photos]


def test_the_same_order_again_is_the_same_job_and_leaves_nothing_once_that_is_over(installation: Installation) -> None:
    training = installation.training
    job = training.submit(ORDER, archive=PHOTOS, idempotency_key="k")
    assert training.submit(ORDER, archive=PHOTOS, idempotency_key="k").id == job.id
    assert uploads(installation) == [job.order.photos]
    training.queue.cancel(job.id, "local")
    assert training.submit(ORDER, archive=PHOTOS, idempotency_key="k").id == job.id
    assert uploads(installation) == []


def test_what_a_job_leaves_that_never_ran_goes_with_the_retention_clock(installation: Installation) -> None:
    training = installation.training
    job = training.submit(ORDER, archive=PHOTOS)
    training.queue.cancel(job.id, "local")
    clock = Retention(training.database, training.objects, training.library.catalog)
    assert clock.purge_due() == []
    training.database.run(lambda c: c.execute(jobs.update().values(purge_s=1.0)))
    assert clock.purge_due() == [job.id]
    assert uploads(installation) == []


def test_forgetting_finds_the_archive_of_a_job_that_was_renamed(installation: Installation) -> None:
    training = installation.training
    job = training.submit(ORDER, archive=PHOTOS)
    claim = claimed(training.database)
    training.queue.store.amend(claim, replace(job.order, name="max"))
    items = {item.kind: item.count for item in training.forget("local", "max")}
    assert items["uploads"] == 1
    assert uploads(installation) == []


def test_an_archive_that_another_open_job_needs_stays(installation: Installation) -> None:
    training = installation.training
    job = training.submit(ORDER, archive=PHOTOS)
    other = replace(ORDER, name="max", photos=job.order.photos)
    assert not training.queue.store.drop_upload(training.objects, other)
    training.queue.cancel(job.id, "local")
    assert training.queue.store.drop_upload(training.objects, other)
    assert not training.queue.store.drop_upload(training.objects, replace(other, photos="subject"))


def test_a_tenant_of_a_server_with_keys_reads_its_own_folder_only(installation: Installation) -> None:
    outside = installation.settings.home / "outside"
    objects = FileObjects(outside)
    objects.put("anna/a.zip", b"anna's")
    objects.put("b.zip", b"anybody's")
    locations = Locations(installation.training.objects, (f"file://{outside}",))
    assert locations.read(f"file://{outside}/anna/a.zip", "anna") == b"anna's"
    assert locations.read(f"file://{outside}/b.zip", "local") == b"anybody's"
    for key in ("anna/a.zip", "b.zip", "ben2/x"):
        with pytest.raises(InputRefused, match="of this tenant"):
            locations.read(f"file://{outside}/{key}", "ben")
