"""Copies of a photograph are recognised after any edit; other photographs of the same face are not copies."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from likeness.photos import MediaPipeFaces, check, decode
from likeness.photos.report import CheckResult
from likeness.types import Photo

Image = NDArray[np.uint8]


def framed(image: Image, top: int, left: int, colour: int) -> Image:
    return np.asarray(
        cv2.copyMakeBorder(image, top, top, left, left, cv2.BORDER_CONSTANT, value=(colour,) * 3), np.uint8
    )


def tilted(image: Image, angle_deg: float) -> Image:
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle_deg, 1)
    return np.asarray(cv2.warpAffine(image, matrix, (width, height)), dtype=np.uint8)


def filtered(image: Image) -> Image:
    """Less contrast, warmer, darker corners."""
    rows, columns = np.mgrid[-1 : 1 : image.shape[0] * 1j, -1 : 1 : image.shape[1] * 1j]
    fall = (1.1 - 0.25 * (rows**2 + columns**2))[..., None]
    return ((image * 0.75 + 40) * fall * [1.08, 1.0, 0.85]).clip(0, 255).astype(np.uint8)


AGAIN: dict[str, Callable[[Image], Image]] = {
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "zoomed": lambda image: np.ascontiguousarray(image[50:-50, 50:-50]),
    "zoomed and mirrored": lambda image: np.ascontiguousarray(image[30:-70, 60:-40][:, ::-1]),
    "screenshot": lambda image: framed(image, 240, 0, 0),
    "white frame": lambda image: framed(image, 40, 40, 255),
    "tilted": lambda image: tilted(image, 6),
    "tilted and mirrored": lambda image: np.ascontiguousarray(tilted(image, -9)[:, ::-1]),
    "filter": filtered,
    "grey": lambda image: np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.uint8),
    "smaller": lambda image: np.asarray(cv2.resize(image, (260, 260), interpolation=cv2.INTER_AREA), dtype=np.uint8),
    "stretched": lambda image: np.asarray(cv2.resize(image, (512, 545)), dtype=np.uint8),
}


@pytest.fixture(scope="module")
def judged(person: list[Photo], faces: MediaPipeFaces, as_photo: Callable[..., Photo]) -> CheckResult:
    """Two photographs, then the second of them again, treated in every way."""
    image = decode(person[3].content)
    again = [as_photo(spoil(image), f"{name}.png") for name, spoil in AGAIN.items()]
    return check([person[1], person[3], *again], "person", detector=faces)


@pytest.mark.parametrize("name", AGAIN)
def test_the_same_shot_is_found(name: str, judged: CheckResult) -> None:
    report = next(report for report in judged.reports if report.file == f"{name}.png")
    (reason,) = (reason for reason in report.reasons if reason.code == "near_duplicate")
    assert reason.message == "looks almost the same as photograph 2" and reason.verdict == "warned"


def test_repeats_show_nothing_new(judged: CheckResult) -> None:
    """Thirteen files of two shots: mirror images do not stand for the side that is missing."""
    assert judged.set_report.count == len(judged.usable) == 2 + len(AGAIN)
    assert sum(judged.set_report.coverage["yaw"].values()) == 2
    (few,) = (advice for advice in judged.set_report.advice if advice.code == "too_few")
    assert few.message == f"expected at least 4 usable photographs, got 2 and {len(AGAIN)} that repeat them"


def test_every_photograph_of_a_set_is_another_shot(person: list[Photo], faces: MediaPipeFaces) -> None:
    reports = check(person, "person", detector=faces).reports
    assert not any(reason.code == "near_duplicate" for report in reports for reason in report.reasons)


def test_a_mirrored_thing_is_the_same_thing(scene: Image, as_photo: Callable[..., Photo]) -> None:
    photos = [as_photo(scene, "a.png"), as_photo(np.ascontiguousarray(scene[:, ::-1]), "b.png")]
    photos.append(as_photo(np.ascontiguousarray(scene[::-1, :, [2, 0, 1]]), "c.png"))
    reasons = [[reason.code for reason in report.reasons] for report in check(photos, "thing").reports]
    assert reasons == [[], ["near_duplicate"], []]
