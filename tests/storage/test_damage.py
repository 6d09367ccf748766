"""Damaged databases and rows are reported as errors, and a damaged row does not hide others."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from likeness.errors import CorruptAdapter, StorageDamaged, StorageUnavailable
from likeness.jobs.job import JobOrder
from likeness.jobs.locations import Locations
from likeness.jobs.queue import Queue
from likeness.jobs.retention import Retention, forget_jobs
from likeness.jobs.tables import events, jobs, open_jobs_database
from likeness.storage.catalog import Catalog
from likeness.storage.objects import FileObjects
from likeness.storage.records import AdapterRecord
from tests.storage.cards import CARD

Open = Callable[[str], object]


def open_catalog(url: str) -> object:
    with closing(Catalog(url)) as catalog:
        return catalog.list_adapters("local")


NOISE = bytes(range(256)) * 32
OPENERS = pytest.mark.parametrize("opened", [open_catalog, open_jobs_database])


@OPENERS
@pytest.mark.parametrize("content", [NOISE, b"SQLite format 3\0" + b"\xff" * 8000, b"text"])
def test_a_file_that_is_no_database(tmp_path: Path, opened: Open, content: bytes) -> None:
    (tmp_path / "x.sqlite").write_bytes(content)
    with pytest.raises(StorageDamaged) as said:
        opened(f"sqlite:///{tmp_path / 'x.sqlite'}")
    assert said.value.http_status == 503 and said.value.hint


def test_pages_that_were_overwritten_are_found_at_the_question(tmp_path: Path) -> None:
    url, file = f"sqlite:///{tmp_path / 'x.sqlite'}", tmp_path / "x.sqlite"
    catalog = Catalog(url)
    catalog.list_adapters("local")
    catalog.close()
    file.write_bytes(file.read_bytes()[:4096] + NOISE * 50)
    with pytest.raises(StorageDamaged):
        open_catalog(url)


@OPENERS
def test_a_folder_that_cannot_be_made(tmp_path: Path, opened: Open) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageUnavailable):
        opened(f"sqlite:///{tmp_path / 'file' / 'home' / 'x.sqlite'}")


# rows


def filled(tmp_path: Path) -> Catalog:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.sqlite'}")
    for name in "abcdef":
        catalog.publish(AdapterRecord("local", replace(CARD, name=name), f"local/adapters/{name}/x", 1))
    return catalog


@pytest.mark.parametrize("card", ["{}", "", "[", "\ud83d".encode("utf-16-le", "surrogatepass"), b"\xff\xfe", "null"])
def test_one_damaged_adapter_hides_no_other_and_can_be_replaced_and_forgotten(tmp_path: Path, card: object) -> None:
    catalog = filled(tmp_path)
    with catalog.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE adapters SET card = CAST(? AS TEXT) WHERE name IN ('b', 'c')", (card,))
    assert [record.name for record in catalog.list_adapters("local")] == ["a", "d", "e", "f"]
    page = catalog.list_adapters("local", limit=2)
    assert [record.name for record in page] == ["a", "d"]  # a short page would mean the end
    assert [record.name for record in catalog.list_adapters("local", after="d", limit=2)] == ["e", "f"]
    with pytest.raises(CorruptAdapter):
        catalog.find_adapter("local", "b")
    assert catalog.content_sha256("local", "b") == CARD.content_sha256
    mended = AdapterRecord("local", replace(CARD, name="b"), "local/adapters/b/y", 1)
    assert catalog.publish(mended, replace=True) == "local/adapters/b/x"
    assert catalog.find_adapter("local", "b") == mended
    assert catalog.forget("local", "c")
    assert not catalog.has_adapter("local", "c")
    catalog.close()


def order(name: str) -> JobOrder:
    return JobOrder("anna", name, f"anna/uploads/{name}/archive", class_noun="dog")


DAMAGE = pytest.mark.parametrize(
    ("column", "value"),
    [
        ("order", "{}"), ("order", "["), ("order", "null"), ("order", '{"notices": 3}'), ("order", b"\xff\xfe"),
        ("order", "[" * 10_000), ("order", order("x").document().replace('"x"', "3")), ("progress", "[1"),
        ("progress", "[]"), ("state", "lost"),
    ],
)  # fmt: skip


@DAMAGE
def test_one_damaged_job_hides_no_other_and_ends_and_goes(tmp_path: Path, column: str, value: object) -> None:
    database = open_jobs_database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    queue = Queue(database, lambda tenant, name: None)
    well, ill = queue.submit(order("well")), queue.submit(order("ill"))
    database.run(lambda c: c.execute(events.insert().values(job=well.id, at_s=1.0, kind="stage", facts="{")))
    with database.engine.connect() as connection, connection.begin():
        change = f'UPDATE jobs SET "{column}" = CAST(? AS TEXT) WHERE id = ?'
        connection.exec_driver_sql(change, (value, ill.id))
    assert [job.id for job in queue.jobs_of("anna")] == [well.id]
    assert [event.kind for event in queue.events(well.id, "anna")] == ["state"]
    with pytest.raises(StorageDamaged):
        queue.status(ill.id, "anna")
    assert "anna/uploads/well/archive" in queue.store.uploads("anna")
    database.run(lambda c: c.execute(jobs.update().where(jobs.c.id == ill.id).values(queue_until_s=0.0)))
    queue.store.expire()
    queue.store.cancel(ill.id, "anna")
    assert queue.backlog().open_jobs == 1
    database.run(lambda c: c.execute(jobs.update().where(jobs.c.id == ill.id).values(purge_s=0.0)))
    objects, catalog = FileObjects(tmp_path / "objects"), Catalog(f"sqlite:///{tmp_path / 'catalog.sqlite'}")
    objects.put(f"anna/jobs/{ill.id}/photos", b"x")
    assert Retention(database, objects, catalog).purge_due() == [ill.id]
    assert list(objects.list("")) == []
    forget_jobs(queue, objects, Locations(objects), tenant="anna", name="ill")
    assert queue.ids_of("anna", "ill") == []
    queue.close()
    catalog.close()
