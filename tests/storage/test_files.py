"""Files and folders created by Likeness are private to their owner, also below a folder that is open to all."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from likeness.config import Settings
from likeness.jobs.tables import open_jobs_database
from likeness.service import build
from likeness.service.training import training_of
from likeness.storage.catalog import Catalog
from likeness.storage.database import sqlite_url
from likeness.storage.files import make_private
from likeness.storage.home import Home
from likeness.storage.objects import FileObjects

STRANGE = ["why?", "100%25 me", "a#b", "ä @:host", "[brackets]"]


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_folder_that_is_made_is_private_and_none_that_was_there_is_changed(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    made = make_private(tmp_path / "open" / "a" / "b" / "c")
    assert [rights(folder) for folder in (made, made.parent, made.parent.parent)] == [0o700] * 3
    assert rights(tmp_path / "open") == 0o755
    assert make_private(tmp_path / "open") == tmp_path / "open"
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="ot a directory"):
        make_private(tmp_path / "file" / "a")


def test_objects_home_and_databases_in_an_open_folder(tmp_path: Path) -> None:
    FileObjects(tmp_path / "elsewhere" / "objects").put("local/adapters/maria/x", b"1")
    home = Home(tmp_path)
    folders = [home.outputs_folder("maria"), home.checkpoint_folder("maria")]
    folders.append(home.of("anna").outputs_folder("x"))
    with home.lock("maria"):
        assert folders
    catalog, jobs = (
        Catalog(sqlite_url(tmp_path / "catalog.sqlite")),
        open_jobs_database(sqlite_url(tmp_path / "q" / "jobs.sqlite")),
    )
    catalog.list_adapters("local")
    open_to_others = [path for path in tmp_path.rglob("*") if rights(path) & 0o077 and path.parent == tmp_path]
    assert open_to_others == []
    assert {rights(path) for path in tmp_path.rglob("*") if path.is_dir()} == {0o700}
    catalog.close()
    jobs.close()


@pytest.mark.parametrize("name", STRANGE)
def test_a_home_may_have_any_name(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    settings = Settings(home=home)
    likeness, training = build(settings), training_of(settings)
    try:
        assert list(likeness.catalog.list_adapters("local")) == []
        assert training.queue.jobs_of("local") == []
        place, key = training.locations.objects, "local/x"
        place.put(key, b"1")
        training.locations.write(f"{training.outputs_url}/local/result.out", b"2")
        assert (home / "objects" / "async" / "local" / "result.out").read_bytes() == b"2"
    finally:
        training.close()
        training.library.catalog.close()
        likeness.close()
    assert {path.name for path in home.iterdir()} >= {"catalog.sqlite", "jobs.sqlite", "objects"}
    assert [path.name for path in tmp_path.iterdir()] == [name]
