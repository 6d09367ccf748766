"""Our own container: SageMaker's calls in the order in which the platform makes them."""

import base64
import io
import json
from collections.abc import Iterator

import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from fixtures.contrast import build_contrasted_folder
from fixtures.people import of_another_base, person
from likeness.deploy.adapter_files import FileEngine, load
from likeness.deploy.sagemaker.container import Container
from likeness.deploy.triton.export import write_model
from likeness.diffusion.base import load_base
from likeness.engine.engine import Engine
from likeness.service.image_files import encode

PAYLOAD = {"num_inference_steps": 2, "guidance_scale": 5, "seed": 1, "format": "png"}


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Models as the platform has extracted them: models/HASH/model/NAME/..."""
    folder = tmp_path_factory.mktemp("opt-ml")
    base = load_base(str(build_contrasted_folder(folder / "base")), device=torch.device("cpu"), dtype=torch.float32)
    for seed, name in enumerate(("anna", "bert"), 1):
        write_model(person(base, name, seed), folder / "models" / (name * 4) / "model" / name)
    write_model(of_another_base(person(base, "foreign", 9)), folder / "models" / "foreign" / "model" / "foreign")
    write_model(person(base, "cut", 8), folder / "models" / "cut" / "model" / "cut")
    weights = next((folder / "models" / "cut").rglob("adapter.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with Engine(base, load=load, slots=3) as engine:
        yield Container(FileEngine(engine, encode), models=folder / "models", single=folder / "model")


@pytest.fixture
def client(container: Container) -> Iterator[TestClient]:
    container.loaded.clear()
    with TestClient(container.app()) as opened:
        yield opened


def url_of(container: Container, name: str) -> str:
    return str(container.models / name / "model")


def portrait(prompt: str = "a knight", **gen_args: object) -> dict[str, object]:
    columns = {"prompt": prompt, "negative_prompt": "a dog", "gen_args": json.dumps({**PAYLOAD, **gen_args})}
    inputs = [{"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [[text]]} for name, text in columns.items()]
    return {"inputs": inputs}


def picture(answer: object) -> bytes:
    assert answer.status_code == 200, answer.text  # type: ignore[attr-defined]
    output = answer.json()["outputs"][0]  # type: ignore[attr-defined]
    assert output["name"] == "generated_image"
    return Image.open(io.BytesIO(base64.b64decode(output["data"][0]))).tobytes()


def test_a_models_life(container: Container, client: TestClient) -> None:
    assert client.get("/ping").status_code == 200
    known = {"model_name": "h1", "url": url_of(container, "anna" * 4)}
    assert client.get("/models/h1").status_code == client.post("/models/h1/invoke", json=portrait()).status_code == 404
    assert client.post("/models", json=known).status_code == 200
    assert client.post("/models", json=known).status_code == 409
    assert client.get("/models").json() == {"models": [{"modelName": "h1", "modelUrl": known["url"]}]}
    assert client.get("/models/h1").json() == {"modelName": "h1", "modelUrl": known["url"]}
    assert picture(client.post("/models/h1/invoke", json=portrait()))
    assert client.delete("/models/h1").status_code == 200
    assert client.delete("/models/h1").status_code == 404
    assert client.post("/models/h1/invoke", json=portrait()).status_code == 404


def test_words_that_are_not_read_are_told(client: TestClient) -> None:
    whole, cut = (
        client.post("/invocations", json=portrait(prompt)).json()["outputs"][1] for prompt in ("hat", "hat " * 100)
    )
    assert whole["name"] == cut["name"] == "warnings" and whole["data"] == [""] and "of the prompt" in cut["data"][0]


def test_each_model_is_its_own_person_and_invocations_the_bare_base(container: Container, client: TestClient) -> None:
    for name in ("anna", "bert"):
        client.post("/models", json={"model_name": name, "url": url_of(container, name * 4)})
    anna, bert, again = (
        picture(client.post(f"/models/{name}/invoke", json=portrait())) for name in ("anna", "bert", "anna")
    )
    assert anna == again != bert
    assert picture(client.post("/invocations", json=portrait())) not in (anna, bert)


def test_one_model_alone_answers_invocations(container: Container, client: TestClient) -> None:
    client.post("/models", json={"model_name": "anna", "url": url_of(container, "anna" * 4)})
    bare = picture(client.post("/invocations", json=portrait()))
    (container.models / ("anna" * 4) / "model").rename(container.single)
    try:
        assert picture(client.post("/invocations", json=portrait())) != bare
    finally:
        container.single.rename(container.models / ("anna" * 4) / "model")


@pytest.mark.parametrize("name", ["foreign", "cut", "nobody", "../models/anna", "/etc"])
def test_a_model_that_cannot_be_hosted_is_refused_and_never_409_or_507(
    container: Container, client: TestClient, name: str
) -> None:
    answer = client.post("/models", json={"model_name": "h", "url": str(container.models / name / "model")})
    assert answer.status_code == 400 and answer.json()["error"]
    assert client.get("/models").json() == {"models": []}


@pytest.mark.parametrize("body", [b"", b"[]", b'{"url": "x"}', b'{"inputs": []}', b"\xff" * 100])
def test_what_is_no_request_is_refused(container: Container, client: TestClient, body: bytes) -> None:
    assert client.post("/models", content=body).status_code == 400
    assert client.post("/invocations", content=body).status_code == 400


def test_settings_out_of_range_are_refused(client: TestClient) -> None:
    answer = client.post("/invocations", json=portrait(num_inference_steps=0))
    assert answer.status_code == 400 and "UsageError" in answer.json()["error"]
