"""`likeness plan`: a prediction without weights, and a refusal with the numbers."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner, Result

from fixtures.tiny import SHALLOW, build_tiny_folder
from likeness import cli
from likeness.training.loop import StepMemory


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base without weights."""
    folder = build_tiny_folder(tmp_path_factory.mktemp("base") / "tiny-base", **SHALLOW)
    for weights in folder.glob("*/*.safetensors"):
        weights.unlink()
    return str(folder)


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.app, ["plan", *words])


def test_a_plan_adds_up(base: str) -> None:
    result = run("--base", base, "--memory", "12GB", "--people", "2", "--json")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    parts = ("weights", "prompts", "bank", "optimizer", "gradient", "activation", "reserve")
    assert plan["total_bytes"] == sum(plan[f"{part}_bytes"] for part in parts) <= plan["budget_bytes"] == 12 * 2**30
    assert (plan["family"], plan["dtype"], plan["people"], plan["rows_at_once"]) == ("likeness-128", "bfloat16", 2, 14)
    assert plan["people_that_fit"] > 2
    assert not plan["recompute"]


def test_what_cannot_fit_is_refused_with_the_numbers(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likeness.training.plan.ways", lambda rows: [StepMemory(1, recompute=True)])  # the last of them
    result = run("--base", base, "--memory", "0.5GB")
    assert result.exit_code == 1
    assert "expected 0.9 GiB of memory to train 1 at once" in result.output and "got 0.5" in result.output


@pytest.mark.parametrize(
    "words",
    [
        ("--memory", "much"),
        ("--people", "0"),
        ("--people", "17"),
        ("--memory", "-1GB"),
        ("--memory", "0GB"),
        ("--memory", "12GB", "--measure"),
    ],
)
def test_wrong_usage(base: str, words: tuple[str, ...]) -> None:
    assert run("--base", base, *words).exit_code == 2


def test_without_a_memory_it_is_this_machine(base: str) -> None:
    result = run("--base", base)
    assert result.exit_code == 0, result.output
    assert "7 of 7 rows in one pass, activations kept" in result.output


def test_a_measured_step_gives_the_time(base: str) -> None:
    result = run("--base", base, "--measure", "--json")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["step_s"] > 0
    assert plan["seconds"] == pytest.approx(plan["steps"] * plan["step_s"])


def test_nothing_but_the_plan_is_written() -> None:
    """The built-in base's decoder has a config of which diffusers says that it does not expect it."""
    result = subprocess.run(
        [sys.executable, "-m", "likeness.cli", "plan", "--memory", "12GB"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("built-in (likeness-128)") and result.stderr == ""
