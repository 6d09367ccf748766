"""The fine-tuning endpoint's handler, called as DJL Serving calls it: an empty call first, then headers and a body."""

import importlib.util
import json
import sys
from importlib import resources
from pathlib import Path
from types import ModuleType

import pytest

from fixtures.installation import SMALL, archive, picture
from likeness.artifacts.package import unpack
from likeness.artifacts.triton_model import read_model
from likeness.deploy.sagemaker.fine_tuning_service import service_from
from likeness.errors import SettingsError
from tests.deploy import djl_python

HEADERS = {"Content-Type": "application/x-tar", "device_id": "-1", "tensor_parallel_degree": "1"}
FOLDER = resources.files("likeness.deploy.sagemaker") / "djl"


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """model.py as a file of the package, loaded by its path as the container does."""
    monkeypatch.setitem(sys.modules, "djl_python", djl_python)
    spec = importlib.util.spec_from_file_location("djl_model", str(FOLDER / "model.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def started(handler: ModuleType, tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("LIKENESS_BASE", str(tiny_base_folder))
    options = {"engine": "Python", "entrypoint": "model.py", "likeness_models": f"file://{tmp_path}/models"}
    assert handler.handle(djl_python.Input(options)) is None
    return handler


def photographs(**config: object) -> bytes:
    said = {"name": "rex", "class_noun": "dog", "recipe": "fast", "steps": 2, **SMALL, **config}
    return archive({f"{seed}.jpg": picture(seed) for seed in range(3)} | {"config.json": json.dumps(said).encode()})


def test_photographs_become_an_archive_that_hosting_takes(started: ModuleType, tmp_path: Path) -> None:
    output = started.handle(djl_python.Input(HEADERS, photographs()))
    said = json.loads(output.body)
    assert (output.code, said["status"], said["steps"], said["photos"]) == (200, "Completed", 2, 3)
    assert said["output_location"] == f"file://{tmp_path}/models/{said['target_model']}"
    adapter = read_model(unpack(tmp_path / "models" / said["target_model"], tmp_path / "unpacked") / "rex")
    assert (adapter.card.name, adapter.card.content_sha256) == ("rex", said["adapter_sha256"])
    assert said["target_model"] == f"rex-{said['adapter_sha256'][:12]}.tar.gz"


@pytest.mark.parametrize(
    ("body", "code", "error"),
    [
        (b"no archive", 422, "ArchiveRefused"),
        (photographs(learning="fast"), 422, "InputRefused"),
        (archive({"a.txt": b"no photograph"}), 422, "PhotosRefused"),
        (photographs(class_noun="woman"), 403, "ConsentMissing"),
    ],
)
def test_a_failure_has_its_status_and_leaves_nothing(
    started: ModuleType, tmp_path: Path, body: bytes, code: int, error: str
) -> None:
    output = started.handle(djl_python.Input(HEADERS, body))
    assert (output.code, output.message) == (code, error)
    assert not list((tmp_path / "models").glob("*"))


def test_without_a_place_for_adapters_the_worker_does_not_start(handler: ModuleType) -> None:
    with pytest.raises(SettingsError, match="likeness_models"):
        handler.handle(djl_python.Input({"engine": "Python"}))


def test_the_environment_names_the_place_as_the_template_does(tmp_path: Path) -> None:
    environment = {"OPTION_LIKENESS_MODELS": f"file://{tmp_path}/models"}
    assert service_from({}, environment).models_url == environment["OPTION_LIKENESS_MODELS"]


def test_serving_properties_allow_an_hour_and_two_at_once() -> None:
    lines = [line for line in (FOLDER / "serving.properties").read_text().splitlines() if not line.startswith("#")]
    said = dict(line.split("=", 1) for line in lines)
    assert said["option.entryPoint"] == "model.py" and said["option.predict_timeout"] == "3600"
    assert said["minWorkers"] == said["maxWorkers"] == "2"  # MaxConcurrentInvocationsPerInstance of the template
