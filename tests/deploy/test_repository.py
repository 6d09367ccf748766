"""Models of adapters: `likeness deploy triton` and `likeness export --format triton`."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from likeness.artifacts.package import unpack
from likeness.artifacts.triton_model import read_model
from likeness.cli import app
from likeness.config import Settings
from likeness.service import build
from likeness.types import Adapter
from tests.artifacts.conftest import Toolbox, tools  # noqa: F401  # a fixture


@pytest.fixture
def home(tmp_path: Path, tools: Toolbox) -> Path:  # noqa: F811
    likeness = build(Settings(home=tmp_path / "home"))
    for seed, name in enumerate(("anna", "bert")):
        made = tools.adapter(seed=seed)
        likeness.library.publish(Adapter(replace(made.card, name=name), made.weights), "local")
    likeness.close()
    return tmp_path / "home"


def run(home: Path, *words: str) -> int:
    return CliRunner().invoke(app, ["--home", str(home), *words]).exit_code


def test_every_adapter_is_written_as_the_model_that_an_export_has(home: Path, tmp_path: Path) -> None:
    repository, archive = tmp_path / "repository", tmp_path / "anna.tar.gz"
    assert run(home, "deploy", "triton", "--out", str(repository)) == 0
    assert run(home, "export", "anna", "--format", "triton", "--out", str(archive)) == 0
    assert sorted(path.name for path in repository.iterdir()) == ["anna", "bert"]
    assert {read_model(repository / name).card.name for name in ("anna", "bert")} == {"anna", "bert"}
    exported = unpack(archive, tmp_path / "unpacked") / "anna"
    files = {path.relative_to(exported): path.read_bytes() for path in exported.rglob("*") if path.is_file()}
    assert len(files) == 5
    assert files == {name: (repository / "anna" / name).read_bytes() for name in files}


def test_a_repository_needs_a_folder_of_its_own(home: Path, tmp_path: Path) -> None:
    assert run(home, "deploy", "triton") == 2
    (tmp_path / "repository" / "anna").mkdir(parents=True)
    assert run(home, "deploy", "triton", "--out", str(tmp_path / "repository")) == 1
