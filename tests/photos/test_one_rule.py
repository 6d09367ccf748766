"""Photographs of different people are refused, and strangers left out, in every protocol."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from likeness.cli import app
from likeness.config import Settings
from likeness.deploy.sagemaker.fine_tuning_service import FineTuningService
from likeness.errors import InputRefused
from likeness.jobs.inputs import pack_photos
from likeness.jobs.job import JobOrder
from likeness.photos import MediaPipeFaces, decode
from likeness.photos.descriptor import SAME_PERSON, descriptor, distance
from likeness.service import Likeness, build
from likeness.storage.objects import FileObjects
from likeness.storage.prepared_photos import unpack_prepared
from likeness.training.recipe import FineTuneOrder, recipe_named
from likeness.types import PREPARED_PX, Photo, PreparedPhoto, Subject
from likeness.worker import preparer

Door = Callable[[list[Photo], bool], list[str]]  # photographs, whether strangers are kept -> what is trained on


class Reached(Exception):
    """The training would begin here."""


@pytest.fixture
def likeness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Likeness]:
    """An installation that goes as far as the prepared photographs."""

    def stop(base: Any, order: Any, prepared: list[PreparedPhoto], **options: Any) -> None:
        raise Reached(sorted({one.source_sha256 for one in prepared}))

    monkeypatch.setattr("likeness.training.pipeline.fine_tune", stop)
    monkeypatch.setattr("likeness.training.pipeline.adapter_bytes", lambda base, recipe: 0)
    monkeypatch.setattr(Likeness, "base", None)
    installation = build(Settings(home=tmp_path))
    yield installation
    installation.close()


def reached(call: Callable[[], object]) -> list[str]:
    with pytest.raises(Reached) as end:
        call()
    used: list[str] = end.value.args[0]
    return used


@pytest.fixture(params=["command line", "job", "sagemaker", "upload"])
def door(request: pytest.FixtureRequest, likeness: Likeness, tmp_path: Path) -> Door:
    order = FineTuneOrder(Subject("anna"), recipe_named("fast"))

    def command_line(photos: list[Photo], keep: bool) -> list[str]:
        return reached(lambda: likeness.train(photos, order, keep_strangers=keep))

    def job(photos: list[Photo], keep: bool) -> list[str]:
        objects = FileObjects(tmp_path / "objects")
        objects.put("in", pack_photos(photos))
        wanted = JobOrder("local", "anna", "in", keep_strangers=keep).document()
        asked = {
            "job": "1", "photos": "in", "prepared": "out", "order": wanted, "size_px": PREPARED_PX, "aspects": [],
            "has_consent": True,
        }  # fmt: skip
        said: list[dict[str, Any]] = []
        preparer.serve(SimpleNamespace(send=lambda **one: said.append(one)), objects, asked)  # type: ignore[arg-type]
        if said[-1]["event"] == "failed":
            raise InputRefused(said[-1]["message"])
        return sorted({one.source_sha256 for one in unpack_prepared(objects.get("out"))})

    def sagemaker(photos: list[Photo], keep: bool) -> list[str]:
        config = {"class_noun": "person", "keep_strangers": keep, "consent": "He agreed."}
        service = FineTuningService(
            Settings(home=tmp_path), "x", FileObjects(tmp_path / "models"), open_likeness=lambda settings: likeness
        )
        return reached(lambda: service.fine_tune(pack_photos(photos, config)))

    def upload(photos: list[Photo], keep: bool) -> list[str]:
        likeness.subjects.create("local", Subject("anna"), consent="all agreed")
        checked = likeness.subjects.add_photos("local", "anna", photos, keep_strangers=keep)
        checked.raise_if_refused()
        return sorted(record.sha256 for record in likeness.subjects.list_photos("local", "anna"))

    doors = {"command line": command_line, "job": job, "sagemaker": sagemaker, "upload": upload}
    return doors[request.param]


@pytest.fixture(scope="module")
def crowd(virtual_people: NDArray[np.uint8], as_photo: Callable[..., Photo]) -> list[Photo]:
    return [as_photo(picture, f"{index}.png") for index, picture in enumerate(virtual_people[3:])]


def test_different_people_are_refused(door: Door, crowd: list[Photo]) -> None:
    with pytest.raises(InputRefused, match="of 5 photographs probably show another person"):
        door(crowd, False)


def test_different_people_are_trained_on_where_the_user_insists(door: Door, crowd: list[Photo]) -> None:
    assert door(crowd, True) == sorted(photo.sha256 for photo in crowd)


def test_a_stranger_is_left_out(door: Door, crowd: list[Photo], virtual_man: list[Photo]) -> None:
    assert door([crowd[1], *virtual_man[:4]], False) == sorted(photo.sha256 for photo in virtual_man[:4])


def test_sagemaker_trains_a_person_as_a_style_only_with_consent(
    likeness: Likeness, virtual_man: list[Photo], tmp_path: Path
) -> None:
    service = FineTuningService(
        Settings(home=tmp_path), "x", FileObjects(tmp_path / "models"), open_likeness=lambda settings: likeness
    )
    with pytest.raises(InputRefused, match="show a face"):
        service.fine_tune(pack_photos(virtual_man[:4], {"kind": "style", "consent": " "}))
    agreed = pack_photos(virtual_man[:4], {"kind": "style", "consent": "He agreed."})
    assert reached(lambda: service.fine_tune(agreed)) == sorted(photo.sha256 for photo in virtual_man[:4])


def test_beside_a_larger_stranger_the_subject_is_cut_out(
    likeness: Likeness, virtual_man: list[Photo], virtual_people: NDArray[np.uint8], faces: MediaPipeFaces,
    as_photo: Callable[..., Photo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """By `prepare` and by `train`, of the photograph with two people."""
    pair = np.full((760, 760 + 420, 3), 130, np.uint8)
    pair[:, :760] = cv2.resize(virtual_people[6], (760, 760), interpolation=cv2.INTER_CUBIC)
    pair[200:620, 760:] = cv2.resize(decode(virtual_man[1].content), (420, 420), interpolation=cv2.INTER_AREA)
    photos = [as_photo(pair, "0.png"), *virtual_man[2:6]]
    for photo in photos:
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / photo.name).write_bytes(photo.content)
    told = ["--home", str(tmp_path / "home"), "prepare", str(tmp_path / "photos"), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, told).exit_code == 0
    crops = {"prepare": np.asarray(Image.open(tmp_path / "out" / "01-portrait.png"))}

    def stop(base: Any, order: Any, prepared: list[PreparedPhoto], **options: Any) -> None:
        (crops["train"],) = (
            one.image for one in prepared if (one.source_sha256, one.framing) == (photos[0].sha256, "portrait")
        )
        raise Reached([])

    monkeypatch.setattr("likeness.training.pipeline.fine_tune", stop)
    reached(lambda: likeness.train(photos, FineTuneOrder(Subject("anna"), recipe_named("fast"))))
    known, stranger = (
        descriptor(image, faces.detect(image)[0]) for image in (decode(virtual_man[2].content), virtual_people[6])
    )
    for door, crop in crops.items():
        found = descriptor(crop, faces.detect(crop)[0])
        assert distance(found, known) < SAME_PERSON < distance(found, stranger), door
