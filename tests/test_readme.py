"""The README's own commands, word for word, on the shipped photographs."""

import shlex
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.readme import newest, pages, sentences, tables
from bench.report import RESULTS
from likeness import cli
from likeness.cli import app
from likeness.training.recipe import FineTuneRecipe, recipe_named

README = Path(__file__).parents[1] / "README.md"
HUB = "sd2-community/"  # needs the network


def commands() -> list[list[str]]:
    """The arguments of every `likeness` line of an indented block, without its comment."""
    lines = [line.strip() for line in README.read_text().splitlines() if line.startswith("    .venv/bin/likeness ")]
    return [shlex.split(line, comments=True)[1:] for line in lines if HUB not in line]


def test_the_readme_has_the_whole_path() -> None:
    assert {"check", "train", "generate", "forget"} <= {words[0] for words in commands()}


def test_every_figure_says_on_how_many_cores_it_was_measured() -> None:
    goal = {"claim": "seconds, start to end", "at_least": False, "target": 180.0, "value": 127.0, "met": True}
    made = [
        {"name": name, "date": "2026-01-02T03:04", "commit": "abc", "goals": [goal],
         "machine": {"cpu": "A", "cores": cores, "load_average_1_5_15_min": [9.0, 1.0, 1.0]}}
        for name, cores in (("demo", 1), ("suite", 16))
    ]  # fmt: skip
    text = tables(made)
    assert "(2026-01-02, commit abc, cores: 1, A)" in text
    assert "(2026-01-02, commit abc, cores: 16, A)" in text
    assert text.count("| duration, s | 127 | at most 180 | yes |") == 2
    assert sentences(made) == ["`make demo`, photographs to portraits with the training between: 127 s."]


def test_a_bench_without_a_subject_is_an_error() -> None:
    with pytest.raises(KeyError, match="bench-1"):
        tables([{"name": "bench-1", "goals": []}])


def test_figures_are_those_of_the_newest_results() -> None:
    documents = newest(RESULTS)
    for name, text in pages(documents).items():
        assert (README.parent / name).read_text() == text, "run: python -m bench.readme"
    assert len(sentences(documents)) == 8


def short_recipe(name: str, family: str = "", /, **changes: object) -> FineTuneRecipe:
    """The recipe of this name, with the least work that still takes every stage."""
    return replace(recipe_named(name, family, **changes), steps=3, class_images=2, variants=2)


@pytest.mark.slow
def test_commands_run_in_their_order(tmp_path: Path, tiny_base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the base is a smaller one, random, of the built-in base's shape, and the training is short."""
    monkeypatch.setattr(cli, "recipe_named", short_recipe)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LIKENESS_BASE", str(tiny_base_folder))
    (tmp_path / "photos").symlink_to(str(resources.files("likeness") / "assets" / "demo"))
    for words in commands():
        result = CliRunner().invoke(app, words, input="y\n")
        assert result.exit_code == 0, (words, result.output)
    assert not (tmp_path / "home" / "adapters" / "anna").exists()  # the last command forgot her
