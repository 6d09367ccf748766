"""A backup holds everything of a tenant, restores to the same, and a hostile one changes nothing else."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixtures.published import publish_person
from likeness.config import Settings
from likeness.errors import InputRefused, NotFound
from likeness.jobs.job import SUBJECT_PHOTOS, Failure, Job, JobOrder, Notice
from likeness.jobs.object_keys import preview_key
from likeness.jobs.retention import Retention
from likeness.scoring.score_card import LikenessScore, OverfittingScore, PromptScore, ScoreCard
from likeness.service import Likeness, build
from likeness.service.backup import Counts
from likeness.service.restore import LeftOut, Restored
from likeness.storage.gallery import list_outputs, mark_favourite
from likeness.types import JPEG, PNG, Photo, Subject, blend_of
from tests.telling import only_pixels, telling
from tests.worker.claims import claimed

DAY_S = 86_400
MAIL = Notice("mail", "anna@example.com")
SCORE = ScoreCard(
    "rex", "0" * 64, "1" * 64, 0, LikenessScore(3, 0.25, 0.5, 8, 8, 0.375, 0.75, 0.5), PromptScore(8, 0.75, 1.0),
    OverfittingScore(0, 0, None), 1.5,
)  # fmt: skip

NOTHING = Counts(subjects=0, photos=0, adapters=0, images=0, jobs=0)
EVERYTHING = Counts(subjects=2, photos=3, adapters=2, images=3, jobs=2)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (300, 280, 3), dtype=np.uint8))


def encoded(image: Image.Image, format: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format)
    return stream.getvalue()


@pytest.fixture
def make(tmp_path: Path, tiny_base_folder: Path) -> Iterator[Callable[..., Likeness]]:
    opened: list[Likeness] = []

    def made(name: str, **settings: Any) -> Likeness:
        opened.append(build(Settings(home=tmp_path / name, base=str(tiny_base_folder), **settings)))
        return opened[-1]

    yield made
    for one in opened:
        one.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_base_folder: Path) -> Path:
    """rex with photographs, adapter, portraits and past jobs; bert, whose job waits; anna, an adapter; a picture of the
    base.
    """
    home = tmp_path_factory.mktemp("home")
    likeness = build(Settings(home=home, base=str(tiny_base_folder)))
    likeness.subjects.create("local", Subject("rex", "dog"), consent="")
    likeness.subjects.create("local", Subject("bert", "man"), consent="Bert agreed on 1 March, “in writing”")
    photos = [Photo(f"{seed}.jpg", telling(picture(seed))) for seed in range(3)]
    likeness.subjects.add_photos("local", "rex", photos)
    publish_person(likeness, "rex", 1)
    publish_person(likeness, "anna", 2)
    keep(likeness, "rex", PNG)
    mark_favourite(likeness.catalog, "local", keep(likeness, "rex", JPEG), True)
    keep(likeness, None, PNG)
    likeness.subjects.create("other", Subject("secret", "cat"), consent="")
    train(likeness, JobOrder("local", "rex", "s3://bucket/rex.tar", notices=(MAIL,), replace=True), fails=True)
    train(likeness, JobOrder("local", "rex", SUBJECT_PHOTOS, recipe="fast", changes={"steps": 7}, replace=True))
    likeness.training.queue.submit(JobOrder("local", "bert", SUBJECT_PHOTOS))
    train(likeness, JobOrder("other", "secret", SUBJECT_PHOTOS), fails=True)
    likeness.close()
    return home


def train(likeness: Likeness, order: JobOrder, *, fails: bool = False) -> None:
    """A job that a worker takes and ends, without a training."""
    queue = likeness.training.queue
    job = queue.submit(order)
    claim = claimed(queue.database, job=job.id)
    for loss in (None, 0.5, 0.25):
        queue.store.tell(claim, "progress", {"stage": "train", "loss": loss})
    if fails:
        failure = Failure("PhotosRefused", "too few", "send more")
        queue.store.finish(claim, "failed", failure=failure, keep_photos_s=0)
        return
    for step in (2, 4):
        key = preview_key(order.tenant, job.id, step)
        likeness.library.objects.put(key, encoded(picture(step), "PNG"))
        queue.store.tell(claim, "preview", {"step": step, "key": key})
    queue.store.tell(claim, "score", {"card": SCORE.to_json()})
    queue.store.publishes(claim, "0" * 64)
    queue.store.finish(claim, "succeeded", keep_photos_s=60.0)


@pytest.fixture
def full(home: Path, tmp_path: Path, make: Callable[..., Likeness]) -> Likeness:
    """A copy of that home."""
    shutil.copytree(home, tmp_path / "full")
    return make("full")


def keep(likeness: Likeness, adapter: str | None, media_type: str) -> str:
    from likeness.service import kept

    facts = {"prompt": "<b>…</b>", "adapter": adapter}
    content = encoded(picture(9), media_type.rpartition("/")[2].upper())
    return kept.keep(likeness.library, "local", blend_of(adapter), content, media_type, facts=json.dumps(facts))


def packed(likeness: Likeness) -> bytes:
    return b"".join(likeness.backup())


def restored(likeness: Likeness, content: bytes, **options: Any) -> Restored:
    return likeness.restore(io.BytesIO(content), **options)


def changed(content: bytes, change: Callable[[dict[str, Any], dict[str, bytes]], None]) -> bytes:
    """The same backup after a change of its rows and members."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    rows = json.loads(members.pop("backup.json"))
    change(rows, members)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, one in members.items():
            archive.writestr(name, one)
        archive.writestr("backup.json", json.dumps(rows))
    return out.getvalue()


def state(likeness: Likeness) -> dict[str, Any]:
    """All rows of the tenant, and all objects of the store."""
    catalog = likeness.catalog
    subjects = catalog.list_subjects("local")
    return {
        "jobs": [told(likeness, job) for job in likeness.training.queue.jobs_of("local") if job.is_over],
        "subjects": subjects,
        "photos": [catalog.list_photos("local", one.name) for one in subjects],
        "adapters": catalog.list_adapters("local"),
        "images": list_outputs(catalog, "local"),
        "objects": {one.key: likeness.library.objects.get(one.key) for one in likeness.library.objects.list("local/")},
    }


def told(likeness: Likeness, job: Job) -> dict[str, Any]:
    """What a page shows of a job that is over."""
    shown: dict[str, Any] = {"losses": [], "preview": [], "score": [], "state": []}
    for event in likeness.training.queue.events(job.id, "local"):
        if event.kind in shown and event.facts.get("state") != "running":
            shown[event.kind].append({key: value for key, value in event.facts.items() if key != "key"})
    order = replace(job.order, notices=(), photos="" if "//" in job.order.photos else job.order.photos)
    return {
        "order": order,
        "id": job.id,
        "state": job.state,
        "ended": job.finished_s,
        "sha": job.adapter_sha256,
    } | shown


def test_a_backup_restores_to_the_same(full: Likeness, make: Callable[..., Likeness]) -> None:
    counted: list[Counts] = []
    content = b"".join(full.backup(done=counted.append))
    assert counted == [replace(EVERYTHING, subjects=2)]
    other = make("other")
    assert restored(other, content) == Restored(EVERYTHING, ())
    assert state(other) == state(full)
    assert other.catalog.list_subjects("other") == ()  # of another tenant: not in the backup
    assert other.adapter("rex").card == full.adapter("rex").card
    newest, failed = other.training.queue.jobs_of("local", name="rex")
    assert newest.order.recipe == "fast" and newest.order.changes == {"steps": 7}
    shown = told(other, newest)
    assert shown["losses"] == [{"losses": [0.5, 0.25]}] and shown["preview"] == [{"step": 2}, {"step": 4}]
    assert shown["score"] == [{"card": SCORE.to_json()}]
    assert failed.failure == Failure("PhotosRefused", "too few", "send more")
    assert b"anna@example.com" not in content and b"s3://" not in content  # whom it told, where its photographs lie
    assert other.training.queue.jobs_of("local", name="bert") == []  # waits there; cannot wait here


def test_the_time_of_restored_photographs_ends_with_their_job(full: Likeness, make: Callable[..., Likeness]) -> None:
    def age(rows: dict[str, Any], members: dict[str, bytes]) -> None:
        for job in rows["jobs"]:
            job.update(submitted_s=job["submitted_s"] - 9 * DAY_S, finished_s=job["finished_s"] - 9 * DAY_S)
        for row in rows["photos"][:2]:
            row["created"] = (datetime.now(UTC) - timedelta(days=20)).isoformat()

    for keep_photos_days, left in ((30, 3), (1, 1)):  # one photograph came after the training
        other = make(f"for-{keep_photos_days}", keep_photos_days=keep_photos_days)
        assert restored(other, changed(packed(full), age)).counts == EVERYTHING
        Retention(other.training.database, other.library.objects, other.catalog).purge_due()
        assert len(other.catalog.list_photos("local", "rex")) == left


def test_repeating_a_restoration_changes_nothing(full: Likeness, make: Callable[..., Likeness]) -> None:
    content, before = packed(full), state(full)
    assert restored(full, content) == Restored(NOTHING, ())
    assert state(full) == before
    other = make("other")
    restored(other, content)
    other.subjects.delete_photo("local", "rex", other.catalog.list_photos("local", "rex")[0].sha256)
    assert restored(other, content).counts == replace(NOTHING, photos=1)  # as after an interruption
    assert state(other) == before


def test_a_subject_of_the_same_name_is_not_mixed_with_another(full: Likeness, make: Callable[..., Likeness]) -> None:
    other = make("other")
    other.subjects.create("local", Subject("rex", "dog"), consent="")
    publish_person(other, "anna", 7)
    found = restored(other, packed(full))
    assert found.counts == Counts(subjects=1, photos=0, adapters=0, images=1, jobs=0)
    assert found.left_out == (
        LeftOut("anna", "another adapter of this name exists", 1),
        LeftOut("rex", "another subject of this name exists", 9),
    )
    assert other.catalog.list_photos("local", "rex") == ()


def test_what_was_deleted_later_stays_deleted(full: Likeness) -> None:
    content = packed(full)
    full.forget("rex")
    found = restored(full, content)
    assert found == Restored(
        NOTHING, (LeftOut("rex", "everything of this name was deleted after the backup was made", 9),)
    )
    assert restored(full, content, restores_deleted=True).counts == replace(
        EVERYTHING, subjects=1, adapters=1, images=2
    )
    again = packed(full)  # made after the deletion
    full.catalog.forget("local", "rex")
    assert restored(full, again).counts.photos == 3


def test_photographs_are_not_restored_after_their_time(full: Likeness, make: Callable[..., Likeness]) -> None:
    def age(rows: dict[str, Any], members: dict[str, bytes]) -> None:
        for row in rows["photos"]:
            row["created"] = "2020-01-01T00:00:00+00:00"

    card = full.adapter("rex").card
    assert card.created < "2026-10"  # the fixture's training is months ago
    found = restored(make("other", keep_photos_days=30), changed(packed(full), age))
    assert found.left_out == (LeftOut("rex", "the time for which photographs are kept is over", 3),)
    assert restored(make("longer", keep_photos_days=36_500), changed(packed(full), age)).left_out == ()


def test_metadata_in_a_changed_backup_is_not_stored(full: Likeness, make: Callable[..., Likeness]) -> None:
    def tell(rows: dict[str, Any], members: dict[str, bytes]) -> None:
        for row, name in zip(rows["photos"], [one for one in members if one.startswith("photos/")], strict=True):
            members[name] = telling(picture(3)) if row["file"] != "2.jpg" else members[name] + b"secret"

    other = make("other")
    assert restored(other, changed(packed(full), tell)).counts == EVERYTHING
    for record in other.catalog.list_photos("local", "rex"):
        kept = other.library.objects.get(record.key)
        assert only_pixels(kept) and len(kept) == record.bytes and b"secret" not in kept


HOSTILE: dict[str, Callable[[dict[str, Any], dict[str, bytes]], None]] = {
    "path as a subject": lambda rows, members: rows["subjects"][0].update(name="../../etc"),
    "path as a photograph": lambda rows, members: rows["photos"][0].update(sha256="../" * 21 + "x"),
    "path as an image": lambda rows, members: rows["images"][0].update(id="../../catalog.sqlite"),
    "line break after an id": lambda rows, members: rows["images"][0].update(id="0" * 32 + "\n"),
    "media type of a page": lambda rows, members: rows["images"][0].update(media_type="text/html"),
    "NUL": lambda rows, members: rows["subjects"][0].update(consent="a\0b"),
    "time of another form": lambda rows, members: rows["subjects"][0].update(created="yesterday"),
    "another version": lambda rows, members: rows.update(version=2),
    "another format": lambda rows, members: rows.update(format="other"),
    "rows that are no list": lambda rows, members: rows.update(photos={"a": 1}),
    "path as a job": lambda rows, members: rows["jobs"][0].update(id="../../../catalog.sqlite"),
    "job that runs": lambda rows, members: rows["jobs"][0].update(state="running"),
    "time of a job that is none": lambda rows, members: rows["jobs"][0].update(finished_s=float("inf")),
    "number as a name": lambda rows, members: rows["adapters"][0].update(name=5),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_manifest_of_another_form_is_refused_as_a_whole(
    how: str, full: Likeness, make: Callable[..., Likeness]
) -> None:
    other = make("other")
    with pytest.raises(InputRefused, match="expected a zip of `likeness backup`"):
        restored(other, changed(packed(full), HOSTILE[how]))
    assert state(other)["subjects"] == () and state(other)["objects"] == {}


def test_other_files_are_refused(full: Likeness, make: Callable[..., Likeness]) -> None:
    content, other = packed(full), make("other")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("backup.json", b" " * 1_000_000)
    for bad in (b"", b"no zip", content[:-30], content[: len(content) // 2], bomb.getvalue()):
        with pytest.raises(InputRefused):
            restored(other, bad)
    assert state(other)["objects"] == {}


def test_items_that_are_damaged_are_left_out_and_the_rest_is_restored(
    full: Likeness, make: Callable[..., Likeness]
) -> None:
    def damage(rows: dict[str, Any], members: dict[str, bytes]) -> None:
        photos = [name for name in members if name.startswith("photos/")]
        images = [name for name in members if name.startswith("images/")]
        members[photos[0]] = b"no photograph"
        del members[photos[1]]
        members[next(name for name in images if name.endswith(".png"))] = b"<script>alert(1)</script>"
        members["adapters/anna.safetensors"] = members["adapters/rex.safetensors"]  # of another name
        members[next(name for name in members if name.startswith("previews/"))] = b"<svg onload=alert(1)>"
        rows["jobs"][0]["order"] = json.dumps({"tenant": "other", "photos": "/etc/passwd"})
        rows["subjects"].append(
            {
                "name": "eve", "class_noun": "woman", "identifier": "<<TOK>>", "consent": " ",
                "consented": "2026-01-01T00:00:00+00:00", "created": "2026-01-01T00:00:00+00:00",
            }
        )  # fmt: skip
        rows["subjects"].append(rows["subjects"][-1] | {"name": "base", "consent": "agreed"})  # a reserved name

    other = make("other")
    found = restored(other, changed(packed(full), damage))
    assert found.counts == Counts(subjects=2, photos=1, adapters=1, images=2, jobs=1)
    assert [(one.name, one.count) for one in found.left_out] == [
        ("anna", 1), ("base", 1), ("base", 1), ("eve", 1), ("rex", 1), ("rex", 1), ("rex", 1)
    ]  # fmt: skip
    [job] = other.training.queue.jobs_of("local")
    assert told(other, job)["preview"] == [{"step": 4}]  # the other one is no picture
    assert not other.catalog.has_adapter("local", "anna")
    for name in ("eve", "base"):
        with pytest.raises(NotFound):
            other.subjects.find("local", name)


def test_a_rank_above_the_installations_is_left_out(full: Likeness, make: Callable[..., Likeness]) -> None:
    rank = full.adapter("rex").card.rank
    found = restored(make("small", rank=rank - 1), packed(full))
    assert found.counts.adapters == 0 and found.counts.photos == 3
    assert {one.name for one in found.left_out} == {"anna", "rex"}


def test_a_backup_that_fails_has_no_end(full: Likeness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parts = full.backup()
    begun = next(parts) + next(parts)

    def broken(key: str) -> bytes:
        raise OSError("disk")

    monkeypatch.setattr(type(full.library.objects), "get", lambda self, key: broken(key))
    with pytest.raises(OSError, match="disk"):
        b"".join(parts)
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(begun))


def test_a_restored_image_goes_with_any_of_its_adapters(full: Likeness, make: Callable[..., Likeness]) -> None:
    both = keep(full, "rex+anna@0.5", PNG)
    other = make("other")
    content = packed(full)
    restored(other, content)
    assert other.kept(both)
    other.forget("anna")
    with pytest.raises(NotFound):
        other.kept(both)
    again = restored(other, content)  # anna was deleted after the backup was made
    assert len(again.left_out) >= 1
    with pytest.raises(NotFound):
        other.kept(both)
