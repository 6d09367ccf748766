"""Images of other sizes than the square, through every protocol; and the sizes that a base tells."""

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from likeness.deploy.extension import protocols
from likeness.diffusion.family import Sizes
from likeness.http.app import create_app
from likeness.service import Likeness

ORDER = {"prompt": "{me} in the snow", "adapter": "anna", "steps": 2, "seed": 5}


@pytest.fixture(scope="module")
def wide(likeness: Likeness) -> Iterator[TestClient]:
    """The same installation with a base of several sizes."""
    likeness.close()
    other = Likeness(likeness.settings, likeness.home, likeness.library, likeness.subjects, likeness.sign)
    sizes = Sizes(64, least_area=0.5, most_area=4, most_aspect=2)
    family = replace(likeness.base.family, sizes=sizes, native_px=256)
    other.__dict__["base"] = replace(likeness.base, family=family)
    with TestClient(create_app(other, protocols=protocols()), base_url="http://localhost") as opened:
        yield opened
    other.close()


def picture(content: bytes) -> Any:
    return Image.open(io.BytesIO(content))


def test_the_base_tells_its_sizes(client: TestClient) -> None:
    said = client.get("/v1/base").json()
    assert (said["sizes"], said["shapes"]) == (None, [{"aspect": "1:1", "width": 128, "height": 128}])


def test_a_base_of_several_sizes_tells_them(wide: TestClient) -> None:
    said = wide.get("/v1/base").json()
    assert said["sizes"] == {"step_px": 64, "least_area_px": 8192, "most_area_px": 65536, "most_aspect": 2}
    assert said["shapes"][0] == {"aspect": "1:1", "width": 128, "height": 128}
    assert all(one["width"] % 64 == one["height"] % 64 == 0 for one in said["shapes"])
    largest = [one for one in said["shapes"] if one["width"] * one["height"] > 128**2]
    assert {"aspect": "1:1", "width": 256, "height": 256} in largest and len(largest) > 2
    made = wide.post("/v1/images", json=ORDER | {"steps": 1, "width": 256, "height": 256}).json()["images"][0]
    assert (made["width"], made["height"]) == (256, 256)


def test_an_image_has_the_size_that_was_asked_for(wide: TestClient) -> None:
    """In the file, its metadata, the gallery, the thumbnail and the sheet; and it is another image than the square."""
    asked = ORDER | {"width": 128, "height": 192, "n": 2, "keep": True}
    first, second = wide.post("/v1/images", json=asked).json()["images"]
    made = picture(base64.b64decode(first["data"]))
    assert made.size == (first["width"], first["height"]) == (128, 192)
    assert (made.text["width"], made.text["height"]) == ("128", "192")
    again = wide.post("/v1/images", json=ORDER | {"width": 128, "height": 192}).json()["images"][0]
    assert again["data"] == first["data"] != second["data"]
    kept = {one["id"]: (one["width"], one["height"]) for one in wide.get("/v1/images").json()["images"]}
    assert kept[first["id"]] == (128, 192)
    assert picture(wide.get(f"/v1/images/{first['id']}/thumbnail").content).size == (128, 192)
    sheet = wide.get("/v1/images/sheet", params={"id": [first["id"], second["id"]]}).content
    middle = picture(sheet).convert("RGB").getpixel((32 + 5, picture(sheet).height // 2))
    assert middle == (250, 249, 246)  # paper beside the image, of which nothing is cut off
    for one in (first, second):
        wide.delete(f"/v1/images/{one['id']}")


def test_without_a_size_the_square_is_made_and_recorded(wide: TestClient) -> None:
    one = wide.post("/v1/images", json=ORDER).json()["images"][0]
    explicit = wide.post("/v1/images", json=ORDER | {"width": 128, "height": 128}).json()["images"][0]
    assert (one["width"], one["height"], one["data"]) == (128, 128, explicit["data"])


def test_previews_have_the_shape_of_the_image(wide: TestClient) -> None:
    asked = ORDER | {"width": 192, "height": 128, "steps": 6}
    body = wide.post("/v1/images", json=asked, headers={"Accept": "text/event-stream"}).text
    steps = [json.loads(line.removeprefix("data: ")) for line in body.splitlines() if line.startswith('data: {"place"')]
    (preview,) = [one["preview"] for one in steps if "preview" in one]
    assert picture(base64.b64decode(preview)).size == (128, 85)


@pytest.mark.parametrize(("size", "found"), [("192x128", (192, 128)), ("auto", (128, 128)), ("128x128", (128, 128))])
def test_openais_size(wide: TestClient, size: str, found: tuple[int, int]) -> None:
    answer = wide.post("/openai/v1/images/generations", json={"prompt": "x", "size": size, "steps": 1, "model": "anna"})
    assert picture(base64.b64decode(answer.json()["data"][0]["b64_json"])).size == found


def test_sagemakers_width_and_height(wide: TestClient) -> None:
    arguments = json.dumps({"num_inference_steps": 1, "width": 192.0, "height": 128})
    inputs = [
        {"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [text]}
        for name, text in {"prompt": "<<TOK>> in the snow", "gen_args": arguments}.items()
    ]
    answer = wide.post(
        "/endpoints/avatars/invocations", content=json.dumps({"inputs": inputs}),
        headers={"X-Amzn-SageMaker-Target-Model": "anna.tar.gz"},
    )  # fmt: skip
    assert picture(base64.b64decode(answer.json()["outputs"][0]["data"][0])).size == (192, 128)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": 192}, "expected width and height together, got no height"),
        ({"width": 192, "height": 100}, "expected a size in multiples of 64, of 0.01 to 0.07 megapixels and at most "
                                        "2 to 1, got 192x100"),
        ({"width": 10**300, "height": 1}, "expected a size in multiples of 64"),
        ({"width": 192, "height": -128}, "got 192x-128"),
        ({"width": 192.5, "height": 128}, "expected width to be a valid integer, got 192.5"),
    ],
)  # fmt: skip
def test_a_size_that_the_base_does_not_make_is_refused(wide: TestClient, change: dict[str, float], said: str) -> None:
    answer = wide.post("/v1/images", json=ORDER | change)
    assert answer.status_code == 400 and said in answer.json()["error"]["message"]


def test_the_square_base_refuses_another_size(client: TestClient) -> None:
    answer = client.post("/v1/images", json=ORDER | {"width": 512, "height": 512})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "expected the size 128x128, got 512x512"
