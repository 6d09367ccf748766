"""Words for people in any spelling; image requests with values in their ranges."""

from dataclasses import replace

import pytest

from likeness.errors import UsageError
from likeness.types import ImageRequest, Subject, adapter_named, means_person

PEOPLE = (
    "person", "Woman", "MAN", "old man", "boy scout", "woman with a hat", "child", "guy", "little Girl", "kid", "baby",
    "baby boy", "young lady", "grandma", " man ", "fire-man", "teenager",
)  # fmt: skip
THINGS = (
    "dog",
    "toy",
    "baby elephant",
    "face mask",
    "kid glove",
    "mandolin",
    "human skeleton",
    "woodman's-axe",
    "",
    "猫",
)


@pytest.mark.parametrize("noun", PEOPLE)
def test_people(noun: str) -> None:
    assert means_person(noun) and Subject("anna", noun).is_person


@pytest.mark.parametrize("noun", THINGS)
def test_things(noun: str) -> None:
    assert not means_person(noun) and not Subject("rex", noun).is_person


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0}, {"steps": 201}, {"guidance_scale": 0.9}, {"guidance_scale": 31.0},
        {"guidance_scale": float("nan")}, {"seed": -1}, {"seed": 2**63}, {"adapter_scale": 2.1},
        {"negative_scale": -0.1}, {"negative_scale": float("nan")}, {"prompt": "x" * 2001},
        {"negative_prompt": "x" * 2001}, {"prompt": "a\0b"}, {"sampler": "secret plms"},
    ],
)  # fmt: skip
def test_a_request_with_a_value_out_of_range_cannot_be_made(change: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        replace(ImageRequest("secret words"), **change)  # type: ignore[arg-type]
    assert caught.value.param in change
    assert "secret" not in str(caught.value)
    assert "xxx" not in str(caught.value)


def test_an_unknown_sampler_is_answered_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="dpmpp_2m, ddim, euler"):
        ImageRequest("x", sampler="plms")


@pytest.mark.parametrize("count", [0, 65])
def test_counts_out_of_range_are_refused(count: int) -> None:
    with pytest.raises(UsageError):
        ImageRequest("x").numbered(count)


def test_seeds_count_up_and_stay_in_range() -> None:
    assert [request.seed for request in ImageRequest("x", seed=7).numbered(3)] == [7, 8, 9]
    with pytest.raises(UsageError):
        ImageRequest("x", seed=2**63 - 2).numbered(3)


@pytest.mark.parametrize("name", [None, "", "base"])
def test_the_bare_base_has_no_adapter(name: str | None) -> None:
    assert adapter_named(name) is None
    assert adapter_named("anna") == "anna"
