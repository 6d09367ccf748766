"""`likeness warm-up`: class images for every later training."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from likeness import cli
from likeness.training import prior


def run(home: Path, *words: str) -> Result:
    return CliRunner().invoke(cli.app, ["--home", str(home), "warm-up", *words, "--json"])


def test_class_images_are_made_once(tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior, "STEPS", 1)
    words = ("--class-noun", "dog", "--base", str(tiny_base_folder))
    result = run(tmp_path, *words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"class_noun": "dog", "class_images": 32}
    kept = sorted((tmp_path / "objects" / "class-images").rglob("*.safetensors"))
    assert [path.name[:11] for path in kept] == ["00000-00008", "00008-00016", "00016-00024", "00024-00032"]

    def none(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(prior, "denoise_all", none)
    assert run(tmp_path, *words).exit_code == 0


def test_a_class_noun_that_no_subject_may_have(tiny_base_folder: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "--class-noun", " ", "--base", str(tiny_base_folder)).exit_code == 2
