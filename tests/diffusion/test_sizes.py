"""Which sizes of images a family makes: literal tables, and the shapes that are offered."""

import math

import pytest

from likeness.diffusion.base import BaseModel
from likeness.diffusion.family import KLEIN_4B, LIKENESS_128, SD_15, SD_21, SDXL, Z_IMAGE, Family
from likeness.errors import UsageError
from likeness.types import Size

FAMILIES = (LIKENESS_128, SD_15, SD_21, SDXL, KLEIN_4B, Z_IMAGE)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_without_a_size_it_is_the_square(family: Family) -> None:
    side = family.resolution_px
    assert family.checked_size(None, None) == family.checked_size(side, side) == (side, side)


@pytest.mark.parametrize(
    ("family", "size"),
    [
        (SD_15, (512, 768)), (SD_15, (768, 768)), (SD_15, (1024, 512)), (SD_21, (640, 896)), (SDXL, (832, 1216)),
        (SDXL, (1024, 1536)), (SDXL, (512, 2048)), (KLEIN_4B, (1024, 1024)), (KLEIN_4B, (1024, 1536)),
        (Z_IMAGE, (1280, 720)), (Z_IMAGE, (256, 256)), (Z_IMAGE, (2048, 2048)),
    ],
)  # fmt: skip
def test_other_sizes_that_are_made(family: Family, size: Size) -> None:
    assert family.checked_size(*size) == size


@pytest.mark.parametrize(
    ("family", "size", "expected"),
    [
        (LIKENESS_128, (128, 192), "expected the size 128x128, got 128x192"),
        (LIKENESS_128, (1024, 1024), "expected the size 128x128, got 1024x1024"),
        (SD_15, (520, 512), "expected a size in multiples of 64, of 0.13 to 0.59 megapixels and at most 2 to 1, "
                            "got 520x512"),
        (SD_15, (1024, 1024), "got 1024x1024"), (SD_15, (1088, 512), "got 1088x512"), (SD_15, (256, 256), "got 256"),
        (SDXL, (832, 1214), "multiples of 64"), (SDXL, (448, 2048), "at most 4 to 1"), (SDXL, (512, 512), "0.52 to"),
        (SDXL, (0, 1024), "got 0x1024"), (SDXL, (-1024, -1024), "got -1024x-1024"),
        (KLEIN_4B, (1000, 1000), "multiples of 16"), (KLEIN_4B, (4096, 4096), "0.07 to 4.19 megapixels"),
        (Z_IMAGE, (2048, 256), "at most 4 to 1"),
    ],
)  # fmt: skip
def test_a_size_that_is_not_made_is_refused(family: Family, size: Size, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        family.checked_size(*size)
    assert expected in str(caught.value) and caught.value.param == "size"


def test_the_built_in_base_offers_its_square_only() -> None:
    assert LIKENESS_128.shapes() == {"1:1": (128, 128)}


@pytest.mark.parametrize("family", FAMILIES[1:], ids=lambda family: family.name)
def test_shapes_that_are_offered_are_made_and_have_about_the_area_of_the_square(family: Family) -> None:
    square, *others = family.shapes().values()
    assert square == (family.resolution_px,) * 2 and len(others) >= 4
    assert {(height, width) for width, height in others} == set(others)
    for size in others:
        assert family.checked_size(*size) == size
        assert 0.85 < math.prod(size) / math.prod(square) <= 1
    for across, down in ((3, 4), (9, 16)):
        width, height = family.shaped(across, down)
        assert width / height == pytest.approx(across / down, rel=0.1)


def test_sdxl_offers_the_sizes_that_it_was_trained_on() -> None:
    shapes = SDXL.shapes()
    side, offered = SDXL.resolution_px // 16, set(shapes.values())
    assert {(width * side, height * side) for height, width in SDXL.aspects} <= offered
    assert (shapes["9:16"], shapes["16:9"]) == ((768, 1344), (1344, 768))


@pytest.mark.parametrize("family", [KLEIN_4B, Z_IMAGE], ids=lambda family: family.name)
def test_flows_have_sizes_of_a_megapixel(family: Family) -> None:
    """As many as of their own square, and no image fills more than four of them, which any engine accepts."""
    native = family.shapes(family.native_px)
    assert native["1:1"] == (1024, 1024) and native.keys() == family.shapes().keys()
    for size in native.values():
        assert family.checked_size(*size) == size
        assert 0.9e6 < math.prod(size) <= 4 * family.resolution_px**2


def test_latents_of_the_square_and_of_others(tiny_base: BaseModel) -> None:
    assert tiny_base.latent_shape_of(128, 128) == tiny_base.latent_shape
    assert tiny_base.latent_shape_of(192, 64) == (16, 8, 24)
