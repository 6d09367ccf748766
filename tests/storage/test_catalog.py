"""The catalog: rows define what exists, tenants are isolated, and deleted data leaves no trace."""

import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from fixtures.postgres import postgres
from likeness.artifacts.card import read_card, write_card
from likeness.errors import (
    AlreadyExists,
    CorruptAdapter,
    MissingPart,
    NotFound,
    SettingsError,
    StorageUnavailable,
    UsageError,
)
from likeness.storage import database, forgettings
from likeness.storage.catalog import Catalog, now
from likeness.storage.records import ForgottenItem, OutputRecord, PhotoRecord, SubjectRecord
from likeness.types import HOUSE_ADAPTERS
from tests.storage.cards import CARD, record

SECRET = "a-word-that-nobody-else-shall-see"


def subject(name: str = "anna", tenant: str = "local") -> SubjectRecord:
    return SubjectRecord(tenant, name, "woman", "<<TOK>>", SECRET, now(), now())


def photo(name: str = "anna", sha256: str = "ee" * 32, tenant: str = "local") -> PhotoRecord:
    return PhotoRecord(tenant, name, sha256, f"{SECRET}.jpg", 10, "{}", f"{tenant}/photos/{name}/{sha256}", now())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "catalog.sqlite"


@pytest.fixture(scope="module")
def cluster_url() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to PostgreSQL's user
        os.chmod(folder, 0o755)
        with postgres(Path(folder) / "cluster") as cluster:
            yield cluster.url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def url(request: pytest.FixtureRequest, file: Path) -> str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{file}"
    found: str = request.getfixturevalue("cluster_url")
    engine = create_engine(found)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return found


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    opened = Catalog(url)
    yield opened
    opened.close()


def test_card_round_trip() -> None:
    assert read_card(write_card(CARD)) == CARD
    with pytest.raises(CorruptAdapter):
        write_card(replace(CARD, recipe={"x": float("nan")}))
    with pytest.raises(CorruptAdapter):
        write_card(replace(CARD, recipe={"x": object()}))


def test_publish_find_list(catalog: Catalog) -> None:
    for name in ("bert", "anna", "cleo"):
        assert catalog.publish(record(name)) is None
    assert catalog.find_adapter("local", "anna") == record("anna")
    assert [one.name for one in catalog.list_adapters("local")] == ["anna", "bert", "cleo"]
    assert [one.name for one in catalog.list_adapters("local", after="anna", limit=1)] == ["bert"]
    with pytest.raises(UsageError):
        catalog.list_adapters("local", limit=0)


def test_a_name_is_taken_once_and_replaced_on_demand(catalog: Catalog) -> None:
    first, second = record(), record(content_sha256="ef" * 32)
    catalog.publish(first)
    with pytest.raises(AlreadyExists):
        catalog.publish(second)
    assert catalog.find_adapter("local", "anna") == first
    assert catalog.publish(second, replace=True) == first.key
    assert catalog.find_adapter("local", "anna") == second
    with pytest.raises(CorruptAdapter):
        catalog.publish(record(rank=0), replace=True)
    assert catalog.find_adapter("local", "anna") == second


def test_of_many_who_publish_one_name_one_wins(url: str) -> None:
    outcomes: list[str] = []

    def publish(k: int) -> None:
        catalog = Catalog(url)  # each makes the tables too
        try:
            catalog.publish(record(content_sha256=f"{k:064x}"))
            outcomes.append("won")
        except AlreadyExists:
            outcomes.append("lost")
        finally:
            catalog.close()

    threads = [threading.Thread(target=publish, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost"] * 7 + ["won"]


def test_tenants_see_only_themselves(catalog: Catalog) -> None:
    catalog.publish(record("anna-2", "one"))
    catalog.publish(record("anna-2", "two", content_sha256="ef" * 32))
    catalog.add_subject(subject(tenant="one"))
    catalog.add_photo(photo(tenant="one"))
    assert catalog.find_adapter("two", "anna-2").card.content_sha256 == "ef" * 32
    assert catalog.list_adapters("three") == () == catalog.list_subjects("three")
    with pytest.raises(NotFound) as unknown:
        catalog.find_adapter("three", "anna-3")
    assert "anna" not in str(unknown.value)  # the hint knows the tenant's own names only
    with pytest.raises(NotFound):
        catalog.list_photos("two", "anna")
    assert catalog.find_photo("two", "anna", photo().sha256) is None
    catalog.delete_photo("two", "anna", photo().sha256)
    assert catalog.find_photo("one", "anna", photo().sha256) is not None
    assert catalog.forget("two", "anna-2") == (ForgottenItem("adapter", 1, 1000),)
    assert catalog.find_adapter("one", "anna-2")


def test_not_found_names_the_near_miss_and_never_the_question(catalog: Catalog) -> None:
    catalog.publish(record("anna-2"))
    with pytest.raises(NotFound) as near:
        catalog.find_adapter("local", "anna-3")
    assert "anna-2" in near.value.hint and "anna-3" not in str(near.value)
    with pytest.raises(NotFound) as far:
        catalog.find_adapter("local", "zoe")
    assert "zoe" not in str(far.value) and "anna" not in str(far.value)


def test_subjects_and_photographs(catalog: Catalog) -> None:
    with pytest.raises(NotFound):
        catalog.add_photo(photo())
    catalog.add_subject(subject())
    with pytest.raises(AlreadyExists):
        catalog.add_subject(subject())
    assert catalog.add_photo(photo()) and not catalog.add_photo(photo())  # the same one twice
    assert catalog.add_photo(photo(sha256="ff" * 32))
    assert [one.sha256 for one in catalog.list_photos("local", "anna")] == ["ee" * 32, "ff" * 32]
    found = catalog.find_photo("local", "anna", "ee" * 32)
    assert found is not None and found.key.endswith("ee" * 32)
    catalog.delete_photo("local", "anna", "ee" * 32)
    assert [one.sha256 for one in catalog.list_photos("local", "anna")] == ["ff" * 32]
    assert [one.name for one in catalog.list_subjects("local")] == ["anna"]


def test_forgetting_leaves_no_byte(catalog: Catalog, file: Path) -> None:
    for name in ("anna", "anna-2"):
        catalog.publish(record(name))
        catalog.add_subject(subject(name))
        catalog.add_photo(photo(name))
        catalog.add_output(OutputRecord("local", f"of-{name}", name, "image/png", 7, f"local/outputs/{name}/x", now()))
    assert catalog.holds("local", "anna") and not catalog.holds("local", "bert")
    items = {item.kind: (item.count, item.bytes) for item in catalog.forget("local", "anna")}
    assert items == {"photographs": (1, 10), "subject": (1, 0), "adapter": (1, 1000), "portraits": (1, 7)}
    assert not catalog.holds("local", "anna") and catalog.holds("local", "anna-2")
    assert catalog.find_output("local", "of-anna") is None and catalog.find_output("local", "of-anna-2")
    catalog.forget("local", "anna-2")
    catalog.close()
    if file.exists():
        assert not any(SECRET.encode() in path.read_bytes() for path in file.parent.iterdir())


def test_receipts_are_kept(catalog: Catalog) -> None:
    forgettings.begin(catalog, "local", "anna")
    forgettings.note(catalog, "local", "anna", [ForgottenItem("adapter", 1, 1000)])
    receipt = forgettings.finish(catalog, "local", "anna")
    assert receipt is not None and receipt.items == (ForgottenItem("adapter", 1, 1000),)
    assert catalog.list_receipts("local") == (receipt,)
    assert catalog.list_receipts("other") == ()


@pytest.mark.parametrize("name", ["../anna", "", "a/b", "Anna", "<script>", "x" * 64, ".", "anna\0", "anna'--"])
def test_names_that_are_none(catalog: Catalog, name: str) -> None:
    for ask in (catalog.find_adapter, catalog.find_subject, catalog.list_photos, catalog.forget, catalog.holds):
        with pytest.raises(UsageError):
            ask("local", name)
    with pytest.raises(UsageError):
        catalog.publish(replace(record(), card=replace(CARD, name=name)))


def test_a_catalog_of_another_version_is_left_alone(catalog: Catalog, url: str) -> None:
    with catalog.engine.begin() as connection:
        connection.execute(text("UPDATE catalog_version SET version_num = '9999'"))
    with pytest.raises(SettingsError, match="or older, got 9999"):
        Catalog(url).list_adapters("local")


@pytest.mark.parametrize(
    "url", ["", "nonsense", "nonsense://x", "sqlite+nonsense:///x", "postgresql://host:x/likeness"]
)
def test_urls_that_name_no_database(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError):
        Catalog(url).list_adapters("local")
    assert not list(tmp_path.iterdir())


def test_a_database_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageUnavailable, match="catalog's database"):
        Catalog(f"sqlite:///{tmp_path}/folder").list_adapters("local")


def test_a_missing_driver_is_named() -> None:
    with pytest.raises(MissingPart, match="driver"):
        Catalog("mysql+pymysql://host/x").list_adapters("local")


def test_the_home_is_for_nobody_else(file: Path) -> None:
    catalog = Catalog(f"sqlite:///{file}")
    catalog.list_adapters("local")
    catalog.close()
    assert file.parent.stat().st_mode & 0o077 == 0  # consent and names are in here


def test_a_new_database_is_opened_while_another_connection_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "catalog.sqlite"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")

    def until_the_writer_is_done(seconds: float) -> None:
        writer.rollback()

    monkeypatch.setattr(time, "sleep", until_the_writer_is_done)
    reader = sqlite3.connect(path)
    database.begin_write_ahead(reader.cursor())
    assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    reader.close()
    writer.close()


def test_a_house_adapter_is_found_where_the_tenant_has_none_of_the_name(catalog: Catalog) -> None:
    for name in ("anna", "oil"):
        catalog.publish(replace(record(name), tenant=HOUSE_ADAPTERS))
    catalog.publish(record("anna"))
    catalog.publish(record("bert"))
    assert [one.tenant for one in catalog.list_usable("local")] == ["local", "local", HOUSE_ADAPTERS]
    assert [one.name for one in catalog.list_usable("local", after="anna", limit=1)] == ["bert"]
    assert catalog.find_usable("local", "anna").tenant == "local"
    assert catalog.find_usable("two", "anna").tenant == catalog.find_usable("local", "oil").tenant == HOUSE_ADAPTERS
    assert [catalog.can_use("two", name) for name in ("oil", "bert")] == [True, False]
    with pytest.raises(NotFound):
        catalog.find_adapter("local", "oil")
