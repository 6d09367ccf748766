"""A disk without any room left: what needs some is refused with 503, and people can still be forgotten."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from fixtures.published import publish_person
from fixtures.tiny import build_tiny_folder
from likeness.config import Settings
from likeness.errors import StorageUnavailable
from likeness.http.app import create_app
from likeness.service import Likeness, build
from likeness.storage.reserve import BYTES, Reserve
from likeness.types import Subject


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk needs the right to mount one (root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def likeness(disk: Path, tmp_path: Path) -> Iterator[Likeness]:
    """anna has an adapter, rex only a row; the queue has been used."""
    made = build(Settings(home=disk / "home", base=str(build_tiny_folder(tmp_path / "base"))))
    publish_person(made, "anna", 1)
    made.subjects.create("local", Subject("rex", "dog"), consent="word " * 100)
    assert made.training.queue.backlog().open_jobs == 0
    yield made
    made.close()


def fill(disk: Path) -> None:
    with (disk / "others").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_on_a_full_disk_nothing_new_is_taken_and_everybody_can_be_forgotten(likeness: Likeness, disk: Path) -> None:
    with TestClient(create_app(likeness), base_url="http://localhost", raise_server_exceptions=False) as client:
        assert likeness.reserve.keep()
        fill(disk)
        new = {"name": "new", "class_noun": "dog", "consent": "w" * 2000}
        refused = [
            client.post("/v1/subjects", json=new),
            client.post("/v1/images", json={"prompt": "x", "adapter": "anna", "steps": 1, "keep": True}),
            client.post("/v1/jobs/photos", files={"archive": ("a.zip", bytes(100_000))},
                        data={"order": '{"name": "rex2", "class_noun": "dog"}'}),
        ]  # fmt: skip
        assert [(answer.status_code, answer.json()["error"]["code"]) for answer in refused] == [
            (503, "StorageUnavailable")
        ] * 3
        for name in ("anna", "rex"):
            assert client.delete(f"/v1/subjects/{name}").status_code == 200
            assert client.delete(f"/v1/subjects/{name}").status_code == 404


def test_without_a_reserve_a_deletion_that_has_no_room_is_refused_and_can_be_repeated(
    likeness: Likeness, disk: Path
) -> None:
    fill(disk)
    with pytest.raises(StorageUnavailable):
        likeness.forget("rex")
    (disk / "others").unlink()
    assert likeness.forget("rex").name == "rex"


def test_the_reserve_is_given_once_for_each_deletion_that_needs_it(tmp_path: Path) -> None:
    reserve, tries = Reserve(tmp_path), []

    def deletion() -> str:
        tries.append((tmp_path / "reserve").exists())
        if tries[-1]:
            raise StorageUnavailable("no room")
        return "done"

    assert reserve.keep() and (tmp_path / "reserve").stat().st_size == BYTES
    assert reserve.used_by(deletion) == "done"
    assert tries == [True, False]
    assert (tmp_path / "reserve").exists()  # for the next one

    def never() -> None:
        raise StorageUnavailable("the database is away")

    for _ in range(2):
        with pytest.raises(StorageUnavailable):
            reserve.used_by(never)
