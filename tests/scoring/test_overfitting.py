"""Copies and copied backgrounds are found, and nothing else is."""

import cv2
import numpy as np
from numpy.typing import NDArray

from likeness.scoring.overfitting import copied_backgrounds, copies, mirrored
from likeness.types import PreparedPhoto


def scenery(seed: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (128, 128), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def with_person(ground: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    picture = ground.copy()
    picture[40:, 40:88] = scenery(seed)[40:, 40:88]
    return picture


def photo(seed: int, framing: str = "portrait") -> PreparedPhoto:
    matte = np.zeros((128, 128), dtype=np.uint8)
    matte[40:, 40:88] = 255
    return PreparedPhoto(with_person(scenery(seed), 100 + seed), matte, np.zeros_like(matte), framing, str(seed))


PHOTOS = [photo(1), photo(2), photo(3)]


def noisy(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).normal(0, 12, image.shape)
    return np.asarray((image + noise).clip(0, 255), dtype=np.uint8)


def test_a_copy_is_found_noisy_or_mirrored_and_a_new_picture_is_none() -> None:
    again, turned, new = noisy(PHOTOS[1].image), mirrored(PHOTOS[2].image), with_person(scenery(9), 101)
    assert copies([again, turned, new], PHOTOS) == 2
    assert copies([new], PHOTOS) == 0


def test_a_background_that_comes_out_again_is_found_behind_another_person() -> None:
    same_place = noisy(with_person(scenery(2), 50))
    assert copies([same_place], PHOTOS) == 0
    assert copied_backgrounds([same_place, mirrored(same_place), with_person(scenery(9), 101)], PHOTOS) == 2


def test_plain_walls_and_close_framings_say_nothing() -> None:
    wall = np.full((128, 128, 3), 120, dtype=np.uint8)
    assert copied_backgrounds([with_person(wall, 5)], [photo(1), PreparedPhoto(
        with_person(wall, 6), PHOTOS[0].matte, PHOTOS[0].face, "portrait", "wall"
    )]) == 0  # fmt: skip
    assert copied_backgrounds([with_person(scenery(1), 5)], [photo(1, "close")]) == 0
