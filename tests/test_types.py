"""Words for people in any spelling; image requests with values in their ranges."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likeness.errors import UsageError
from likeness.types import (
    ImageRequest,
    Subject,
    WeightedAdapter,
    adapter_named,
    blend_of,
    blend_text,
    checked_blend,
    checked_subject,
    class_noun_of,
    kind_of,
    means_person,
    size_of,
)

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
    ("kind", "noun", "found", "words"),
    [
        (None, None, "person", "<<TOK>> person"), ("person", "woman", "person", "<<TOK>> woman"),
        (None, "dog", "thing", "<<TOK>> dog"), ("thing", "dog", "thing", "<<TOK>> dog"),
        ("style", None, "style", "<<STY>> style"),
    ],
)  # fmt: skip
def test_the_kind_of_a_subject(kind: str | None, noun: str | None, found: str, words: str) -> None:
    subject = checked_subject(Subject("x", class_noun_of(kind, noun)))
    assert (subject.kind, subject.words) == (found, words)
    assert kind_of(subject.class_noun) == found
    assert means_person(subject.prior_noun) == (found != "thing")


@pytest.mark.parametrize(
    ("kind", "noun"),
    [("style", "oil"), ("style", ""), ("thing", "woman"), ("thing", None), ("person", "dog"), ("pet", "dog"),
     (None, ""), (None, " "), ("person", "")],
)  # fmt: skip
def test_a_kind_that_the_class_noun_does_not_mean_is_refused(kind: str | None, noun: str | None) -> None:
    with pytest.raises(UsageError):
        class_noun_of(kind, noun)


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


@pytest.mark.parametrize(("given", "missing"), [("width", "height"), ("height", "width")])
def test_width_and_height_come_together(given: str, missing: str) -> None:
    with pytest.raises(UsageError, match=f"got no {missing}"):
        replace(ImageRequest("x"), **{given: 512})  # type: ignore[arg-type]


def test_a_size_is_read_from_one_text() -> None:
    assert size_of("832x1216") == (832, 1216)
    assert size_of(None) == size_of("") == size_of("auto") == (None, None)


@pytest.mark.parametrize("text", ["832", "832x", "x1216", "-1x0", "832*1216", "832X1216", " 832x1216", "1e3x5", "٣x٣"])
def test_a_text_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a size as WIDTHxHEIGHT") as caught:
        size_of(text)
    assert caught.value.param == "size"


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("anna", [("anna", 1.0)]),
        ("anna+oil@0.6", [("anna", 1.0), ("oil", 0.6)]),
        ("a@0+b@2+c@.5+d-1@1e-1", [("a", 0.0), ("b", 2.0), ("c", 0.5), ("d-1", 0.1)]),
        ("base", []),
        (None, []),
    ],
)
def test_adapters_with_weights_are_written_in_one_text(text: str | None, expected: list[tuple[str, float]]) -> None:
    assert [(one.name, one.weight) for one in blend_of(text)] == expected


@pytest.mark.parametrize(
    "text",
    [
        "anna+", "+anna", "anna@", "anna@x", "anna@-1", "anna@2.1", "anna@nan", "anna@1_0", "anna@\u0661",
        "anna+anna@0.5",
        "a+b+c+d+e",
        "anna+base", "base+anna", "base@0.5", "Anna", "anna oil", "anna@0.5@0.5",
    ],
)  # fmt: skip
def test_texts_that_are_no_adapters_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as refusal:
        blend_of(text)
    assert "0.6" in refusal.value.hint or refusal.value.param == "adapter" or "expected a name" in str(refusal.value)


NAMED = st.lists(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True), max_size=4, unique=True)


@given(NAMED.filter(lambda names: "base" not in names), st.lists(st.floats(0, 2), min_size=4, max_size=4))
def test_the_text_of_adapters_is_read_as_it_was_written(names: list[str], weights: list[float]) -> None:
    blend = checked_blend(WeightedAdapter(name, weight) for name, weight in zip(names, weights, strict=False))
    assert blend_of(blend_text(blend)) == blend


def test_a_request_says_its_subject_and_its_adapters() -> None:
    request = ImageRequest("x", blend_of("anna+oil@0.6"))
    assert (request.subject, request.to_json()["adapter"]) == ("anna", "anna+oil@0.6")
    assert (ImageRequest("x").subject, ImageRequest("x").to_json()["adapter"]) == (None, None)
    with pytest.raises(UsageError):
        ImageRequest("x", (WeightedAdapter("a"), WeightedAdapter("a")))
