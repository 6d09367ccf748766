"""An installation that an earlier version made is opened in place: its finished jobs are there, its open ones go on."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from fixtures.installation import PHOTOS, Installation
from fixtures.waiting import HANG_S, until
from likeness.config import Settings
from likeness.errors import SettingsError
from likeness.jobs import tables as job_tables
from likeness.jobs.job import Job
from likeness.service.training import training_of
from likeness.storage import catalog_tables
from likeness.storage import database as database_module
from likeness.storage.database import Database, Schema
from tests.worker.claims import claimed, next_claim

OLD = Path(__file__).parent / "old"
STATES = {
    "finished": "succeeded", "broken": "failed", "unwanted": "cancelled", "running": "running", "waiting": "queued",
}  # fmt: skip
SCHEMAS = pytest.mark.parametrize(
    ("schema", "metadata"),
    [(catalog_tables.CATALOG, catalog_tables.metadata), (job_tables.JOBS, job_tables.metadata)],
    ids=["catalog", "jobs"],
)


@pytest.fixture
def old(tmp_path: Path, tiny_base_folder: Path) -> Iterator[Installation]:
    """The old home; its open jobs were ordered just now."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("catalog", "jobs"):
        with closing(sqlite3.connect(home / f"{name}.sqlite")) as connection:
            connection.executescript((OLD / f"{name}.sql").read_text())
            if name == "jobs":
                now_s = time.time()
                connection.execute("UPDATE jobs SET queue_until_s = ?, purge_s = NULL", (now_s + 3600,))
                connection.execute("UPDATE jobs SET started_s = ? WHERE state = 'running'", (now_s,))
                connection.commit()
    settings = Settings(home=home, base=str(tiny_base_folder), heartbeat_s=1)
    installation = Installation(settings, training_of(settings))
    yield installation
    installation.stop()


def jobs(installation: Installation) -> dict[str, Job]:
    return {job.order.name: job for job in installation.training.queue.jobs_of("local")}


def test_the_jobs_of_an_old_installation_are_there(old: Installation) -> None:
    found = jobs(old)
    assert {name: job.state for name, job in found.items()} == STATES
    finished, broken = found["finished"], found["broken"]
    (record,) = old.training.library.catalog.list_adapters("local")
    assert (record.name, record.card.content_sha256) == ("finished", finished.adapter_sha256)
    assert broken.failure is not None and broken.failure.code == "PhotosRefused"
    kinds = [event.kind for event in old.training.queue.events(finished.id, "local")]
    assert kinds[0] == kinds[-1] == "state" and "checkpoint" in kinds
    (message,) = old.training.deliveries.of_job("local", finished.id)
    assert message.target == "https://example.com/hook"


def test_the_open_jobs_of_an_old_installation_are_taken_up(old: Installation) -> None:
    found, database = jobs(old), old.training.database
    claims = [claimed(database), claimed(database)]
    assert [claim.job for claim in claims] == [found["running"].id, found["waiting"].id]
    assert [claim.attempt for claim in claims] == [2, 1]
    assert next_claim(database) is None


def test_nothing_of_the_old_queue_stays(old: Installation) -> None:
    names = set(sa.inspect(old.training.database.engine).get_table_names())
    assert names == {*job_tables.metadata.tables, "jobs_version"}
    running = jobs(old)["running"]
    old.training.forget("local", "running")
    assert old.training.scrub()
    with closing(sqlite3.connect(old.settings.home / "jobs.sqlite")) as connection:
        connection.execute("VACUUM")
    assert running.id.encode() not in (old.settings.home / "jobs.sqlite").read_bytes()


@pytest.mark.slow
def test_a_worker_ends_the_open_jobs_of_an_old_installation(old: Installation) -> None:
    found = jobs(old)
    for name in ("running", "waiting"):
        old.training.objects.put(found[name].order.photos, PHOTOS)
    old.start("w-1")
    until(lambda: old.training.queue.backlog().open_jobs == 0)
    assert {name: job.state for name, job in jobs(old).items()} == STATES | dict.fromkeys(
        ("running", "waiting"), "succeeded"
    )


@SCHEMAS
def test_the_revisions_make_the_tables_that_the_code_expects(
    tmp_path: Path, schema: Schema, metadata: sa.MetaData
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.sqlite'}", schema)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": schema.version_table, "compare_type": False}
        )
        assert compare_metadata(context, metadata) == []
    database.close()
    folder = str(Path(database_module.__file__).parent / "migrations" / schema.name)
    assert ScriptDirectory(folder, version_locations=[folder]).get_current_head() == schema.head


@SCHEMAS
def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path, schema: Schema, metadata: sa.MetaData) -> None:
    url = f"sqlite:///{tmp_path / 'x.sqlite'}"
    database = Database(url, schema)
    with database.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {schema.version_table} SET version_num = '9999'")
    database.close()
    with pytest.raises(SettingsError, match="or older, got 9999"):
        Database(url, schema)


def test_both_databases_are_made_at_the_same_moment(tmp_path: Path) -> None:
    """As by the first requests of a server, on threads of one process."""
    schemas = [catalog_tables.CATALOG, job_tables.JOBS] * 4
    start = threading.Barrier(len(schemas))

    def made(number: int) -> set[str]:
        start.wait(HANG_S)
        database = Database(f"sqlite:///{tmp_path / f'{number}.sqlite'}", schemas[number])
        names = set(sa.inspect(database.engine).get_table_names())
        database.close()
        return names

    with ThreadPoolExecutor(len(schemas)) as threads:
        found = list(threads.map(made, range(len(schemas))))
    expected = [{*catalog_tables.metadata.tables, "catalog_version"}, {*job_tables.metadata.tables, "jobs_version"}]
    assert found == expected * 4
