"""POST /v1/images: JSON, a file or events; what is made is what was asked for, and says that it was made."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from fixtures.published import publish_person
from likeness.service import Likeness
from likeness.service.image_files import AI_GENERATED
from likeness.types import HOUSE_ADAPTERS, ImageRequest, blend_of
from tests.http.conftest import pixels


def make(client: TestClient, **asked: Any) -> Any:
    answer = client.post("/v1/images", json={"prompt": "{me} in the snow", "steps": 2, **asked})
    assert answer.status_code == 200, answer.text
    return answer.json()["images"]


def events(text: str) -> list[tuple[str, Any]]:
    parts = [part.split("\n", 1) for part in text.strip().split("\n\n")]
    return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in parts]


def test_pictures_are_those_of_the_engine(client: TestClient, likeness: Likeness) -> None:
    anna, again = make(client, adapter="anna", seed=3, n=2, guidance_scale=2.0)
    assert (anna["seed"], again["seed"], anna["media_type"]) == (3, 4, "image/png")
    assert anna["prompt"] == "<<TOK>> person in the snow"
    assert anna["adapter_sha256"] == likeness.catalog.find_adapter("local", "anna").card.content_sha256
    (direct,) = likeness.generate(
        [ImageRequest("{me} in the snow", blend_of("anna"), seed=3, steps=2, guidance_scale=2.0)]
    )
    assert np.abs(pixels(base64.b64decode(anna["data"])) - direct.image.astype(int)).max() <= 1


@pytest.mark.parametrize("name", [None, "base"])
def test_no_adapter_is_the_bare_base(client: TestClient, name: str | None) -> None:
    (bare,) = make(client, adapter=name)
    assert bare["adapter_sha256"] is None
    assert bare["prompt"] == "a person in the snow"


def test_words_that_the_base_does_not_read_are_said_and_a_subject_among_them_is_refused(client: TestClient) -> None:
    (whole,) = make(client, adapter="anna")
    assert whole["unread"] == ""
    (cut,) = make(client, adapter="anna", prompt="{me} in the snow" + " photo" * 60 + " of a hat")
    assert cut["unread"].endswith(" photo of a hat")
    (more,) = make(client, prompt="a (hat:1.2)", negative_prompt="snow" + " photo" * 60, guidance_scale=2.0)
    assert (more["unread_instructions"], more["unread_negative"][-6:]) == (["(hat:1.2)"], " photo")
    assert (cut["unread_instructions"], cut["unread_negative"]) == ([], "")
    answer = client.post("/v1/images", json={"adapter": "anna", "prompt": "photo " * 60 + "of {me}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "PromptTooLong")
    assert "{me}" in answer.json()["error"]["hint"]
    make(client, prompt="photo " * 60 + "of {me}")  # no adapter


@pytest.mark.parametrize(("kind", "format"), [("image/png", "PNG"), ("image/jpeg", "JPEG")])
def test_a_bare_picture_says_that_it_was_made(client: TestClient, kind: str, format: str) -> None:
    answer = client.post("/v1/images", json={"prompt": "x", "steps": 1}, headers={"Accept": kind})
    assert answer.headers["content-type"] == kind
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.format == format
    xmp = picture.info.get("xmp") or picture.text["XML:com.adobe.xmp"].encode()  # type: ignore[attr-defined]
    assert AI_GENERATED.encode() in xmp
    refused = client.post("/v1/images", json={"prompt": "x", "n": 2}, headers={"Accept": kind})
    assert refused.status_code == 400


def test_events_tell_every_step_with_previews_and_end_with_the_pictures(client: TestClient) -> None:
    asked = {"prompt": "x", "adapter": "bert", "steps": 6, "n": 2, "seed": 0, "format": "jpeg"}
    answer = client.post("/v1/images", json=asked, headers={"Accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    told = events(answer.text)
    for place in (0, 1):
        steps = [said for kind, said in told if kind == "step" and said["place"] == place]
        assert [said["step"] for said in steps] == [1, 2, 3, 4, 5, 6]
        (shown,) = [said for said in steps if "preview" in said]
        assert Image.open(io.BytesIO(base64.b64decode(shown["preview"]))).format == "JPEG"
    images = {said["place"]: said for kind, said in told if kind == "image"}
    assert images.keys() == {0, 1} and images[1]["seed"] == 1
    assert told[-1] == ("done", {"images": 2})


def test_an_error_on_the_way_is_an_event(client: TestClient) -> None:
    answer = client.post(
        "/v1/images", json={"prompt": "x", "adapter": "broken"}, headers={"Accept": "text/event-stream"}
    )
    ((kind, said),) = events(answer.text)
    assert (kind, said["error"]["code"]) == ("error", "CorruptAdapter")


def test_kept_pictures_can_be_fetched_until_they_are_forgotten(client: TestClient, likeness: Likeness) -> None:
    (made,) = make(client, adapter="bert", keep=True, format="jpeg")
    fetched = client.get(f"/v1/images/{made['id']}")
    assert (fetched.headers["content-type"], fetched.content) == ("image/jpeg", base64.b64decode(made["data"]))
    (unkept,) = make(client, adapter="bert")
    assert unkept["id"] is None
    (bare,) = make(client, keep=True)
    receipt = client.delete("/v1/adapters/base").json()
    assert {item["kind"]: item["count"] for item in receipt["items"]} == {"portraits": 1}
    assert client.get(f"/v1/images/{bare['id']}").status_code == 404
    assert client.get(f"/v1/images/{made['id']}").status_code == 200
    assert list(likeness.library.objects.list("local/outputs/base/")) == []


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"adapter": "zoe"}, 404, "AdapterNotFound"),
        ({"adapter": "stranger"}, 409, "WrongBase"),
        ({"adapter": "broken"}, 422, "CorruptAdapter"),
        ({"adapter": "../anna"}, 400, "UsageError"),
        ({"prompt": "x" * 2001}, 400, "UsageError"),
        ({"prompt": "a\0b"}, 400, "UsageError"),
        ({"steps": -1}, 400, "UsageError"),
        ({"steps": 10**9}, 400, "UsageError"),
        ({"steps": 10**30}, 400, "UsageError"),
        ({"steps": 2.5}, 400, "UsageError"),
        ({"seed": -1}, 400, "UsageError"),
        ({"seed": 2**63 - 1, "n": 2}, 400, "UsageError"),
        ({"n": 0}, 400, "UsageError"),
        ({"n": 65}, 400, "UsageError"),
        ({"guidance_scale": 1e9}, 400, "UsageError"),
        ({"adapter_scale": -1}, 400, "UsageError"),
        ({"sampler": "secret-sampler"}, 400, "UsageError"),
        ({"format": "secret-format"}, 400, "UsageError"),
        ({"width": 100}, 400, "UsageError"),
        ({"secret field": 1}, 400, "UsageError"),
        ({"prompt": None}, 400, "UsageError"),
        ({"prompt": ["secret"]}, 400, "UsageError"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_repeated(
    client: TestClient, change: dict[str, Any], status: int, code: str
) -> None:
    answer = client.post("/v1/images", json={"prompt": "secret words", "steps": 1, **change})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "secret" not in answer.text and "zoe" not in answer.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cfg": 100}, "expected known fields only, got cfg"),
        ({"n": 65}, "expected n to be less than or equal to 64, got 65"),
        ({"format": "gif"}, "expected format to be 'png' or 'jpeg', got a string of 3 characters"),
        ({"steps": "many"}, "expected steps to be a valid integer, got a string of 4 characters"),
        (
            {"adapter": [{"name": "anna", "weight": "x"}]},
            "expected adapter.weight to be a valid number, got a string of 1 character",
        ),
        ({"adapter": []}, "expected adapter to have at least 1 item after validation, got a list of 0"),
        (
            {"adapter": "Ä"},
            "expected adapter to match pattern '^[a-z0-9][a-z0-9_-]{0,62}$', got a string of 1 character",
        ),
    ],
)
def test_a_refusal_names_the_field_and_its_limit(client: TestClient, change: dict[str, Any], said: str) -> None:
    answer = client.post("/v1/images", json={"prompt": "x", **change})
    assert answer.json()["error"]["message"] == said


def test_emoji_and_other_scripts_are_words_too(client: TestClient) -> None:
    (made,) = make(client, prompt="a 🧑‍🚀 \u202ein Kraków\n雪", steps=1)
    assert Image.open(io.BytesIO(base64.b64decode(made["data"]))).text["prompt"] == "a 🧑‍🚀 \u202ein Kraków\n雪"  # type: ignore[attr-defined]


def test_several_adapters_in_one_image(client: TestClient, likeness: Likeness) -> None:
    both = [{"name": "anna"}, {"name": "bert", "weight": 0.6}]
    (mixed,) = make(client, adapter=both, seed=3, guidance_scale=2.0)
    assert mixed["prompt"] == "<<TOK>> person in the snow"
    hashes = [likeness.catalog.find_adapter("local", name).card.content_sha256 for name in ("anna", "bert")]
    assert mixed["adapter_sha256"] == "+".join(hashes)
    text = Image.open(io.BytesIO(base64.b64decode(mixed["data"]))).text  # type: ignore[attr-defined]
    assert text["adapter"] == "anna+bert@0.6"
    (anna,) = make(client, adapter="anna", seed=3, guidance_scale=2.0)
    (listed,) = make(client, adapter=[{"name": "anna", "weight": 1.0}], seed=3, guidance_scale=2.0)
    assert listed["data"] == anna["data"]
    assert np.abs(pixels(base64.b64decode(mixed["data"])) - pixels(base64.b64decode(anna["data"]))).max() > 10


@pytest.mark.parametrize(
    ("adapter", "status"),
    [
        ([], 400), ([{"name": "anna"}] * 2, 400), ([{"name": "anna", "weight": 2.5}], 400), ([{"name": "base"}], 400),
        ([{"name": name} for name in "abcde"], 400), ([{"weight": 1.0}], 400), ("anna+bert", 400),
        ([{"name": "anna"}, {"name": "zoe"}], 404),
        ([{"name": name} for name in ("anna", "bert", "broken", "stranger")], 400),  # of three slots
        ([{"name": "anna"}, {"name": "broken"}], 422), ([{"name": "bert"}, {"name": "stranger"}], 409),
    ],
)  # fmt: skip
def test_adapters_that_cannot_be_combined(client: TestClient, adapter: Any, status: int) -> None:
    answer = client.post("/v1/images", json={"prompt": "x", "adapter": adapter, "steps": 1})
    assert (answer.status_code, answer.json()["error"]["code"] != "Unforeseen") == (status, True), answer.text


def test_a_kept_image_goes_with_any_of_its_adapters(client: TestClient, likeness: Likeness) -> None:
    publish_person(likeness, "first", 8)
    publish_person(likeness, "second", 9)
    blend = [{"name": "first"}, {"name": "anna", "weight": 0.5}, {"name": "second", "weight": 0.5}]
    (both,) = make(client, adapter=blend, keep=True)
    (alone,) = make(client, adapter="first", keep=True)
    (listed,) = [one for one in client.get("/v1/images").json()["images"] if one["id"] == both["id"]]
    assert (listed["adapter"], listed["blend"]) == ("first", "first+anna@0.5+second@0.5")
    receipt = client.delete("/v1/adapters/second").json()
    assert {
        key: value for item in receipt["items"] if item["kind"] == "portraits" for key, value in item.items()
        if key != "bytes"
    } == {"kind": "portraits", "count": 1}  # fmt: skip
    assert client.get(f"/v1/images/{both['id']}").status_code == 404
    assert client.get(f"/v1/images/{alone['id']}").status_code == 200
    assert not any(both["id"] in one.key for one in likeness.library.objects.list("local/outputs/"))


def test_a_house_adapter_is_for_all_tenants_and_belongs_to_none(client: TestClient, likeness: Likeness) -> None:
    publish_person(likeness, "oil", 10, tenant=HOUSE_ADAPTERS)
    try:
        assert client.delete("/v1/adapters/oil").status_code == 404
        (made,) = make(client, adapter=[{"name": "anna"}, {"name": "oil", "weight": 0.5}], keep=True)
        assert client.get(f"/v1/images/{made['id']}").status_code == 200
        assert client.delete("/v1/adapters/oil").status_code == 200  # the tenant's images with it
        assert client.get(f"/v1/images/{made['id']}").status_code == 404
        assert "oil" not in {one["name"] for one in client.get("/v1/adapters").json()["adapters"]}
        listed = {one["name"]: one for one in client.get("/v1/adapters?house=true").json()["adapters"]}
        assert (listed["oil"]["is_house"], listed["anna"]["is_house"]) == (True, False)
        assert client.get("/v1/adapters/oil").json()["is_house"]
        assert client.get("/v1/adapters/oil/download").status_code == 404
        answer = client.post("/openai/v1/images/generations", json={"prompt": "x", "model": "anna+oil@0.5", "steps": 1})
        assert answer.status_code == 200
        assert "oil" in {one["id"] for one in client.get("/openai/v1/models").json()["data"]}
    finally:
        likeness.forget("oil", tenant=HOUSE_ADAPTERS)
    answer = client.post("/v1/images", json={"prompt": "x", "adapter": "oil"})
    assert answer.status_code == 404
