"""Kept images: in pages, as thumbnails, favourites, archives and sheets, and deleted one by one."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from likeness.service import Likeness
from likeness.service.image_files import AI_GENERATED
from likeness.service.kept import keep
from likeness.types import blend_of

ORDER = {"prompt": "{me} in the snow", "steps": 2, "keep": True}


@pytest.fixture
def kept(client: TestClient, likeness: Likeness) -> Iterator[list[str]]:
    """The ids of three images of anna and one of the base, in the order in which they were made."""
    ids = []
    for order in ({"adapter": "anna", "n": 3, "seed": 5}, {"adapter": "base", "prompt": "<b>snow</b>"}):
        made = client.post("/v1/images", json=ORDER | order)
        ids += [one["id"] for one in made.json()["images"]]
    yield ids
    for id in ids:
        client.delete(f"/v1/images/{id}")


def listed(client: TestClient, **query: str | int | bool) -> list[str]:
    return [one["id"] for one in client.get("/v1/images", params=query).json()["images"]]


def test_pages_begin_with_the_newest(client: TestClient, kept: list[str]) -> None:
    whole = listed(client, limit=1000)
    assert set(kept) <= set(whole) and whole[0] == kept[3]
    first = client.get("/v1/images", params={"limit": 2}).json()
    assert first["next"] == first["images"][-1]["id"]
    pages = [one["id"] for one in first["images"]]
    while first["next"]:
        first = client.get("/v1/images", params={"limit": 2, "before": first["next"]}).json()
        pages += [one["id"] for one in first["images"]]
    assert pages == whole
    assert set(listed(client, adapter="anna")) >= set(kept[:3]) and kept[3] not in listed(client, adapter="anna")
    assert listed(client, before="0" * 32) == []


def test_an_image_says_how_it_was_made(client: TestClient, kept: list[str]) -> None:
    by_id = {one["id"]: one for one in client.get("/v1/images").json()["images"]}
    assert [by_id[id]["seed"] for id in kept[:3]] == [5, 6, 7]
    anna, base = by_id[kept[0]], by_id[kept[3]]
    assert (anna["adapter"], anna["steps"], base["adapter"], base["prompt"]) == ("anna", 2, None, "<b>snow</b>")
    assert "in the snow" in anna["prompt"]


def test_without_a_seed_every_image_is_another(client: TestClient) -> None:
    seeds = [client.post("/v1/images", json=ORDER | {"keep": False}).json()["images"][0]["seed"] for _ in range(3)]
    assert len(set(seeds)) == 3


def test_favourites_are_marked_and_unmarked(client: TestClient, kept: list[str]) -> None:
    marked = client.put(f"/v1/images/{kept[1]}/favourite", json={"is_favourite": True})
    assert marked.json()["is_favourite"] is True
    assert listed(client, favourites=True) == [kept[1]]
    client.put(f"/v1/images/{kept[1]}/favourite", json={"is_favourite": False})
    assert listed(client, favourites=True) == []
    assert client.put("/v1/images/none/favourite", json={"is_favourite": True}).status_code == 404


def test_thumbnails_are_small_and_deletion_is_final(client: TestClient, kept: list[str], likeness: Likeness) -> None:
    small = client.get(f"/v1/images/{kept[0]}/thumbnail")
    assert max(Image.open(io.BytesIO(small.content)).size) <= 320
    assert client.delete(f"/v1/images/{kept[0]}").status_code == 204
    for path in ("", "/thumbnail"):
        assert client.get(f"/v1/images/{kept[0]}{path}").status_code == 404
    assert client.delete(f"/v1/images/{kept[0]}").json()["error"]["code"] == "ObjectNotFound"
    assert kept[0] not in listed(client)
    assert not any(facts.key.endswith(kept[0]) for facts in likeness.library.objects.list("local/outputs/anna/"))


def test_an_archive_has_the_files_as_they_were_made(client: TestClient, kept: list[str]) -> None:
    answer = client.get("/v1/images/archive", params=[("id", id) for id in kept])
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        contents = [archive.read(name) for name in archive.namelist()]
    assert contents == [client.get(f"/v1/images/{id}").content for id in kept]
    whole = client.get("/v1/adapters/anna/archive")
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        names = archive.namelist()
    assert names[0] == "anna-diffusers.safetensors" and len(names) >= 4


def test_a_comparison_is_one_marked_picture(client: TestClient, kept: list[str]) -> None:
    sheet = client.get("/v1/images/sheet", params=[("id", kept[0]), ("id", kept[3])])
    picture = Image.open(io.BytesIO(sheet.content))
    assert picture.width > 2 * 256
    assert picture.info["DigitalSourceType"] == AI_GENERATED
    assert client.get("/v1/images/sheet", params={"id": "none"}).status_code == 404


def test_a_damaged_row_can_be_seen_and_deleted(client: TestClient, kept: list[str], likeness: Likeness) -> None:
    from sqlalchemy import update

    from likeness.storage.catalog_tables import outputs

    with likeness.catalog.engine.begin() as connection:
        connection.execute(update(outputs).where(outputs.c.id == kept[0]).values(facts="[not json"))
    (damaged,) = [one for one in client.get("/v1/images").json()["images"] if one["id"] == kept[0]]
    assert damaged["prompt"] is None and json.dumps(damaged)
    assert client.delete(f"/v1/images/{kept[0]}").status_code == 204


@pytest.fixture(scope="module")
def man(client: TestClient, likeness: Likeness, demo_photos: Path) -> Iterator[str]:
    """anna as a subject with the photographs of the example man."""
    client.post("/v1/subjects", json={"name": "anna", "class_noun": "man", "consent": "virtual"})
    photos = [("photos", (f"{k}.jpg", (demo_photos / f"photo_{k:02d}.jpg").read_bytes())) for k in (1, 2, 3)]
    assert client.post("/v1/subjects/anna/photos", files=photos).status_code == 201
    yield "anna"
    for photo in client.get("/v1/subjects/anna/photos").json()["photos"]:
        client.delete(f"/v1/subjects/anna/photos/{photo['sha256']}")
    likeness.catalog.withdraw_subject(likeness.subjects.find("local", "anna"))


def kept_file(likeness: Likeness, adapter: str | None, file: bytes) -> str:
    return keep(likeness.library, "local", blend_of(adapter), file, "image/jpeg")


def test_a_picture_is_compared_with_the_photographs(
    client: TestClient, likeness: Likeness, man: str, demo_photos: Path
) -> None:
    folder = demo_photos.parents[3] / "tests/photos"
    himself = kept_file(likeness, man, (demo_photos / "photo_04.jpg").read_bytes())
    others = kept_file(likeness, man, (folder / "virtual_people.jpg").read_bytes())
    found, other = (client.get(f"/v1/images/{id}/likeness").json() for id in (himself, others))
    assert found["is_same"] is True and found["distance"] <= 0.6 and 0 < found["photo_distance"] <= 0.6
    assert other["distance"] > found["distance"] and other["reason"] == ""
    for id in (himself, others):
        client.delete(f"/v1/images/{id}")


def test_without_a_face_or_photographs_no_likeness_is_said(
    client: TestClient, likeness: Likeness, kept: list[str], man: str
) -> None:
    nobody = client.get(f"/v1/images/{kept[0]}/likeness").json()  # a tiny base makes no faces
    assert nobody == {
        "distance": None,
        "photo_distance": None,
        "is_same": None,
        "reason": "no face was found in the image",
    }
    assert client.get(f"/v1/images/{kept[3]}/likeness").json()["reason"] == "an image of the base alone has no subject"
    bert = kept_file(likeness, "bert", client.get(f"/v1/images/{kept[0]}").content)
    assert client.get(f"/v1/images/{bert}/likeness").json()["reason"] == "its subject has no stored photographs"
    client.delete(f"/v1/images/{bert}")
    assert client.get("/v1/images/none/likeness").status_code == 404
