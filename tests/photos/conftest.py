"""Photographs for the tests: real ones where they are at hand, made ones otherwise."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from likeness.photos import MediaPipeFaces, decode, read_photos
from likeness.types import Photo

SHARED = Path(__file__).parents[2] / "../shared"
Encode = Callable[..., Photo]


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"the real photographs of shared/{name} are not on this machine")
    return folder


def encoded(image: NDArray[np.uint8], name: str = "made.png", file_format: str = "PNG") -> Photo:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, file_format)
    return Photo(name, stream.getvalue())


@pytest.fixture(scope="session")
def as_photo() -> Encode:
    return encoded


@pytest.fixture(scope="session")
def person() -> list[Photo]:
    return read_photos([_folder("photos/person")])


@pytest.fixture(scope="session")
def dog() -> list[Photo]:
    return read_photos([_folder("photos/dog")])


@pytest.fixture(scope="session")
def portrait(person: list[Photo]) -> NDArray[np.uint8]:
    """The first photograph of the man, looking into the camera (512, 512, 3)."""
    return decode(person[0].content)


@pytest.fixture(scope="session")
def virtual_people() -> NDArray[np.uint8]:
    """32 renders of virtual people, enlarged (32, 384, 384, 3), row by row."""
    sheet = Image.open(_folder("makehuman") / "samples.png").convert("RGB")
    tiles = [sheet.crop((c * 128, r * 128, c * 128 + 128, r * 128 + 128)) for r in range(4) for c in range(8)]
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
