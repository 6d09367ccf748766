"""The retention clock: photographs go when their time is over, and not before."""

import json
from dataclasses import replace

import pytest

from fixtures.installation import Installation
from likeness.jobs import object_keys
from likeness.jobs.job import SUBJECT_PHOTOS, Job, JobOrder
from likeness.jobs.retention import Retention
from likeness.jobs.tables import jobs
from likeness.storage.catalog import now
from likeness.storage.records import PhotoRecord, SubjectRecord
from tests.worker.claims import claimed


def finished(installation: Installation, *, keep_photos_s: float, photos: str = "local/x") -> Job:
    training = installation.training
    job = training.queue.submit(replace(JobOrder("local", "rex", photos), replace=True))
    claim = claimed(training.database)
    for key in (object_keys.photos_key("local", job.id), object_keys.prepared_key("local", job.id)):
        training.objects.put(key, b"a face")
    training.objects.put(object_keys.preview_key("local", job.id, 5), b"a portrait")
    training.queue.store.finish(claim, "succeeded", keep_photos_s=keep_photos_s)
    return job


def kept(installation: Installation, job: Job) -> list[str]:
    prefix = object_keys.job_prefix("local", job.id)
    return [facts.key.removeprefix(prefix) for facts in installation.training.objects.list(prefix)]


def clock(installation: Installation) -> Retention:
    training = installation.training
    return Retention(training.database, training.objects, training.library.catalog)


def test_photographs_go_when_their_time_is_over_and_it_is_said(installation: Installation) -> None:
    job = finished(installation, keep_photos_s=1000)
    assert clock(installation).purge_due() == []
    assert kept(installation, job) == ["photos", "prepared.zip", "previews/00005.png"]
    installation.training.database.run(lambda c: c.execute(jobs.update().values(purge_s=1.0)))
    assert clock(installation).purge_due() == [job.id]
    assert kept(installation, job) == ["previews/00005.png"]
    assert clock(installation).purge_due() == []
    last = installation.training.queue.events(job.id, "local")[-1]
    assert (last.kind, last.facts) == ("purged", {"objects": 2})


def test_a_server_deletes_them_where_no_worker_runs(installation: Installation) -> None:
    job = finished(installation, keep_photos_s=0)
    installation.training.purge()
    assert kept(installation, job) == ["previews/00005.png"]


def test_processes_that_delete_at_the_same_time_say_so_once(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, one, other = finished(installation, keep_photos_s=0), clock(installation), clock(installation)
    monkeypatch.setattr(one, "_purge", lambda row: len(other.purge_due()))
    assert one.purge_due() == [job.id]
    assert installation.kinds(job).count("purged") == 1


def test_a_subjects_photographs_go_once_they_were_trained_on_and_later_ones_stay(installation: Installation) -> None:
    training = installation.training
    catalog = training.library.catalog
    catalog.add_subject(SubjectRecord("local", "rex", "dog", "<<TOK>>", "", now(), now()))

    def add(sha256: str) -> str:
        key = f"local/photos/rex/{sha256}"
        training.objects.put(key, b"a face")
        catalog.add_photo(PhotoRecord("local", "rex", sha256, "a.jpg", 6, json.dumps({}), key, now()))
        return key

    early = add("a" * 64)
    finished(installation, keep_photos_s=0, photos=SUBJECT_PHOTOS)
    late = add("b" * 64)
    clock(installation).purge_due()
    assert [photo.key for photo in catalog.list_photos("local", "rex")] == [late]
    assert not training.objects.has(early)
    assert training.objects.has(late)
