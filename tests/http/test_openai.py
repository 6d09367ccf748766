"""OpenAI's images protocol, spoken by OpenAI's own Python client."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

JSON = {"content-type": "application/json"}

openai = pytest.importorskip("openai", reason="these tests speak through the official client")


@pytest.fixture(scope="module")
def official(address: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{address}/openai/v1", api_key="sk-anything", max_retries=0) as client:
        yield client


def test_models_are_the_adapters(official: Any) -> None:
    ids = [model.id for model in official.models.list()]
    assert ids[0] == "base" and {"anna", "bert"} <= set(ids)
    assert official.models.retrieve("anna").owned_by == "likeness"
    with pytest.raises(openai.NotFoundError):
        official.models.retrieve("zoe")


def test_images_generate(official: Any) -> None:
    answer = official.images.generate(
        model="anna", prompt="{me} in the snow", n=2, size="128x128", response_format="b64_json", quality="hd",
        style="vivid", user="somebody", extra_body={"seed": 5, "steps": 2},
    )  # fmt: skip
    pictures = [Image.open(io.BytesIO(base64.b64decode(image.b64_json))) for image in answer.data]
    assert [(picture.format, picture.size) for picture in pictures] == [("PNG", (128, 128))] * 2
    assert pictures[0].text["seed"] == "5"  # type: ignore[attr-defined]
    assert answer.created > 1_700_000_000


def test_the_least_that_can_be_said(official: Any) -> None:
    one, other = (official.images.generate(prompt="x", extra_body={"steps": 1}).data[0].b64_json for _ in range(2))
    assert one != other  # without a seed


def test_a_url_is_the_picture_itself(official: Any) -> None:
    answer = official.images.generate(
        model="base", prompt="x", response_format="url", output_format="jpeg", extra_body={"steps": 1}
    )
    assert answer.data[0].url.startswith("data:image/jpeg;base64,/9j/")


@pytest.mark.parametrize(
    ("change", "error", "param", "code"),
    [
        ({"model": "zoe"}, "NotFoundError", "model", "model_not_found"),
        ({"size": "1024x1024"}, "BadRequestError", "size", None),
        ({"size": "-1x0"}, "BadRequestError", "size", None),
        ({"n": 11}, "BadRequestError", None, None),
        ({"n": -1}, "BadRequestError", None, None),
        ({"prompt": ""}, "BadRequestError", None, None),
        ({"prompt": "secret" * 1000}, "BadRequestError", None, None),
        ({"stream": True}, "BadRequestError", "stream", None),
        ({"output_format": "webp"}, "BadRequestError", "output_format", None),
        ({"extra_body": {"secret": 1}}, "BadRequestError", None, None),
        ({"extra_body": {"steps": -1}}, "BadRequestError", None, None),
    ],
)
def test_errors_have_openais_shape(
    official: Any, change: dict[str, Any], error: str, param: str | None, code: str | None
) -> None:
    with pytest.raises(getattr(openai, error)) as caught:
        official.images.generate(**({"prompt": "x"} | change))
    assert caught.value.type == "invalid_request_error"
    assert (caught.value.param, caught.value.code) == (param, code)
    assert "secret" not in str(caught.value)


def test_an_adapter_of_another_base(official: Any) -> None:
    with pytest.raises(openai.ConflictError):
        official.images.generate(model="stranger", prompt="x")


def test_unknown_routes_and_bodies_too(client: TestClient) -> None:
    for answer in (
        client.get("/openai/v1/nothing"),
        client.post(
            "/openai/v1/images/generations", content=b"[" * 50_000, headers={"content-type": "application/json"}
        ),
    ):
        assert answer.status_code in (400, 404)
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
