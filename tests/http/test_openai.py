"""OpenAI's images protocol, spoken by OpenAI's own Python client."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from likeness.diffusion.family import KLEIN_4B, KLEIN_BASE_4B, LIKENESS_128, SD_15, SDXL, Z_IMAGE_TURBO
from likeness.http.openai import Quality, pace_of

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
        background="opaque", moderation="low", user="somebody", safety_identifier="u-1", complexity="high",
        extra_body={"seed": 5, "steps": 2},
    )  # fmt: skip
    pictures = [Image.open(io.BytesIO(base64.b64decode(image.b64_json))) for image in answer.data]
    assert [(picture.format, picture.size) for picture in pictures] == [("PNG", (128, 128))] * 2
    assert pictures[0].text["seed"] == "5"  # type: ignore[attr-defined]
    assert answer.created > 1_700_000_000


def test_the_least_that_can_be_said(official: Any) -> None:
    one, other = (official.images.generate(prompt="x", extra_body={"steps": 1}).data[0].b64_json for _ in range(2))
    assert one != other  # without a seed


def test_words_that_are_not_read_are_told(official: Any) -> None:
    def asked(prompt: str, negative: str = "") -> Any:
        return official.images.generate(
            model="anna", prompt=prompt, n=2, extra_body={"steps": 1, "negative_prompt": negative, "guidance_scale": 2}
        )

    whole, long = asked("{me} in a hat"), " photo" * 100
    assert [image.revised_prompt for image in whole.data] == ["<<TOK>> person in a hat"] * 2
    assert whole.warnings == []
    cut = asked("{me} in a hat" + long)
    assert cut.data[0].revised_prompt.startswith("<<TOK>> person in a hat photo") and "of the prompt" in cut.warnings[0]
    assert len(cut.data[0].revised_prompt) < len(long)
    assert "of the negative prompt" in asked("{me} in a hat", long).warnings[0]
    assert "(word:1.2)" in asked("{me} in a (hat:1.4)").warnings[0]


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
        ({"n": -1}, "BadRequestError", "n", None),
        ({"prompt": ""}, "BadRequestError", "prompt", None),
        ({"prompt": "secret" * 1000}, "BadRequestError", "prompt", None),
        ({"background": "transparent"}, "BadRequestError", "background", None),
        ({"output_compression": 10}, "BadRequestError", "output_compression", None),
        ({"output_compression": 101, "output_format": "jpeg"}, "BadRequestError", "output_compression", None),
        ({"quality": "secret"}, "BadRequestError", "quality", None),
        ({"partial_images": 2}, "BadRequestError", "partial_images", None),
        ({"extra_body": {"not a plain word: secret": 1}}, "BadRequestError", None, None),
        ({"extra_body": {"negative_prompt": "secret" * 1000}}, "BadRequestError", "negative_prompt", None),
        ({"extra_body": {"guidance_scale": 31}}, "BadRequestError", "guidance_scale", None),
        ({"extra_body": {"seed": -1}}, "BadRequestError", "seed", None),
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


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"size": "1024x1536"}, "size", "expected the size 128x128, got 1024x1536"),
        ({"size": "tall"}, "size", "expected a size as WIDTHxHEIGHT or auto"),
        ({"n": 11}, "n", "expected n to be less than or equal to 10, got 11"),
        ({"output_format": "gif"}, "output_format", "expected output_format to be 'png' or 'jpeg'"),
        ({"output_format": "webp"}, "output_format", "expected output_format to be 'png' or 'jpeg'"),
        ({"quality": "ultra"}, "quality", "'xhigh'"),
        ({"frame_count": 4}, "frame_count", "frame_count is not supported here"),
        ({"frame_duration_ms": 100}, "frame_duration_ms", "frame_duration_ms is not supported here"),
        ({"svg": {"model": "x"}}, "svg", "svg is not supported here"),
        ({"style": "vivid"}, "style", "style is not supported here (describe the style in the prompt)"),
        ({"stream": True}, "stream", "stream is not supported here"),
        ({"extra_body": {"steps": 201}}, "steps", "expected steps from 1 to 200, got 201"),
        ({"extra_body": {"prompt_rewriter": "off"}}, "prompt_rewriter", "expected known fields only, got prompt_rew"),
    ],
)
def test_a_refusal_names_the_field_and_what_is_allowed(
    official: Any, change: dict[str, Any], param: str, said: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        official.images.generate(**({"prompt": "x"} | change))
    assert caught.value.param == param and said in caught.value.message


def test_compression_is_the_quality_of_a_jpeg(official: Any) -> None:
    def size(**more: Any) -> int:
        answer = official.images.generate(prompt="x", output_format="jpeg", extra_body={"seed": 1, "steps": 1}, **more)
        return len(base64.b64decode(answer.data[0].b64_json))

    assert size(output_compression=0) < size(output_compression=50) < size() < size(output_compression=100)


def test_quality_is_a_number_of_steps_unless_steps_are_given(official: Any) -> None:
    def steps(quality: str | None, **more: Any) -> str:
        answer = official.images.generate(prompt="x", quality=quality, extra_body=more)
        return Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json))).text["steps"]  # type: ignore[attr-defined]

    assert (steps(None), steps("standard"), steps("high"), steps("high", steps=1)) == ("10", "10", "20", "1")
    assert (steps("low"), steps("low", steps=2)) == ("6", "2")  # of fast images


def test_qualities_are_multiples_of_the_bases_own_steps() -> None:
    order: tuple[Quality, ...] = ("low", "medium", "high", "xhigh", "max")
    assert [pace_of(quality, SD_15) for quality in order] == [(15, False), *((30 * k, False) for k in (1, 2, 3, 4))]
    assert pace_of("max", KLEIN_BASE_4B) == (200, False)  # the most that an image takes
    assert pace_of("low", LIKENESS_128) == (None, True)
    for family in (KLEIN_4B, Z_IMAGE_TURBO):  # distilled
        assert {pace_of(quality, family) for quality in order} == {(family.steps, False)}
    synonyms: dict[Quality, Quality] = {"auto": "medium", "standard": "medium", "hd": "high"}
    for quality, same in synonyms.items():
        assert pace_of(quality, SDXL) == pace_of(same, SDXL)


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
