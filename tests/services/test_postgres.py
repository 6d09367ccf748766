"""The training service on a real PostgreSQL: the same verbs, several workers, and a database that goes away."""

import io
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from PIL import Image
from starlette.testclient import TestClient

from fixtures.installation import PHOTOS, Installation, pids_with
from fixtures.postgres import Postgres, postgres
from fixtures.waiting import HANG_S, until
from likeness.artifacts.card import write_card
from likeness.config import Settings
from likeness.errors import AdapterBusy, AlreadyExists, KeyRefused, QueueFull, StorageUnavailable
from likeness.http.app import create_app
from likeness.jobs import queue as queue_module
from likeness.jobs.job import SUBJECT_PHOTOS, Claim, JobOrder
from likeness.jobs.leases import Leases
from likeness.jobs.queue import Queue
from likeness.jobs.tables import JOBS, jobs, open_jobs_database, remembered
from likeness.service import build
from likeness.service.backup import Counts
from likeness.service.image_files import marked_png
from likeness.service.kept import keep
from likeness.service.training import training_of
from likeness.storage import catalog_tables, forgettings
from likeness.storage.api_keys import new_key
from likeness.storage.catalog import Catalog, refuse_if_forgetting
from likeness.storage.catalog_tables import CATALOG
from likeness.storage.database import migrate
from likeness.storage.gallery import list_outputs, mark_favourite
from likeness.storage.records import AdapterRecord
from likeness.storage.sessions import begin_session, end_session, key_of_session
from likeness.types import PNG, Subject
from likeness.worker.worker import renew_until
from tests.storage.cards import record
from tests.worker.claims import claimed, next_claim, taken_over

pytestmark = [pytest.mark.services, pytest.mark.slow]
TRAINER = "likeness.worker.trainer"


OPEN_OF_BEN = (
    sa.select(sa.func.count()).select_from(jobs).where(jobs.c.tenant == "ben", jobs.c.state.in_(("queued", "running")))
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Postgres]:
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        Path(folder).chmod(0o755)
        with postgres(Path(folder) / "cluster") as running:
            yield running


def test_the_five_verbs(cluster: Postgres) -> None:
    database = open_jobs_database(cluster.url)
    again = open_jobs_database(cluster.url)  # the tables exist already
    queue = Queue(database, lambda tenant, name: None)
    before_s = time.time()
    job = queue.submit(JobOrder("anna", "rex", "anna/x"), idempotency_key="k")
    with pytest.raises(AlreadyExists):
        queue.submit(JobOrder("anna", "rex", "anna/y"), idempotency_key="k")
    assert (job.state, job.place_in_queue) == ("queued", 1)
    assert before_s - 1 < job.submitted_s < time.time() + 1
    claim = claimed(database)
    assert next_claim(database) is None
    claim = taken_over(database)
    assert claim.attempt == 2
    assert queue.store.tell(claim, "progress", {"done": 1})
    assert queue.cancel(job.id, "anna").state == "cancelled"
    assert [event.kind for event in queue.events(job.id, "anna")] == ["state", "state", "taken over", "state"]
    assert remembered(database, "x", "first") == remembered(again, "x", "second") == "first"
    queue.close()
    again.close()


def test_a_queue_of_an_earlier_version_is_opened_in_place(cluster: Postgres) -> None:
    """Of two open jobs of one name the earlier one goes on; of DBOS's tables, which others may use, our rows go."""
    engine = sa.create_engine(cluster.url)
    row = 'INSERT INTO jobs (id, tenant, name, order_sha256, "order", state, submitted_s, queue_until_s, priority)'
    order = JobOrder("old", "rex", "old/x").document()
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
        connection.exec_driver_sql("CREATE SCHEMA dbos")
        connection.exec_driver_sql("CREATE TABLE dbos.workflow_status (workflow_uuid TEXT PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO dbos.workflow_status VALUES ('first'), ('another program')")
    migrate(engine, JOBS, target="0001")
    with engine.begin() as connection:
        for id, state, submitted_s in (("first", "running", 1.0), ("second", "queued", 2.0)):
            connection.execute(
                sa.text(f"{row} VALUES (:id, 'old', 'rex', '', :order, :state, :submitted_s, 1e12, 1)"),
                {"id": id, "order": order, "state": state, "submitted_s": submitted_s},
            )
        connection.exec_driver_sql("DROP TABLE jobs_version")  # as before there were revisions
    with ThreadPoolExecutor(4) as threads:
        databases = list(threads.map(lambda _: open_jobs_database(cluster.url), range(4)))
    queue = Queue(databases[0], lambda tenant, name: None)
    assert {job.id: job.state for job in queue.jobs_of("old")} == {"first": "running", "second": "failed"}
    assert claimed(queue.database).job == "first"
    with engine.begin() as connection:
        left = connection.exec_driver_sql("SELECT workflow_uuid FROM dbos.workflow_status").scalars().all()
        connection.exec_driver_sql("DROP SCHEMA dbos CASCADE")
    assert list(left) == ["another program"]
    queue.cancel("first", "old")
    engine.dispose()
    for database in databases:
        database.close()


def test_a_catalog_of_an_earlier_version_gets_what_the_web_app_needs(cluster: Postgres, tmp_path: Path) -> None:
    """Its kept images stay; pages, favourites, sessions and backups work on PostgreSQL as on SQLite."""
    engine = sa.create_engine(cluster.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    migrate(engine, CATALOG, target="0001")
    old = {"tenant": "local", "subject": "base", "media_type": PNG, "bytes": 1, "created": "2026-01-01T00:00:00+00:00"}
    keys = "tenant, subject, media_type, bytes, created, id, key"
    with engine.begin() as connection:
        for id in ("a" * 32, "b" * 32):  # of the same time
            values = old | {"id": id, "key": f"local/outputs/base/{id}"}
            connection.execute(sa.text(f"INSERT INTO outputs ({keys}) VALUES (:{keys.replace(', ', ', :')})"), values)
    engine.dispose()
    with ThreadPoolExecutor(4) as threads:
        for catalog in threads.map(lambda _: _opened_catalog(cluster.url), range(4)):
            catalog.close()
    with closing(build(Settings(home=tmp_path / "one", jobs=cluster.url, catalog=cluster.url))) as likeness:
        catalog = likeness.catalog
        picture = marked_png(Image.new("RGB", (8, 8)))
        for id in ("a", "b"):
            likeness.library.objects.put(f"local/outputs/base/{id * 32}", picture)
        newest = keep(likeness.library, "local", (), picture, PNG, facts='{"seed": 1}')
        pages = [list_outputs(catalog, "local", limit=2)]
        pages.append(list_outputs(catalog, "local", limit=2, before=pages[0][-1].id))
        assert [one.id for page in pages for one in page] == [newest, "b" * 32, "a" * 32]
        assert [one.facts for one in pages[0]] == ['{"seed": 1}', "{}"]
        assert mark_favourite(catalog, "local", "a" * 32, True)
        assert [one.id for one in list_outputs(catalog, "local", favourites=True)] == ["a" * 32]
        token, key = begin_session(catalog, new_key(catalog, "local")[0])
        assert key_of_session(catalog, token) == key
        end_session(catalog, token)
        with pytest.raises(KeyRefused):
            key_of_session(catalog, token)
        likeness.subjects.create("local", Subject("ida", "dog"), consent="")
        content = b"".join(likeness.backup())
        assert likeness.restore(io.BytesIO(content), tenant="second").counts == Counts(1, 0, 0, 3, 0)
        assert likeness.restore(io.BytesIO(content), tenant="second").counts == Counts(0, 0, 0, 0, 0)
        assert [one.id for one in list_outputs(catalog, "second", favourites=True)] == ["a" * 32]


def _opened_catalog(url: str) -> Catalog:
    catalog = Catalog(url)
    _ = catalog.engine
    return catalog


def test_equal_submits_at_the_same_moment_are_one_job(cluster: Postgres) -> None:
    """Over two servers, with a key and without: one job, and the limit of open jobs holds."""
    queues = [Queue(open_jobs_database(cluster.url), lambda tenant, name: None) for _ in range(2)]
    start = threading.Barrier(8)

    def submit(number: int, name: str, key: str | None) -> str:
        start.wait(HANG_S)
        try:
            return queues[number % 2].submit(JobOrder("ben", name, "ben/x"), idempotency_key=key).id
        except (AdapterBusy, QueueFull) as refused:
            return refused.code

    with ThreadPoolExecutor(8) as threads:

        def at_once(name: str, key: str | None) -> list[str]:
            return list(threads.map(lambda number: submit(number, name.format(number), key), range(8)))

        for turn in range(5):
            with_key = at_once(f"key-{turn}", f"k-{turn}")
            assert len(set(with_key)) == 1 and with_key[0] != "AdapterBusy"
            assert at_once(f"bare-{turn}", None).count("AdapterBusy") == 7
        most = queues[0].database.run(lambda connection: connection.execute(OPEN_OF_BEN).scalar_one()) + 3
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(queue_module, "MOST_OPEN_OF_TENANT", most)
            assert at_once("many-{}", None).count("QueueFull") == 5
    for queue in queues:
        queue.close()


@contextmanager
def idle_worker(url: str) -> Iterator[list[Claim]]:
    """A worker with nothing to do, which would take over what looks expired; gives what it has taken."""
    leases, stop, taken = Leases(open_jobs_database(url), "w-1", beat_s=1.0), threading.Event(), list[Claim]()
    leases.register()

    def work() -> None:
        while not stop.wait(0.25):
            with suppress(StorageUnavailable):
                taken.extend(filter(None, [leases.claim()]))

    beats = threading.Thread(target=renew_until, args=(stop, leases), kwargs={"renewed": lambda: None})
    claims = threading.Thread(target=work)
    for thread in (beats, claims):
        thread.start()
    try:
        yield taken
    finally:
        stop.set()
        for thread in (beats, claims):
            thread.join()


def test_a_database_that_goes_away_loses_nothing(cluster: Postgres, tiny_base_folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    settings = Settings(
        home=home, base=str(tiny_base_folder), heartbeat_s=1, jobs=cluster.url,
        catalog=cluster.url,
    )  # fmt: skip
    installation = Installation(settings, training_of(settings))
    try:
        jobs = [installation.submit(name, steps=30, checkpoint_every=10) for name in ("rex", "max", "bob")]
        installation.start("w-0", "--concurrency", "3")
        until(lambda: all(installation.job(job).state == "running" for job in jobs))
        with idle_worker(cluster.url) as taken_over:
            until(lambda: any("checkpoint" in installation.kinds(job) for job in jobs))
            trainers = set(installation.children("w-0", TRAINER))
            cluster.stop()
            # an expired lease: the trainer exits, and no worker takes over a running job
            until(lambda: not trainers & set(pids_with(TRAINER)))
            cluster.start()
            until(lambda: all(installation.job(job).is_over for job in jobs))
        assert not {claim.job for claim in taken_over} & {job.id for job in jobs}  # it may take other tests' jobs
        for job in jobs:
            over = installation.job(job)
            assert (over.state, over.failure) == ("succeeded", None)
            events = installation.training.queue.events(job.id, "local")
            states = [event.facts["state"] for event in events if event.kind == "state"]
            assert states == ["queued", "running", "succeeded"]
            assert not [event for event in events if event.kind == "died"]
    finally:
        installation.stop()


def test_what_sqlite_would_bear_is_refused_before_it_reaches_the_database(cluster: Postgres, tmp_path: Path) -> None:
    """A NUL in a text and a number beyond an integer are errors to PostgreSQL, and would be a 500."""
    settings = Settings(home=tmp_path, jobs=cluster.url, catalog=cluster.url)
    with closing(build(settings)) as likeness:
        client = TestClient(create_app(likeness), base_url="http://localhost")
        order = JobOrder("local", "nul", SUBJECT_PHOTOS, class_noun="dog")
        job = likeness.training.queue.submit(order).id
        assert len(client.get(f"/v1/jobs/{job}/events?after=0").json()["events"]) == 1
        assert client.get(f"/v1/jobs/{job}/events?after={2**31 - 1}").json() == {"events": []}
        assert client.get(f"/v1/jobs/{job}/events?after={2**31}").status_code == 400
        assert client.get("/v1/jobs?name=%00").json() == {"jobs": []}
        for path in ("/v1/jobs/%00", "/v1/jobs/%00/events", "/v1/images/%00"):
            assert client.get(path).status_code == 404
        for path in ("/v1/subjects?after=%00", "/v1/adapters?after=%00", "/v1/adapters/%00", "/v1/subjects/%00"):
            assert client.get(path).status_code == 400
        webhook = {"kind": "webhook", "target": "https://example.com/\0"}
        assert client.post("/v1/jobs/test-notification", json=webhook).status_code == 400


def test_forgetting_is_complete_and_keeps_out_what_is_being_written(cluster: Postgres, tmp_path: Path) -> None:
    likeness = build(Settings(home=tmp_path / "home", jobs=cluster.url, catalog=cluster.url))
    catalog, otto = likeness.catalog, Subject("otto", "dog")
    likeness.subjects.create("local", otto, consent="")
    likeness.training.submit(JobOrder("local", "otto", "", "dog", "fast"), archive=PHOTOS)
    written, announced = threading.Event(), threading.Event()

    def is_blocked() -> bool:
        with catalog.engine.connect() as connection:
            return bool(connection.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

    def publish() -> None:
        with catalog.engine.begin() as connection:
            connection.execute(catalog_tables.adapters.insert().values(_row(record("otto"))))
            refuse_if_forgetting(connection, "local", "otto")
            written.set()
            until(is_blocked)  # who announces waits for this transaction
            assert not announced.is_set()

    def announce() -> None:
        forgettings.begin(catalog, "local", "otto")
        announced.set()

    with ThreadPoolExecutor(2) as pool:
        publishing = pool.submit(publish)
        assert written.wait(HANG_S)
        pool.submit(announce).result(HANG_S)
        publishing.result(HANG_S)
    with pytest.raises(AdapterBusy, match="being deleted"):
        catalog.publish(record("otto"), replace=True)
    with pytest.raises(AdapterBusy, match="being deleted"):
        likeness.training.submit(JobOrder("local", "otto", "", "dog", "fast"), archive=PHOTOS)
    kinds = {item.kind: item.count for item in likeness.forget("otto").items}
    assert kinds.items() >= {"adapter": 1, "jobs": 1, "subject": 1, "uploads": 1}.items()
    assert not likeness.forgetting.knows("local", "otto")
    assert list(likeness.library.objects.list("")) == []
    likeness.subjects.create("local", otto, consent="")  # the name is free again
    likeness.forget("otto")
    likeness.close()


def _row(published: AdapterRecord) -> dict[str, object]:
    card = published.card
    return {
        "tenant": published.tenant, "name": card.name, "content_sha256": card.content_sha256, "rank": card.rank,
        "base_sha256": card.base_sha256, "bytes": 1, "key": published.key, "card": write_card(card).decode(),
        "created": card.created,
    }  # fmt: skip
