"""Verdicts do not depend on the skin: four people, each with skins of six tones in the same pose, place and light."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from likeness.photos import MediaPipeFaces, check
from likeness.photos.coach import coach
from likeness.types import Photo

TILE_PX, PX = 160, 384
PEOPLE = ("european woman", "asian man", "african woman", "indian man")
TONES = 6  # from left to right darker: the tones of a European, an Asian, a Latin, an Indian and two Africans


@pytest.fixture(scope="module")
def sheet() -> Image.Image:
    """Made by `python -m recipes.base_model.render.sheet --tones` (MakeHuman, CC0)."""
    return Image.open(Path(__file__).with_name("skin_tones.jpg"))


def of(sheet: Image.Image, person: str, tone: int) -> NDArray[np.uint8]:
    left, top = tone * TILE_PX, PEOPLE.index(person) * TILE_PX
    tile = sheet.crop((left, top, left + TILE_PX, top + TILE_PX))
    return np.asarray(tile.resize((PX, PX), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("person", PEOPLE)
def test_in_good_light_nothing_is_said_of_any_skin(
    sheet: Image.Image, person: str, faces: MediaPipeFaces, as_photo: Callable[..., Photo]
) -> None:
    images = [of(sheet, person, tone) for tone in range(TONES)]
    for image in images:
        assert check([as_photo(image)], "person", detector=faces).reports[0].reasons == ()
    assert len({coach(image, "front", faces).hint for image in images}) == 1


@pytest.mark.parametrize("person", PEOPLE)
def test_in_dim_light_no_skin_is_grey_or_covered(
    sheet: Image.Image, person: str, faces: MediaPipeFaces, as_photo: Callable[..., Photo]
) -> None:
    for tone in (0, TONES - 1):
        dim = (of(sheet, person, tone) * 0.45).astype(np.uint8)
        (report,) = check([as_photo(dim)], "person", detector=faces).reports
        assert {reason.code for reason in report.reasons} <= {"too_dark", "blurred"} and report.verdict != "refused"
