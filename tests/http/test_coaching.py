"""/v1/coach and the photographs' pages: hints for frames, the plan of shots, crops, the example person."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

JPEG = {"Content-Type": "image/jpeg"}


def picture(side: tuple[int, int], file_format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", side, (120, 110, 100)).save(buffer, file_format)
    return buffer.getvalue()


def test_a_frame_gets_a_hint(client: TestClient, demo_photos: Path) -> None:
    frame = (demo_photos / "photo_01.jpg").read_bytes()
    held = client.post("/v1/coach", content=frame, headers=JPEG).json()
    assert held["hint"] == "hold" and held["yaw_deg"] is not None
    assert all(0 <= edge <= 1 for edge in held["box"])
    turned = client.post("/v1/coach?shot=three_quarter_right", content=frame, headers=JPEG).json()
    assert turned["hint"] == "turn_left"
    assert client.post("/v1/coach", content=picture((320, 240)), headers=JPEG).json()["hint"] == "no_face"


@pytest.mark.parametrize(
    "content", [b"", b"no picture", picture((32, 32)), picture((2400, 80)), picture((99, 99), "PNG")]
)
def test_what_is_no_frame_is_refused(client: TestClient, content: bytes) -> None:
    refused = client.post("/v1/coach", content=content, headers=JPEG)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "UsageError")


def test_a_late_frame_is_dropped(client: TestClient, app: FastAPI) -> None:
    with app.state.coach.busy:  # another frame is being examined
        assert client.post("/v1/coach", content=picture((320, 240)), headers=JPEG).json()["hint"] == "late"


@pytest.fixture
def example(client: TestClient) -> Iterator[str]:
    said = client.get("/v1/example").json()
    client.post("/v1/subjects", json={"name": "example", "class_noun": said["class_noun"], "consent": "nobody's"})
    yield "/v1/subjects/example"
    client.delete("/v1/subjects/example")


def test_the_example_persons_photographs_fill_the_plan(client: TestClient, example: str) -> None:
    files = client.get("/v1/example").json()["photos"][:5]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in files[1:]:
            archive.writestr(file, client.get(f"/v1/example/photos/{file}").content)
    assert client.get("/v1/example/photos/none.jpg").status_code == 404
    whole = client.get(f"/v1/example/photos/{files[0]}").content
    sent = [("photos", (files[0], whole)), ("photos", ("more.zip", buffer.getvalue()))]
    checked = client.post(f"{example}/photos", files=sent).json()
    assert [one["verdict"] for one in checked["photos"]] == ["accepted"] * 5
    plan = {one["shot"]: one for one in checked["set"]["plan"]}
    assert plan["front"]["have"] >= 2 and checked["set"]["next_shot"] in plan
    assert all("front" in one["shows"] or one["shows"] for one in checked["photos"])
    assert client.get(f"{example}/check").json() == checked

    first = checked["photos"][0]["sha256"]
    for view, size in (("whole", None), ("thumbnail", 320), ("training", 768)):
        shown = client.get(f"{example}/photos/{first}?view={view}")
        side = max(Image.open(io.BytesIO(shown.content)).size)
        assert size is None or side <= size
        assert client.get(f"{example}/photos/{'0' * 64}?view={view}").status_code == 404
    client.delete(f"{example}/photos/{first}")
    assert client.get(f"{example}/photos/{first}").status_code == 404
    assert client.get(f"{example}/check").json()["set"]["count"] == 4


def test_a_thing_has_no_plan(client: TestClient) -> None:
    client.post("/v1/subjects", json={"name": "pot", "class_noun": "teapot"})
    found = client.get("/v1/subjects/pot/check").json()["set"]
    assert (found["plan"], found["next_shot"]) == ([], None)
    client.delete("/v1/subjects/pot")
