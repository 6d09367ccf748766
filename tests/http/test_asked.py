"""The documents of requests in all protocols are of one kind: a number is a number, and nothing else is."""

import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from starlette.testclient import TestClient

from likeness.deploy.payload import GenArgs, request_of
from likeness.errors import UsageError
from likeness.http.asked import Asked
from likeness.http.job_schemas import NewJob
from likeness.http.openai import NewGeneration
from likeness.http.operator import NewPriority
from likeness.http.schemas import NewImages, WeightedIn
from likeness.types import size_of

MODELS: tuple[type[Asked], ...] = (NewImages, WeightedIn, NewJob, NewPriority, NewGeneration, GenArgs)


def kinds(annotation: Any) -> set[type]:
    """The plain types that an annotation allows, without its notes."""
    if get_origin(annotation) is Annotated:
        return kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return {kind for one in get_args(annotation) for kind in kinds(one)}
    return {annotation} if isinstance(annotation, type) else set()


def fields_of(kind: type) -> list[tuple[type[Asked], str]]:
    """The fields that take this type, or this type or null."""
    return [
        (model, name)
        for model in MODELS
        for name, field in model.model_fields.items()
        if kinds(field.annotation) - {NoneType} == {kind}
    ]


def refuses(model: type[Asked], name: str, value: object) -> bool:
    """Whether the field's own value is what is refused; other fields may be missing."""
    try:
        model.model_validate({name: value})
    except ValidationError as error:
        return any(one["loc"][0] == name for one in error.errors())
    return False


NO_NUMBERS = st.one_of(
    st.booleans(), st.text(max_size=5), st.integers(0, 50).map(str), st.just([]), st.just({}), st.just([5]),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), "1e3", " 5 ", "0x10"]),
)  # fmt: skip


def test_there_are_numbers_in_all_protocols() -> None:
    assert {model for model, _ in fields_of(int)} == {NewImages, NewJob, NewPriority, NewGeneration, GenArgs}
    assert {model for model, _ in fields_of(float)} == {NewImages, WeightedIn, NewGeneration, GenArgs}


@given(value=NO_NUMBERS)
def test_what_is_no_number_is_refused(value: object) -> None:
    for model, name in [*fields_of(int), *fields_of(float)]:
        assert refuses(model, name, value), (model, name)


@given(value=st.floats(-50, 50).filter(lambda value: not value.is_integer()))
def test_an_integer_has_no_fraction(value: float) -> None:
    for model, name in fields_of(int):
        assert refuses(model, name, value), (model, name)


@given(value=st.integers(1, 10))
def test_whole_numbers_are_integers_however_they_are_written(value: int) -> None:
    for model, name in [*fields_of(int), *fields_of(float)]:
        assert not refuses(model, name, value) and not refuses(model, name, float(value)), (model, name)


@given(value=st.one_of(st.integers(), st.text(max_size=4), st.floats()))
def test_what_is_no_truth_value_is_refused(value: object) -> None:
    for model, name in fields_of(bool):
        assert refuses(model, name, value), (model, name)


def bodies(client: TestClient) -> Iterator[Any]:
    def routes(of: Any) -> Iterator[Any]:
        for route in of.routes:
            if isinstance(route, APIRoute):
                yield route
            elif hasattr(route, "routes"):
                yield from routes(route)
            elif hasattr(route, "original_router"):
                yield from routes(route.original_router)

    for route in routes(client.app):
        if route.body_field is not None:
            yield route.body_field.field_info.annotation


def test_every_document_of_a_request_is_of_this_kind(client: TestClient) -> None:
    """So that none that is added later takes texts for numbers. Forms are texts anyway."""
    found = {one for one in bodies(client) if isinstance(one, type) and issubclass(one, BaseModel)}
    found = {one for one in found if not one.__name__.startswith("Body_")}
    assert {NewImages, NewJob, NewPriority, NewGeneration} <= found
    assert {one for one in found if not issubclass(one, Asked)} == set()


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        ("/v1/images", {"width": "576"}, "expected width to be a valid integer, got a string of 3 characters"),
        ("/v1/images", {"steps": True}, "expected steps to be a valid integer, got a boolean"),
        ("/v1/images", {"guidance_scale": False}, "expected guidance_scale to be a valid number, got a boolean"),
        ("/v1/images", {"keep": 1}, "expected keep to be a valid boolean, got 1"),
        ("/v1/images", {"seed": None, "height": []}, "expected height to be a valid integer, got a list of 0"),
        ("/v1/images", {"adapter": [{"name": "anna", "weight": "1"}]}, "adapter.weight to be a valid number, got a"),
        ("/v1/jobs", {"seed": "1"}, "expected seed to be a valid integer, got a string of 1 character"),
        ("/v1/jobs", {"recipe_changes": {"steps": True}}, "expected steps as int, got bool"),
        ("/v1/jobs", {"recipe_changes": {"clip_norm": "1"}}, "expected clip_norm as float, got str"),
        ("/openai/v1/images/generations", {"n": "2"}, "expected n to be a valid integer, got a string of 1 character"),
        ("/openai/v1/images/generations", {"size": "1024 x 1024"}, "got another text of 11 characters"),
    ],
)  # fmt: skip
def test_the_error_says_what_was_got(client: TestClient, path: str, change: dict[str, object], said: str) -> None:
    needed = {"name": "x", "class_noun": "dog"} if path == "/v1/jobs" else {"prompt": "x"}
    answer = client.post(path, json=needed | change)
    assert answer.status_code == 400 and said in answer.json()["error"]["message"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("name", ["guidance_scale", "steps"])
def test_numbers_that_are_not_finite_are_refused(client: TestClient, name: str, value: str) -> None:
    """JSON has no such words, but parsers read them, and some numbers are too large for one."""
    body = f'{{"prompt": "x", "{name}": {value}}}'
    for path in ("/v1/images", "/openai/v1/images/generations"):
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, (path, answer.text)
    with pytest.raises(UsageError):
        request_of("x", "", body.replace('"prompt": "x", ', "").replace("steps", "num_inference_steps"))


@pytest.mark.parametrize("media_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_json_of_another_media_type_is_refused_with_the_right_one(client: TestClient, media_type: str | None) -> None:
    """`curl -d` sends the last of them."""
    headers = {} if media_type is None else {"content-type": media_type}
    for path in ("/v1/images", "/openai/v1/images/generations"):
        answer = client.post(path, content=b'{"prompt": "x"}', headers=headers)
        assert answer.status_code == 400
        assert "got a body without the content type application/json" in answer.json()["error"]["message"]


def test_half_a_character_is_refused_as_any_other_text(client: TestClient) -> None:
    body = b'{"prompt": "x", "sampler": "\\ud800"}'
    answer = client.post("/v1/images", content=body, headers={"content-type": "application/json"})
    said = "expected sampler to be a valid string, got a string of 1 character"
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, said)


@given(width=st.integers(1, 99999), height=st.integers(1, 99999))
def test_sizes_are_read_as_they_are_written(width: int, height: int) -> None:
    assert size_of(f"{width}x{height}") == (width, height)


ALMOST = st.from_regex(r"[-+ ]?[0-9]{1,6}[xX*]?[-+ ]?[0-9]{1,6}\n?", fullmatch=True)
SIZE = re.compile(r"[0-9]{1,5}x[0-9]{1,5}")


@given(text=st.one_of(st.text(max_size=12), ALMOST))
def test_a_size_is_two_numbers_or_refused_with_what_was_got(text: str) -> None:
    """Never something in between: no sign, no space, no other letter, no digit of another script."""
    if text in ("", "auto"):
        assert size_of(text) == (None, None)
    elif SIZE.fullmatch(text):
        assert size_of(text) == tuple(map(int, text.split("x")))
    else:
        with pytest.raises(UsageError, match=f"got another text of {len(text)} characters"):
            size_of(text)
