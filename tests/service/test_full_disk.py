"""A disk without any room left: what needs some is refused with 503, and people can still be forgotten.

What was trained is kept, too.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from fixtures.installation import SMALL, picture
from fixtures.published import publish_person
from likeness.config import Settings
from likeness.errors import StorageError, StorageUnavailable
from likeness.http.app import create_app
from likeness.service import Likeness, build
from likeness.storage.reserve import BYTES, Reserve
from likeness.training.pipeline import adapter_bytes
from likeness.training.recipe import FineTuneOrder, recipe_named
from likeness.types import Advance, Photo, Subject, Watch


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
def likeness(disk: Path, tiny_base_folder: Path) -> Iterator[Likeness]:
    """anna has an adapter, rex only a row; the queue has been used."""
    made = build(Settings(home=disk / "home", base=str(tiny_base_folder)))
    publish_person(made, "anna", 1)
    made.subjects.create("local", Subject("rex", "dog"), consent="word " * 100)
    assert made.training.queue.backlog().open_jobs == 0
    yield made
    made.close()


def fill(disk: Path, *, but_bytes: int = 0) -> None:
    with (disk / "others").open("ab", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    os.truncate(disk / "others", (disk / "others").stat().st_size - but_bytes)


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


STEPS = 3


def order(name: str, **changes: object) -> FineTuneOrder:
    recipe = recipe_named("fast", **{**SMALL, "steps": STEPS, "checkpoint_every": STEPS, **changes})
    return FineTuneOrder(Subject(name, "dog"), recipe, seed=0)


@pytest.fixture
def photos() -> list[Photo]:
    return [Photo(f"{seed}.jpg", picture(seed)) for seed in range(4)]


def test_a_disk_that_fills_up_during_a_training_costs_no_step(
    likeness: Likeness, disk: Path, photos: list[Photo]
) -> None:
    """Space for the last state was reserved before the first step, and is enough for the adapter too."""

    def full(*steps: int) -> Watch:
        return lambda advance: fill(disk) if advance.stage == "train" and advance.done in steps else None

    likeness.train(photos, order("rover"), watch=full(STEPS - 1))
    (disk / "others").unlink()
    with pytest.raises(StorageError, match="trained but was not published") as caught:
        likeness.train(photos, order("spot"), watch=full(STEPS - 1, STEPS))
    assert "continues from the newest checkpoint" in caught.value.hint
    (disk / "others").unlink()
    told: list[Advance] = []
    assert likeness.train(photos, order("spot"), watch=told.append).card.steps == STEPS
    assert [advance.done for advance in told if advance.stage == "train"] == [STEPS]  # nothing is trained again
    assert not any(likeness.home.checkpoint_folder("spot").iterdir())
    told.clear()
    large = order("full", rank=32)

    def nearly_full(advance: Advance) -> None:  # there is room for the adapter, but none for a state
        told.append(advance)
        if advance.stage == "load base":
            fill(disk, but_bytes=2 * adapter_bytes(likeness.base, large.recipe) + (256 << 10))

    with pytest.raises(StorageError, match="free space for the result"):
        likeness.train(photos, large, watch=nearly_full)
    assert told[-1].stage == "load base"
