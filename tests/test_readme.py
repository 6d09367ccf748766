"""The README's own commands, word for word, on the shipped photographs."""

import shlex
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.readme import table
from likeness import cli
from likeness.cli import app
from likeness.training.recipe import FineTuneRecipe, recipe_named
from tests.tiny import build_tiny_folder

README = Path(__file__).parents[1] / "README.md"
HUB = "sd2-community/"  # needs the network


def commands() -> list[list[str]]:
    """The arguments of every `likeness` line of an indented block, without its comment."""
    lines = [line.strip() for line in README.read_text().splitlines() if line.startswith("    .venv/bin/likeness ")]
    return [shlex.split(line, comments=True)[1:] for line in lines if HUB not in line]


def test_the_readme_has_the_whole_path() -> None:
    assert {"check", "train", "generate", "forget"} <= {words[0] for words in commands()}


def test_every_figure_says_on_how_many_cores_it_was_measured() -> None:
    goal = {"claim": "images a second", "at_least": True, "target": 3.0, "value": 3.8, "met": True}
    made = [
        {"name": f"bench-{cores}", "date": "2026-01-02T03:04", "commit": "abc", "machine": {"cpu": "A", "cores": cores},
         "goals": [goal]}
        for cores in (1, 16)
    ]  # fmt: skip
    text = table(made)
    assert "| `bench-1`, 2026-01-02, abc, 1 |" in text
    assert "| `bench-16`, 2026-01-02, abc, 16 |" in text


def short_recipe(name: str, **changes: object) -> FineTuneRecipe:
    """The recipe of this name, with the least work that still takes every stage."""
    return replace(recipe_named(name, **changes), steps=3, class_images=2, variants=2)


@pytest.mark.slow
def test_commands_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the base is a smaller one, random, of the built-in base's shape, and the training is short."""
    monkeypatch.setattr(cli, "recipe_named", short_recipe)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LIKENESS_BASE", str(build_tiny_folder(tmp_path / "base")))
    (tmp_path / "photos").symlink_to(str(resources.files("likeness") / "assets" / "demo"))
    for words in commands():
        result = CliRunner().invoke(app, words, input="y\n")
        assert result.exit_code == 0, (words, result.output)
    assert not (tmp_path / "home" / "adapters" / "anna").exists()  # the last command forgot her
