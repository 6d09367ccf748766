"""`likeness deploy triton --local`: boto3 -> our runtime protocol -> a real tritonserver -> thin model -> engine."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from likeness.cli import app
from likeness.config import Settings
from likeness.deploy.triton.front import Front
from likeness.deploy.triton.local import local_front
from likeness.http.app import create_app
from likeness.service import Likeness, build
from tests.contrast import build_contrasted_folder
from tests.http.conftest import running
from tests.people import publish_person
from tests.services.hosting import asked, skip_without_triton

boto3 = pytest.importorskip("boto3", reason="these tests speak through boto3")
from botocore.exceptions import ClientError  # noqa: E402

pytestmark = [pytest.mark.services, pytest.mark.slow]


@pytest.fixture(scope="module")
def likeness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Likeness]:
    base = build_contrasted_folder(tmp_path_factory.mktemp("base") / "tiny-base")
    installation = build(Settings(home=tmp_path_factory.mktemp("home"), base=str(base), slots=4))
    for seed, name in enumerate(("anna", "bert"), 1):
        publish_person(installation, name, seed)
    yield installation
    installation.close()


@pytest.fixture(scope="module")
def front(likeness: Likeness) -> Iterator[Front]:
    skip_without_triton()
    with local_front(likeness, most_models=4) as opened:
        yield opened


@pytest.fixture(scope="module")
def runtime(likeness: Likeness, front: Front) -> Iterator[Any]:
    with running(create_app(likeness, portrait_backend=front)) as address:
        made = boto3.client(
            "sagemaker-runtime", endpoint_url=address, region_name="us-west-2", aws_access_key_id="AKIATEST",
            aws_secret_access_key="test",
        )  # fmt: skip
        yield made
        made.close()


def invoke(runtime: Any, target: str) -> bytes:
    answer = runtime.invoke_endpoint(
        EndpointName="avatars", TargetModel=target, ContentType="application/json", Body=asked(format="png")
    )
    output = json.loads(answer["Body"].read())["outputs"][0]
    return Image.open(io.BytesIO(base64.b64decode(output["data"][0]))).tobytes()


def test_boto3_reaches_two_people_through_triton(runtime: Any, front: Front, likeness: Likeness) -> None:
    anna, bert = invoke(runtime, "anna.tar.gz"), invoke(runtime, "bert.tar.gz")
    assert anna != bert and invoke(runtime, "anna.tar.gz") == anna
    assert front.loaded == ("local/bert.tar.gz", "local/anna.tar.gz")
    assert likeness.engine_facts() is None  # the engine of this process was not needed


def test_who_is_forgotten_is_unloaded(runtime: Any, front: Front, likeness: Likeness) -> None:
    publish_person(likeness, "cleo", 3)
    assert invoke(runtime, "cleo.tar.gz")
    likeness.forget("cleo")
    with pytest.raises(ClientError) as refused:
        invoke(runtime, "cleo.tar.gz")
    assert refused.value.response["Error"]["Code"] in ("ValidationError", "ModelError")
    assert "local/cleo.tar.gz" not in front.loaded


def test_every_adapter_is_written_as_a_model(likeness: Likeness, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    words = ["--home", str(likeness.settings.home), "deploy", "triton"]
    ran = CliRunner().invoke(app, [*words, "--out", str(out)], env={"LIKENESS_BASE": likeness.settings.base})
    assert ran.exit_code == 0, ran.output
    assert {"anna", "bert"} <= {path.name for path in out.iterdir()}
    assert (out / "anna" / "1" / "adapter.safetensors").is_file()
    assert CliRunner().invoke(app, words).exit_code == 2  # neither --local nor --out
