"""/v1: subjects with consent, photographs with verdicts, adapters in and out, deletion with a receipt."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from fixtures.waiting import HANG_S
from likeness.artifacts import tensors
from likeness.errors import CorruptAdapter
from likeness.service import Likeness
from tests.telling import SECRETS, only_pixels, telling

WAIT_S = 60.0  # an upload takes a second


def pattern(seed: int) -> bytes:
    """A sharp picture of nothing, which a check of things accepts."""
    pixels = np.random.default_rng(seed).integers(0, 255, (300, 280, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def files(*contents: bytes, name: str = "x.jpg") -> list[tuple[str, tuple[str, bytes]]]:
    return [("photos", (name, content)) for content in contents]


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.fixture
def rex(client: TestClient) -> Iterator[str]:
    """A subject that is no person."""
    made = client.post("/v1/subjects", json={"name": "rex", "class_noun": "dog"})
    assert made.status_code == 201
    yield "rex"
    client.delete("/v1/subjects/rex")


def test_a_person_needs_consent(client: TestClient) -> None:
    assert code(client.post("/v1/subjects", json={"name": "eve", "class_noun": "woman"})) == (403, "ConsentMissing")
    made = client.post("/v1/subjects", json={"name": "eve", "class_noun": "woman", "consent": "Eve, by letter"})
    assert made.status_code == 201
    document = made.json()
    assert (document["name"], document["identifier"], document["consent"]) == ("eve", "<<TOK>>", "Eve, by letter")
    assert "tenant" not in document
    assert code(client.post("/v1/subjects", json={"name": "eve", "class_noun": "dog"})) == (409, "SubjectExists")
    assert client.delete("/v1/subjects/eve").json()["items"] == [{"kind": "subject", "count": 1, "bytes": 0}]
    assert code(client.get("/v1/subjects/eve")) == (404, "SubjectNotFound")
    assert code(client.delete("/v1/subjects/eve")) == (404, "AdapterNotFound")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "Eve"}, {"name": ""}, {"name": "x" * 64}, {"name": "../x"}, {"name": 3}, {}, [], None,
        {"name": "x", "class_noun": ""}, {"name": "x", "class_noun": "a\nb"}, {"name": "x", "class_noun": "y" * 101},
        {"name": "x", "class_noun": "dog", "consent": "z" * 2001}, {"name": "x", "class_noun": "dog", "a secret": 1},
        {"name": "x", "class_noun": "dog", "consent": "a\0b"},
    ],
)  # fmt: skip
def test_subjects_that_are_refused(client: TestClient, body: object) -> None:
    answer = client.post("/v1/subjects", json=body)
    assert code(answer) == (400, "UsageError")
    assert "secret" not in answer.text


def test_a_style_is_a_subject_without_a_class_noun(client: TestClient) -> None:
    made = client.post("/v1/subjects", json={"name": "oil", "kind": "style"}).json()
    assert (made["kind"], made["class_noun"], made["identifier"]) == ("style", "", "<<STY>>")
    assert client.get("/v1/subjects/oil").json()["kind"] == "style"
    assert client.get("/v1/adapters/anna").json()["kind"] == "person"
    assert client.post("/v1/subjects", json={"name": "ink", "kind": "style", "class_noun": "ink"}).status_code == 400
    client.delete("/v1/subjects/oil")


def test_subjects_are_listed_in_pages(client: TestClient) -> None:
    for k in range(3):
        client.post("/v1/subjects", json={"name": f"zz-page-{k}", "class_noun": "dog"})
    first = client.get("/v1/subjects", params={"limit": 2, "after": "zz-page-"}).json()
    assert [one["name"] for one in first["subjects"]] == ["zz-page-0", "zz-page-1"] and first["next"] == "zz-page-1"
    rest = client.get("/v1/subjects", params={"limit": 2, "after": first["next"]}).json()
    assert [one["name"] for one in rest["subjects"]] == ["zz-page-2"] and rest["next"] is None
    assert code(client.get("/v1/subjects", params={"limit": 0})) == (400, "UsageError")
    for k in range(3):
        client.delete(f"/v1/subjects/zz-page-{k}")


def test_photographs_get_verdicts_and_the_set_gets_advice(client: TestClient, rex: str) -> None:
    answer = client.post(f"/v1/subjects/{rex}/photos", files=files(pattern(0), pattern(1), b"no picture", pattern(0)))
    assert answer.status_code == 201
    document = answer.json()
    assert [photo["verdict"] for photo in document["photos"]] == ["accepted", "accepted", "refused", "refused"]
    assert [photo["reasons"][0]["code"] for photo in document["photos"][2:]] == ["not_an_image", "exact_duplicate"]
    assert document["set"]["count"] == 2
    more = client.post(f"/v1/subjects/{rex}/photos", files=files(pattern(2), pattern(1))).json()
    assert [photo["verdict"] for photo in more["photos"]] == ["accepted", "refused"]  # it was here before
    assert more["set"]["count"] == 3
    kept = client.get(f"/v1/subjects/{rex}/photos").json()["photos"]
    assert [photo["sha256"] for photo in kept] == [
        document["photos"][0]["sha256"], document["photos"][1]["sha256"], more["photos"][0]["sha256"],
    ]  # fmt: skip
    assert client.get(f"/v1/subjects/{rex}").json()["photos"] == 3
    assert client.delete(f"/v1/subjects/{rex}/photos/{kept[0]['sha256']}").status_code == 204
    assert code(client.delete(f"/v1/subjects/{rex}/photos/{kept[0]['sha256']}")) == (404, "ObjectNotFound")
    assert client.get(f"/v1/subjects/{rex}").json()["photos"] == 2


def test_people_are_looked_at_as_people(client: TestClient, demo_photos: Path) -> None:
    client.post("/v1/subjects", json={"name": "pat", "consent": "Pat"})
    photo = (demo_photos / "photo_01.jpg").read_bytes()
    answer = client.post("/v1/subjects/pat/photos", files=files(photo, pattern(3))).json()
    assert [one["verdict"] == "refused" for one in answer["photos"]] == [False, True]
    assert answer["photos"][1]["reasons"][0]["code"] == "no_face"
    assert {advice["code"] for advice in answer["set"]["advice"]}
    client.delete("/v1/subjects/pat")


def test_the_names_of_files_are_for_reading_only(client: TestClient, rex: str, likeness: Likeness) -> None:
    name = "../../etc/<b>\u202epass\x07wd.jpg"
    (photo,) = client.post(f"/v1/subjects/{rex}/photos", files=files(pattern(4), name=name)).json()["photos"]
    assert "/" not in photo["file"] and "\x07" not in photo["file"]
    (kept,) = likeness.library.objects.list(f"local/photos/{rex}/")
    assert kept.key == f"local/photos/{rex}/{photo['sha256']}"


def test_of_an_upload_the_pixels_stay_and_nothing_else(client: TestClient, rex: str, likeness: Likeness) -> None:
    sent = telling(Image.open(io.BytesIO(pattern(7))))
    assert all(secret in sent for secret in SECRETS)
    with Image.open(io.BytesIO(sent)) as picture:
        assert picture.size == (300, 280) and picture.getexif().get_ifd(0x8825)[2] == (52.0, 31.0, 12.0)
    first = client.post(f"/v1/subjects/{rex}/photos", files=files(sent)).json()["photos"][0]
    again = client.post(f"/v1/subjects/{rex}/photos", files=files(sent)).json()["photos"][0]
    assert (first["verdict"], again["verdict"]) == ("accepted", "refused")
    assert again["reasons"][0]["code"] == "exact_duplicate"
    assert first["sha256"] == again["sha256"] == hashlib.sha256(sent).hexdigest()
    (kept,) = [likeness.library.objects.get(one.key) for one in likeness.library.objects.list(f"local/photos/{rex}/")]
    assert only_pixels(kept)
    with Image.open(io.BytesIO(kept)) as picture:
        assert picture.size == (280, 300)


def test_uploads_that_are_refused(client: TestClient, rex: str) -> None:
    assert code(client.post("/v1/subjects/nobody/photos", files=files(pattern(0)))) == (404, "SubjectNotFound")
    assert code(client.post(f"/v1/subjects/{rex}/photos")) == (400, "UsageError")
    assert code(client.post(f"/v1/subjects/{rex}/photos", json={"photos": ["x"]})) == (415, "MediaTypeRefused")
    assert code(client.post(f"/v1/subjects/{rex}/photos", files=files(*[b"x"] * 65))) == (400, "UsageError")
    too_much = client.post(f"/v1/subjects/{rex}/photos", files=files(b"x" * (5 << 20)))
    assert code(too_much) == (413, "RequestTooLarge")
    form = {"content-type": "multipart/form-data; boundary=x"}
    broken = client.post(f"/v1/subjects/{rex}/photos", content=b"--x\r\nnonsense", headers=form)
    assert code(broken) == (400, "UsageError")


def test_forgetting_a_subject_leaves_nothing(client: TestClient, rex: str, likeness: Likeness) -> None:
    client.post(f"/v1/subjects/{rex}/photos", files=files(pattern(5), pattern(6)))
    receipt = client.delete(f"/v1/subjects/{rex}").json()
    assert {item["kind"]: item["count"] for item in receipt["items"]} == {"photographs": 2, "subject": 1}
    assert list(likeness.library.objects.list(f"local/photos/{rex}")) == []
    assert likeness.catalog.list_receipts("local")[-1].at == receipt["at"]


def test_adapters_are_listed_and_shown(client: TestClient) -> None:
    listed = client.get("/v1/adapters").json()
    assert {"anna", "bert"} <= {one["name"] for one in listed["adapters"]}
    anna = client.get("/v1/adapters/anna").json()
    assert anna in listed["adapters"]
    assert (anna["rank"], anna["class_noun"], anna["base_sha256"]) == (
        2,
        "person",
        client.get("/v1/base").json()["sha256"],
    )
    near = client.get("/v1/adapters/anna-").json()["error"]
    assert near["hint"] == "did you mean anna?"


@pytest.mark.parametrize(
    ("format", "ending"), [("diffusers", "safetensors"), ("kohya", "safetensors"), ("peft", "tar.gz")]
)
def test_an_adapter_leaves_and_comes_back_the_same(client: TestClient, format: str, ending: str) -> None:
    out = client.get("/v1/adapters/bert/download", params={"format": format})
    assert out.headers["content-disposition"] == f'attachment; filename="bert-{format}.{ending}"'
    name = f"back-from-{format}"
    back = client.post(
        "/v1/adapters/import", data={"name": name, "format": format}, files={"file": ("../x", out.content)}
    )
    assert back.status_code == 201, back.text
    pictures = [
        client.post("/v1/images", json={"prompt": "{me}", "adapter": who, "steps": 2, "seed": 1}).json()["images"][0]
        for who in ("bert", name)
    ]
    assert pictures[0]["prompt"] == pictures[1]["prompt"]
    again = client.post("/v1/adapters/import", data={"name": name, "format": format}, files={"file": out.content})
    assert code(again) == (409, "AdapterExists")
    cut = client.post("/v1/adapters/import", data={"name": "cut", "format": format}, files={"file": out.content[:-9]})
    assert cut.status_code == 422
    client.delete(f"/v1/adapters/{name}")


@pytest.mark.parametrize(
    ("data", "content", "status"),
    [
        ({"name": "x"}, b"\x80\x04\x95pickle", 422), ({"name": "x", "format": "peft"}, b"PK\x03\x04", 422),
        ({"name": "x", "format": "../x"}, b"", 400), ({"name": "base"}, b"", 400), ({"name": "../x"}, b"", 400),
        ({}, b"", 400),
    ],
)  # fmt: skip
def test_imports_that_are_refused(client: TestClient, data: dict[str, str], content: bytes, status: int) -> None:
    answer = client.post("/v1/adapters/import", data=data, files={"file": content or b"x"})
    assert answer.status_code == status, answer.text


def packed(folder: str, files: dict[str, bytes]) -> bytes:
    """As `tar czf` packs a folder: its own entry, then the files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo(folder)
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def test_what_peft_wrote_comes_in_as_a_tar(client: TestClient) -> None:
    exported = client.get("/v1/adapters/bert/download", params={"format": "diffusers"}).content
    arrays = {
        f"base_model.model.{key.removeprefix('unet.')}": array
        for key, array in tensors.decode(exported)[0].items()
        if key.startswith("unet.")
    }
    files = {"adapter_config.json": b'{"peft_type": "LORA", "lora_alpha": 2}', "README.md": b"PEFT's"}
    files["adapter_model.safetensors"] = tensors.encode(arrays, {})
    answer = client.post(
        "/v1/adapters/import", data={"name": "tarred"}, files={"file": packed("unet", files)}
    )  # fmt: skip
    assert answer.status_code == 201, answer.text
    assert (answer.json()["rank"], answer.json()["alpha"]) == (2, 2.0)
    client.delete("/v1/adapters/tarred")


def test_a_dora_comes_in_as_the_lora_that_is_nearest(client: TestClient) -> None:
    """With the error in its card; without the field it is refused, with the field's name."""
    exported = client.get("/v1/adapters/bert/download", params={"format": "diffusers"}).content
    arrays = tensors.decode(exported)[0]
    key = next(key for key in sorted(arrays) if key.startswith("unet.") and key.endswith("to_q.lora_B.weight"))
    magnitudes = np.ones(len(arrays[key]), np.float32)
    content = tensors.encode(arrays | {key.replace("lora_B.weight", "lora_magnitude_vector"): magnitudes}, {})

    def asked(**fields: str) -> Any:
        return client.post("/v1/adapters/import", data={"name": "dora", **fields}, files={"file": content})

    assert code(asked()) == (422, "UnsupportedAdapter") and "extract" in asked().json()["error"]["hint"]
    assert code(asked(extract="1000")) == (400, "UsageError")
    assert asked(extract="0").status_code == asked(extract="x").status_code == 400
    answer = asked(extract="4")
    assert answer.status_code == 201, answer.text
    assert 0 < answer.json()["extraction"]["error"] <= answer.json()["extraction"]["largest_error"]
    assert client.get("/v1/adapters/dora").json() == answer.json()
    assert client.get("/v1/adapters/bert").json()["extraction"] == {}
    client.delete("/v1/adapters/dora")


def test_uploads_do_not_wait_for_an_extraction(
    client: TestClient, rex: str, likeness: Likeness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can take minutes."""
    goes_on, begun = threading.Event(), threading.Event()

    def slow(*given: object, **more: object) -> None:
        begun.set()
        assert goes_on.wait(HANG_S)
        raise CorruptAdapter("expected another file")

    monkeypatch.setattr(Likeness, "import_adapter", slow)
    answers: list[Any] = []

    def extract() -> None:
        form = {"name": "slow", "extract": "4"}
        answers.append(client.post("/v1/adapters/import", data=form, files={"file": b"x"}))

    def upload() -> None:
        answers.append(client.post(f"/v1/subjects/{rex}/photos", files=files(pattern(0))))

    threads = [threading.Thread(target=extract), threading.Thread(target=upload)]
    threads[0].start()
    assert begun.wait(HANG_S)
    threads[1].start()
    threads[1].join(WAIT_S)
    before = [answer.status_code for answer in answers]
    goes_on.set()
    for thread in threads:
        thread.join()
    assert before == [201] and answers[1].status_code == 422


@pytest.mark.parametrize("format", ["auto", "peft", "kohya"])
@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (packed("unet", {}), "ArchiveRefused"),
        (packed("x", {"adapter_config.json": b"[]"}), "CorruptAdapter"),
        (packed("x", {"adapter_model.bin": b"x"}), "CorruptAdapter"),
        (packed("x", {"card.json": b"{}"}), "CorruptAdapter"),
        (b"\x1f\x8b", "ArchiveRefused"),
        (b"<html>", "CorruptAdapter"),
        (tensors.encode({"lora_unet_conv_in.dora_scale": np.ones((1, 1), np.float32)}, {}), "UnsupportedAdapter"),
    ],
    ids=["empty", "config", "pickle", "card", "cut", "html", "loha"],
)  # fmt: skip
def test_uploads_without_an_adapter_are_refused_with_a_reason(
    client: TestClient, format: str, content: bytes, refusal: str
) -> None:
    answer = client.post("/v1/adapters/import", data={"name": "x", "format": format}, files={"file": content})
    assert code(answer) == (422, refusal)
    assert answer.json()["error"]["hint"]


def test_downloads_that_are_refused(client: TestClient) -> None:
    assert code(client.get("/v1/adapters/zoe/download")) == (404, "AdapterNotFound")
    assert code(client.get("/v1/adapters/anna/download", params={"format": "../x"})) == (400, "UsageError")
    assert code(client.get("/v1/adapters/broken/download")) == (422, "CorruptAdapter")


def test_the_document_describes_every_route_with_examples(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert {
        "/v1/subjects", "/v1/subjects/{name}/photos", "/v1/adapters/{name}", "/v1/images",
        "/openai/v1/images/generations", "/endpoints/{endpoint}/invocations", "/healthz", "/metrics",
    } <= document["paths"].keys()  # fmt: skip
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            assert said.get("description"), (method, path)
    asked = document["components"]["schemas"]["NewImages"]["properties"]
    assert asked["prompt"]["examples"] and asked["n"]["maximum"] == 64


def test_healthz_and_metrics(client: TestClient) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    client.post("/v1/images", json={"prompt": "x", "steps": 1})
    client.get("/v1/adapters/hidden-name")
    page = client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in page.text.splitlines() if line[0] != "#"
    }
    assert values['likeness_http_requests_total{method="POST",route="/v1/images",status="200"}'] >= 1
    assert values['likeness_http_requests_total{method="GET",route="/v1/adapters/{name}",status="404"}'] >= 1
    assert values["likeness_engine_images_total"] >= 1
    assert (
        values['likeness_engine_picture_seconds_bucket{le="+Inf"}'] == values["likeness_engine_picture_seconds_count"]
    )
    assert values["likeness_http_requests_in_flight"] == 1
    assert "hidden" not in page.text and "anna" not in page.text
