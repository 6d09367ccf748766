"""Photographs for the tests: of virtual people everywhere, and real ones too where they are at hand."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from likeness.photos import MediaPipeFaces, decode, read_photos
from likeness.types import Photo

Encode = Callable[..., Photo]


def encoded(image: NDArray[np.uint8], name: str = "made.png", file_format: str = "PNG") -> Photo:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, file_format)
    return Photo(name, stream.getvalue())


@pytest.fixture(scope="session")
def as_photo() -> Encode:
    return encoded


@pytest.fixture(scope="session")
def virtual_man(demo_photos: Path) -> list[Photo]:
    return read_photos([demo_photos])


@pytest.fixture(scope="session")
def real_man(shared_photos: Path) -> list[Photo]:
    return read_photos([shared_photos / "person"])


@pytest.fixture(scope="session", params=["virtual_man", "real_man"])
def person(request: pytest.FixtureRequest) -> list[Photo]:
    """A dozen photographs of one man; tests that ask for him run with the virtual one and with the real one."""
    photos: list[Photo] = request.getfixturevalue(request.param)
    return photos


@pytest.fixture(scope="session")
def dog(shared_photos: Path) -> list[Photo]:
    return read_photos([shared_photos / "dog"])


@pytest.fixture(scope="session")
def portrait(person: list[Photo]) -> NDArray[np.uint8]:
    """The first photograph of the man, looking into the camera (512, 512, 3)."""
    return decode(person[0].content)


@pytest.fixture(scope="session")
def virtual_people() -> NDArray[np.uint8]:
    """Renders of eight virtual people, enlarged (8, 384, 384, 3); the third wears sunglasses. MakeHuman, CC0."""
    sheet = Image.open(Path(__file__).with_name("virtual_people.jpg"))
    tiles = [sheet.crop((c * 128, r * 128, c * 128 + 128, r * 128 + 128)) for r in range(2) for c in range(4)]
    return np.stack([np.asarray(tile.resize((384, 384), Image.Resampling.BICUBIC)) for tile in tiles])


@pytest.fixture(scope="session")
def faces() -> MediaPipeFaces:
    return MediaPipeFaces()


@pytest.fixture(scope="session")
def scene() -> NDArray[np.uint8]:
    """A sharp, faceless picture (300, 400, 3): a bright striped block off the centre of a dull field."""
    rows, columns = np.mgrid[0:300, 0:400]
    picture = np.stack([90 + columns // 8, 100 + rows // 6, np.full_like(rows, 120)], axis=-1).astype(np.uint8)
    stripes = ((rows[100:200, 280:380] // 5 + columns[100:200, 280:380] // 7) % 2 * 200 + 30).astype(np.uint8)
    picture[100:200, 280:380] = stripes[..., None]
    return picture
