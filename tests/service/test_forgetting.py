"""Deletion is complete, whatever was killed before or during it, or reports that it is not and continues."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from fixtures.installation import PHOTOS, picture
from likeness.config import Settings
from likeness.errors import AdapterBusy, DeletionUnfinished, NotFound, StorageUnavailable
from likeness.http.app import create_app
from likeness.jobs import object_keys
from likeness.jobs.job import Job, JobOrder, Notice
from likeness.jobs.leases import MARGIN_S, Leases
from likeness.jobs.retention import Retention
from likeness.jobs.tables import deliveries
from likeness.service import Likeness, build
from likeness.storage import forgettings
from likeness.storage.catalog import LOCAL, Catalog, now
from likeness.storage.database import empty_log
from likeness.storage.objects import FileObjects
from likeness.storage.records import ForgottenItem, SubjectRecord
from likeness.types import Photo, Subject
from tests.storage.cards import record
from tests.worker.claims import claimed, set_lease, stages_of

ROOT = Path(__file__).parents[2]
WORDS = b"walrus agreed to everything"


@pytest.fixture
def likeness(tmp_path: Path) -> Iterator[Likeness]:
    made = build(Settings(home=tmp_path / "home"))
    yield made
    made.close()


def kill_points(folder: Path) -> dict[str, Any]:
    words = [sys.executable, "-m", "tests.service.kill_points", str(folder)]
    found_by = os.pathsep.join(filter(None, (str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH"))))
    path = {"PYTHONPATH": found_by, "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, capture_output=True, text=True, env=path, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_nothing_is_left_of_a_life_that_was_killed_at_any_point(tmp_path: Path) -> None:
    found = kill_points(tmp_path)
    assert found["points"] > 60
    assert found["problems"] == {}


def files(likeness: Likeness) -> list[str]:
    root = likeness.home.root / "objects"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def bytes_of(likeness: Likeness, secret: bytes) -> list[str]:
    return sorted(path.name for path in likeness.home.root.rglob("*") if path.is_file() and secret in path.read_bytes())


# what a process that was killed leaves in the store


def half_written(likeness: Likeness) -> Path:
    incoming = likeness.home.root / "objects/.incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    (incoming / "tmpesr0npt9").write_bytes(b"an adapter")
    return incoming / "tmpesr0npt9"


def test_a_half_written_file_goes_with_a_sweep_and_with_any_forget(likeness: Likeness) -> None:
    left = half_written(likeness)
    likeness.forgetting.sweep()
    assert not left.exists()
    left = half_written(likeness)
    likeness.subjects.create(LOCAL, Subject("rex", "dog"), consent="")
    likeness.forget("rex")
    assert not left.exists()


def test_a_file_that_is_being_written_is_left_alone(likeness: Likeness) -> None:
    objects = likeness.library.objects
    objects.put("local/x/y", b"")
    left = half_written(likeness)
    with objects.writing(), objects.alone() as is_alone:
        assert not is_alone
        assert left.exists()
    with objects.alone() as is_alone:
        assert is_alone
        assert not left.exists()


def unfinished_job(likeness: Likeness) -> Job:
    return likeness.training.submit(JobOrder(LOCAL, "rex", "", "dog", "fast"), archive=PHOTOS)


def test_a_sweep_takes_what_nobody_owns_and_nothing_else(likeness: Likeness) -> None:
    objects, catalog = likeness.library.objects, likeness.catalog
    job = unfinished_job(likeness)
    likeness.subjects.create(LOCAL, Subject("ida", "dog"), consent="")
    likeness.subjects.add_photos(LOCAL, "ida", [Photo("1.jpg", picture(5))])
    published = record("bob")
    objects.put(published.key, b"weights")
    catalog.publish(published)
    objects.put(f"{object_keys.job_prefix(LOCAL, job.id)}previews/00001.png", b"")
    objects.put("async/local/result.out", b"{}")
    objects.put("local/other/kept", b"not ours")
    kept = files(likeness)
    for orphan in (
        f"{object_keys.job_prefix(LOCAL, 'f' * 24)}checkpoints/000001.safetensors", f"other/uploads/x/{'b' * 64}",
        f"local/uploads/rex/{'c' * 64}", f"local/adapters/bob/{'d' * 64}.safetensors", f"local/photos/ida/{'e' * 64}",
        f"local/outputs/base/{'f' * 32}",
    ):  # fmt: skip
        objects.put(orphan, b"a person")
    assert likeness.forgetting.sweep() == 6
    assert files(likeness) == kept
    assert likeness.forgetting.sweep() == 0


def test_a_store_that_is_another_installations_is_not_swept(tmp_path: Path) -> None:
    objects = FileObjects(tmp_path / "shared")
    objects.put(f"local/photos/ida/{'e' * 64}", b"a person")
    stranger = build(Settings(home=tmp_path / "home", objects=str(objects.root)))
    assert stranger.forgetting.sweep() == 0
    assert len(list(objects.list(""))) == 1
    stranger.close()


def test_a_server_sweeps_when_it_starts(likeness: Likeness) -> None:
    likeness.library.objects.put(f"local/uploads/orphan/{'a' * 64}", b"photographs")
    with TestClient(create_app(likeness)):
        assert files(likeness) == []


def test_upload_and_job_are_one_to_a_sweeper(likeness: Likeness, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, swept = likeness.training.queue, []
    submit = queue.submit

    def watched(*arguments: Any, **options: Any) -> Job:
        with likeness.library.objects.alone() as is_alone:
            swept.append(is_alone)
        return submit(*arguments, **options)

    monkeypatch.setattr(queue, "submit", watched)
    unfinished_job(likeness)
    assert swept == [False]


# who still writes


def checkpoint(likeness: Likeness, job: Job) -> str:
    key = f"{object_keys.checkpoints_prefix(LOCAL, job.id)}000001.safetensors"
    likeness.library.objects.put(key, b"a person, half learnt")
    return key


def test_there_is_no_receipt_while_a_worker_may_still_write(likeness: Likeness) -> None:
    job = unfinished_job(likeness)
    claim = claimed(likeness.training.database)
    with pytest.raises(DeletionUnfinished, match="worker"):
        likeness.forget("rex", wait_s=0.0)
    assert likeness.catalog.list_receipts(LOCAL) == ()
    assert not likeness.training.queue.store.holds(claim)
    checkpoint(likeness, job)  # by the worker, which has not looked yet
    assert likeness.forgetting.resume() == 0
    checkpoint(likeness, job)
    stages_of(likeness.training).clean_up(claim, job.order)
    assert likeness.forgetting.resume() == 1
    assert files(likeness) == []
    (receipt,) = likeness.catalog.list_receipts(LOCAL)
    assert {item.kind: item.count for item in receipt.items}["checkpoints"] == 1  # the worker swept the other
    assert likeness.training.queue.ids_of(LOCAL, "rex") == []
    with pytest.raises(NotFound):
        likeness.forget("rex")


def test_a_worker_that_died_writes_nothing_when_its_lease_is_over(likeness: Likeness) -> None:
    job = unfinished_job(likeness)
    claimed(likeness.training.database)
    database = likeness.training.database
    checkpoint(likeness, job)
    with pytest.raises(DeletionUnfinished):
        likeness.forget("rex", wait_s=0.0)
    set_lease(database, database.now - MARGIN_S)
    checkpoint(likeness, job)
    assert likeness.forget("rex", wait_s=0.0).name == "rex"
    assert files(likeness) == []


@pytest.mark.parametrize("ahead_s", [20.0, 3600.0])
def test_a_clock_that_was_set_back_holds_nothing_up(likeness: Likeness, ahead_s: float) -> None:
    unfinished_job(likeness)
    claimed(likeness.training.database)
    set_lease(likeness.training.database, likeness.training.database.now + 10.0 + ahead_s)
    assert likeness.forget("rex", wait_s=0.0).name == "rex"


def test_a_worker_that_starts_again_holds_nothing_of_its_earlier_self(likeness: Likeness) -> None:
    unfinished_job(likeness)
    database = likeness.training.database
    claimed(database)
    Leases(database, "w-1", beat_s=5.0).register()
    with pytest.raises(DeletionUnfinished):
        likeness.forget("rex", wait_s=0.0)
    Leases(database, "w-0", beat_s=5.0).register()
    assert likeness.forget("rex", wait_s=0.0).name == "rex"


def test_a_job_that_is_still_in_a_child_process_keeps_its_lease(likeness: Likeness) -> None:
    job = unfinished_job(likeness)
    claim, stages = claimed(likeness.training.database), stages_of(likeness.training)
    stages.trainer.enter(job.id)
    stages.clean_up(claim, job.order)
    with pytest.raises(DeletionUnfinished):
        likeness.forget("rex", wait_s=0.0)
    stages.trainer.leave(job.id)
    stages.clean_up(claim, job.order)
    assert likeness.forget("rex", wait_s=0.0).name == "rex"


def test_a_result_that_is_being_sent_is_waited_for(likeness: Likeness) -> None:
    job = unfinished_job(likeness)
    database = likeness.training.database
    row = {
        "id": "m", "job": job.id, "tenant": LOCAL, "kind": "object", "target": "file:///x", "body": "{}", "place": 0,
        "state": "waiting", "created_s": database.now, "due_s": database.now + 60.0, "attempts": 1,
    }  # fmt: skip
    database.run(lambda c: c.execute(deliveries.insert().values(**row)))
    with pytest.raises(DeletionUnfinished):
        likeness.forget("rex", wait_s=0.0)
    database.run(lambda c: c.execute(deliveries.update().values(last_error="refused")))
    assert likeness.forget("rex", wait_s=0.0).name == "rex"


def test_a_result_that_was_claimed_before_the_clock_was_set_back_is_not_waited_for(likeness: Likeness) -> None:
    job = unfinished_job(likeness)
    database = likeness.training.database
    row = {
        "id": "m", "job": job.id, "tenant": LOCAL, "kind": "object", "target": "file:///x", "body": "{}", "place": 0,
        "state": "waiting", "created_s": database.now, "due_s": database.now + 3600.0, "attempts": 1,
    }  # fmt: skip
    database.run(lambda c: c.execute(deliveries.insert().values(**row)))
    assert likeness.forget("rex", wait_s=0.0).name == "rex"


# a name that is being deleted


def test_nothing_new_is_taken_of_a_name_that_is_being_deleted(likeness: Likeness) -> None:
    likeness.subjects.create(LOCAL, Subject("rex", "dog"), consent="")
    forgettings.begin(likeness.catalog, LOCAL, "rex")
    catalog = likeness.catalog
    for write in (
        lambda: unfinished_job(likeness),
        lambda: likeness.subjects.add_photos(LOCAL, "rex", [Photo("1.jpg", picture(5))]),
        lambda: catalog.publish(record("rex")),
    ):
        with pytest.raises(AdapterBusy, match="being deleted"):
            write()
    assert files(likeness) == []
    catalog.publish(record("rex", tenant="other"))
    assert likeness.forgetting.resume() == 1
    with pytest.raises(NotFound):
        catalog.find_adapter(LOCAL, "rex")
    catalog.add_subject(SubjectRecord(LOCAL, "rex", "dog", "<<TOK>>", "", now(), now()))


def test_a_deletion_that_was_announced_and_killed_is_known_and_counted(likeness: Likeness) -> None:
    forgettings.begin(likeness.catalog, LOCAL, "rex")
    assert [one.name for one in forgettings.under_way(likeness.catalog)] == ["rex"]
    assert likeness.forget("rex").items == ()  # not unknown
    assert forgettings.under_way(likeness.catalog) == ()


def test_a_full_disk_takes_a_deletion_all_the_same(likeness: Likeness, monkeypatch: pytest.MonkeyPatch) -> None:
    likeness.subjects.create(LOCAL, Subject("rex", "dog"), consent="")
    likeness.subjects.add_photos(LOCAL, "rex", [Photo("1.jpg", picture(5))])
    begin = forgettings.begin

    def full(*arguments: Any) -> None:
        if files(likeness):
            raise StorageUnavailable("expected an answer from the catalog's database, got OperationalError")
        begin(*arguments)

    monkeypatch.setattr(forgettings, "begin", full)
    assert {item.kind for item in likeness.forget("rex").items} == {"photographs", "subject"}


def test_one_deletion_that_fails_holds_up_no_other(likeness: Likeness, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ida", "rex"):
        forgettings.begin(likeness.catalog, LOCAL, name)
    forget = Catalog.forget

    def failing(self: Catalog, tenant: str, name: str) -> tuple[ForgottenItem, ...]:
        if name == "ida":
            raise KeyError(name)
        return forget(self, tenant, name)

    monkeypatch.setattr(Catalog, "forget", failing)
    with pytest.raises(KeyError):  # so that it is logged and counted
        likeness.forgetting.resume()
    assert [one.name for one in forgettings.under_way(likeness.catalog)] == ["ida"]
    monkeypatch.undo()
    assert likeness.forgetting.resume() == 1


def test_a_recorded_deletion_goes_on_with_the_reserves_room(
    likeness: Likeness, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgettings.begin(likeness.catalog, LOCAL, "rex")
    assert likeness.reserve.keep()
    forget = Catalog.forget

    def full(self: Catalog, tenant: str, name: str) -> tuple[ForgottenItem, ...]:
        if (likeness.home.root / "reserve").exists():
            raise StorageUnavailable("expected an answer from the catalog's database, got SQLITE_FULL")
        return forget(self, tenant, name)

    monkeypatch.setattr(Catalog, "forget", full)
    assert likeness.forgetting.resume() == 1
    assert (likeness.home.root / "reserve").exists()  # for the next one


@pytest.mark.parametrize("damage", ["", "[", "{}", "[3]", "[{}]", "null", '[{"kind": 1, "count": "x", "bytes": 0}]'])
def test_damaged_lists_of_what_was_deleted_are_in_nobodys_way(likeness: Likeness, damage: str) -> None:
    catalog = likeness.catalog
    forgettings.begin(catalog, LOCAL, "ida")
    forgettings.finish(catalog, LOCAL, "ida")
    with catalog.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE receipts SET items = ?", (damage,))
    likeness.subjects.create(LOCAL, Subject("rex", "dog"), consent="")
    forgettings.begin(catalog, LOCAL, "rex")
    with catalog.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE forgettings SET deleted = ?", (damage,))
    receipt = likeness.forget("rex")
    assert [item.kind for item in receipt.items] == ["subject"]
    assert [one for one in catalog.list_receipts(LOCAL) if one.items] == [receipt]


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY])
def test_a_log_that_has_no_room_to_be_emptied_is_not_a_readers(code: int) -> None:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode, error.sqlite_errorname = code, "SQLITE_X"

    class Cursor:
        def execute(self, statement: str) -> "Cursor":
            if "checkpoint" in statement:
                raise error
            return self

        def fetchone(self) -> tuple[int]:
            return (15000,)

        def close(self) -> None: ...

    class Connection:
        def cursor(self) -> Cursor:
            return Cursor()

    if code == sqlite3.SQLITE_BUSY:
        assert not empty_log(Connection())
    else:
        with pytest.raises(StorageUnavailable, match="SQLITE_X"):
            empty_log(Connection())


# the logs of the databases


@pytest.mark.parametrize(("name", "table"), [("catalog.sqlite", "subjects"), ("jobs.sqlite", "jobs")])
def test_a_reader_of_a_database_is_waited_for(likeness: Likeness, name: str, table: str) -> None:
    likeness.subjects.create(LOCAL, Subject("rex", "dog"), consent=WORDS.decode())
    job = unfinished_job(likeness)
    with closing(sqlite3.connect(likeness.home.root / name)) as reader:
        reader.execute("BEGIN")
        reader.execute(f"SELECT * FROM {table}").fetchall()
        with pytest.raises(DeletionUnfinished, match="reader"):
            likeness.forget("rex", wait_s=0.0)
        assert likeness.catalog.list_receipts(LOCAL) == ()
        assert likeness.forgetting.resume() == 0
        assert bytes_of(likeness, WORDS) + bytes_of(likeness, job.id.encode()) != []
    assert likeness.forgetting.resume() == 1
    assert bytes_of(likeness, WORDS) + bytes_of(likeness, job.id.encode()) == []


def test_an_unfinished_deletion_is_accepted_and_its_receipt_can_be_had_later(likeness: Likeness) -> None:
    app = create_app(likeness)
    client = TestClient(app, base_url="http://localhost")  # without the tasks of a start
    likeness.subjects.create(LOCAL, Subject("rex", "dog"), consent="")
    forget = likeness.forget
    object.__setattr__(likeness, "forget", lambda name, tenant: forget(name, tenant=tenant, wait_s=0.0))
    with closing(sqlite3.connect(likeness.home.root / "catalog.sqlite")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM subjects").fetchall()
        answer = client.delete("/v1/subjects/rex")
        assert (answer.status_code, answer.json()["name"]) == (202, "rex")
        assert "reader" in answer.json()["reason"]
        found = client.get("/v1/receipts").json()
        assert (found["receipts"], [one["name"] for one in found["unfinished"]]) == ([], ["rex"])
    receipt = client.delete("/v1/subjects/rex")
    assert receipt.status_code == 200
    assert client.get("/v1/receipts").json() == {"receipts": [receipt.json()], "unfinished": []}
    assert client.delete("/v1/subjects/rex").status_code == 404


# addresses


def test_addresses_of_tests_go_with_the_person_and_with_time(likeness: Likeness) -> None:
    training = likeness.training
    mine, other = Notice("webhook", "https://walrus.example/"), Notice("webhook", "https://other.example/")
    order = JobOrder(LOCAL, "rex", "", "dog", "fast", notices=(mine,))
    training.submit(order, archive=PHOTOS)
    for notice in (mine, other):
        training.deliveries.test(LOCAL, notice)
    likeness.forget("rex", wait_s=0.0)
    assert bytes_of(likeness, b"walrus.example") == []
    targets = sa.select(deliveries.c.target)
    assert training.database.run(lambda c: c.execute(targets).scalars().all()) == [other.target]
    clock = Retention(training.database, training.objects, training.library.catalog)
    clock.purge_due()
    assert training.database.run(lambda c: c.execute(targets).scalars().all()) == [other.target]
    training.database.run(lambda c: c.execute(deliveries.update().values(created_s=deliveries.c.created_s - 3600.0)))
    clock.purge_due()
    assert training.database.run(lambda c: c.execute(targets).scalars().all()) == []
