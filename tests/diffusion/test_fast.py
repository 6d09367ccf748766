"""Fast images: the settings of the base's family, or a refusal."""

import pytest
import torch

from likeness.diffusion.base import BaseModel
from likeness.diffusion.family import LIKENESS_128, SD_15
from likeness.diffusion.sampling import completed, denoise_all
from likeness.errors import UsageError
from likeness.types import ImageRequest


class WithFamily:
    """The part of a base that `completed` reads."""

    def __init__(self, family: object) -> None:
        self.family = family


def test_a_fast_image_is_the_one_of_the_familys_settings(tiny_base: BaseModel) -> None:
    family = tiny_base.family
    assert family is LIKENESS_128 and family.fast_steps is not None
    told = ImageRequest("photo of a man", steps=family.fast_steps, sampler=family.fast_sampler)
    fast, plain = denoise_all(tiny_base, None, [ImageRequest("photo of a man", fast=True), told])
    assert torch.equal(fast, plain)


def test_a_completed_request_can_be_made_again_as_it_is(tiny_base: BaseModel) -> None:
    once = completed(tiny_base, ImageRequest("photo of a man", fast=True))
    assert not once.fast and completed(tiny_base, once) == once


def test_a_family_without_such_settings_refuses() -> None:
    with pytest.raises(UsageError, match=r"settings for fast images, got sd-1\.5"):
        completed(WithFamily(SD_15), ImageRequest("photo of a man", fast=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"steps": 6}, {"sampler": "ddim"}])
def test_steps_and_sampler_are_not_given_beside_it(given: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="for a fast image") as refused:
        ImageRequest("photo of a man", fast=True, **given)  # type: ignore[arg-type]
    assert refused.value.param in given
