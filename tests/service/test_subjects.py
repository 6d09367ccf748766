"""Photographs of a subject: their pixels are kept and nothing else, and a file that comes again is known."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from likeness.jobs.inputs import pack_photos, read_input
from likeness.photos import check, decode
from likeness.service.subjects import Subjects
from likeness.storage.catalog import Catalog
from likeness.storage.objects import FileObjects
from likeness.types import Photo, Subject
from tests.telling import SECRETS, only_pixels, telling


@pytest.fixture
def subjects(tmp_path: Path) -> Iterator[Subjects]:
    made = Subjects(FileObjects(tmp_path / "objects"), Catalog(f"sqlite:///{tmp_path / 'catalog.sqlite'}"))
    made.create("local", Subject("pat"), consent="Pat agreed")
    made.create("local", Subject("rex", "dog"), consent="")
    yield made
    made.catalog.close()


@pytest.fixture(scope="module")
def faces(demo_photos: Path) -> list[Photo]:
    """Four photographs of a man that tell all."""
    paths = sorted(demo_photos.glob("*.jpg"))[:4]
    return [Photo(path.name, telling(Image.open(path))) for path in paths]


def stored(subjects: Subjects, name: str) -> list[bytes]:
    return [subjects.objects.get(facts.key) for facts in subjects.objects.list(f"local/photos/{name}/")]


def thing(save: Callable[[Image.Image], bytes]) -> Photo:
    """A sharp picture, darker to the right."""
    noise = np.random.default_rng(0).integers(0, 120, (300, 260, 3), dtype=np.uint8)
    noise[:, :130] += 120
    return Photo("holiday.jpg", save(Image.fromarray(noise)))


def as_png(picture: Image.Image) -> bytes:
    stream, words = io.BytesIO(), PngInfo()
    words.add_text("Comment", "secret")
    picture.save(stream, "PNG", pnginfo=words)
    return stream.getvalue()


@pytest.mark.parametrize("save", [telling, as_png])
def test_only_pixels_are_kept_and_they_are_upright(subjects: Subjects, save: Callable[[Image.Image], bytes]) -> None:
    photo = thing(save)
    assert b"secret" in photo.content
    assert subjects.add_photos("local", "rex", [photo]).reports[0].verdict == "accepted"
    (kept,) = stored(subjects, "rex")
    assert only_pixels(kept)
    with Image.open(io.BytesIO(kept)) as picture:
        assert picture.format == "JPEG" and picture.size == (260, 300)
        assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        pixels = np.asarray(picture).astype(float)
    assert pixels[:, :130].mean() > pixels[:, 130:].mean() + 100
    came = decode(photo.content).astype(float)
    assert 10 * np.log10(255**2 / np.mean((pixels - came) ** 2)) > 35  # noise is the hardest that there is
    (record,) = subjects.list_photos("local", "rex")
    assert (record.sha256, record.bytes) == (photo.sha256, len(kept))


def test_a_file_that_comes_again_is_the_same_photograph(subjects: Subjects) -> None:
    photo = thing(telling)
    subjects.add_photos("local", "rex", [photo])
    before = stored(subjects, "rex"), subjects.list_photos("local", "rex")
    again = subjects.add_photos("local", "rex", [Photo("other name.jpg", photo.content)])
    assert [(again.reports[0].verdict, reason.code) for reason in again.reports[0].reasons] == [
        ("refused", "exact_duplicate")
    ]
    assert again.set_report.count == 1
    assert (stored(subjects, "rex"), subjects.list_photos("local", "rex")) == before
    subjects.delete_photo("local", "rex", photo.sha256)
    assert stored(subjects, "rex") == []
    subjects.add_photos("local", "rex", [photo])
    assert stored(subjects, "rex") == before[0]  # equal pixels, equal bytes


def test_a_face_that_lies_is_kept_upright(subjects: Subjects, demo_photos: Path) -> None:
    upright = decode((demo_photos / "photo_01.jpg").read_bytes())
    stream = io.BytesIO()
    Image.fromarray(np.rot90(upright)).save(stream, "PNG")
    checked = subjects.add_photos("local", "pat", [Photo("lying.png", stream.getvalue())])
    assert [reason.code for reason in checked.reports[0].reasons] == ["turned"]
    (kept,) = subjects.photos("local", "pat")
    assert np.abs(decode(kept.content).astype(int) - upright).mean() < 2
    assert check([kept], "person").reports[0].reasons == ()


def test_a_training_takes_what_was_kept(subjects: Subjects, faces: list[Photo]) -> None:
    judged = subjects.add_photos("local", "pat", faces)
    kept = stored(subjects, "pat")
    assert len(kept) == 4 and all(map(only_pixels, kept))
    archive = pack_photos(subjects.photos("local", "pat"))  # as a job does it
    assert not any(secret in archive for secret in SECRETS)
    checked = check(read_input(archive).photos, "person")
    checked.raise_if_refused()
    assert [one.verdict for one in checked.reports] == [one.verdict for one in judged.reports] == ["accepted"] * 4
    assert [one.image.shape for one in checked.usable] == [one.image.shape for one in judged.usable]


def test_pictures_of_a_style_show_faces_only_with_consent(subjects: Subjects, faces: list[Photo]) -> None:
    subjects.create("local", Subject("oil", ""), consent="")
    subjects.create("local", Subject("ink", ""), consent="Pat agreed")
    no_face = thing(telling)
    refused = subjects.add_photos("local", "oil", [*faces[:1], no_face])
    assert [report.verdict for report in refused.reports] == ["refused", "accepted"]
    assert len(stored(subjects, "oil")) == 1
    agreed = subjects.add_photos("local", "ink", [*faces[:1], no_face])
    assert [report.verdict for report in agreed.reports] == ["accepted"] * 2
    assert subjects.find("local", "ink").identifier == "<<STY>>"
