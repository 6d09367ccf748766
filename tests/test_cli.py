"""The command line: one JSON document for each verb, exit codes, errors that repeat nothing, the interrupt key."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from fixtures.tiny import build_tiny_folder
from likeness import cli
from likeness.commands.group import hoisted
from likeness.deploy.extension import EXTENSION
from likeness.diffusion.samplers import SAMPLERS
from likeness.service import Likeness
from likeness.training.loop import Progress, TrainingLoop
from likeness.training.recipe import PRESETS, FineTuneRecipe, recipe_named

STEPS = 4
SRC = str(Path(__file__).parents[1] / "src")


def small_recipe(name: str, family: str = "", /, **changes: object) -> FineTuneRecipe:
    recipe = recipe_named(name, family, **changes)
    return replace(recipe, class_images=2, variants=1, rank=2, alpha=2, instance_rows=2, prior_rows=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "recipe_named", small_recipe)


@pytest.fixture(scope="module")
def base(tiny_base_folder: Path) -> str:
    return str(tiny_base_folder)


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("things")
    for seed in range(4):
        pixels = np.random.default_rng(seed).integers(0, 255, (300, 280, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.jpg")
    return str(folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def rex(home: Path, base: str, things: str) -> str:
    """An adapter in the home, trained by whichever test comes first."""
    if not adapters(home) >= {"rex"}:
        document(home, "train", things, "--name", "rex", "--class-noun", "dog", "--base", base, "--steps", str(STEPS))
    return "rex"


def call(home: Path, *words: str, text: str | None = None) -> Result:
    return CliRunner().invoke(cli.app, ["--home", str(home), *words], input=text)


def document(home: Path, *words: str) -> Any:
    """The one document on standard output of a call that goes well."""
    result = call(home, *words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def error(home: Path, *words: str, code: int) -> dict[str, str]:
    """The error document of a call that goes wrong."""
    result = call(home, *words, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)["error"]


def adapters(home: Path) -> set[str]:
    """Names of what is published in the home."""
    return {row["name"] for row in document(home, "list")["adapters"]}


def size_px(path: str) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_check_of_things(home: Path, things: str) -> None:
    got = document(home, "check", things, "--class-noun", "dog")
    assert got["set"]["count"] == 4
    assert got["photos"][0] == {"file": "0.jpg", "verdict": "accepted", "reasons": [], "hint": ""}
    plain = call(home, "check", things, "--class-noun", "dog")
    assert plain.exit_code == 0
    assert "4 of 4 photographs can be used" in plain.stdout
    assert plain.stdout.count("treated as an object: faces are not checked") == 1


def test_check_of_a_refused_set_exits_1(home: Path, things: str) -> None:
    result = call(home, "check", things, "--json")  # noise without a face
    assert result.exit_code == 1
    assert {photo["verdict"] for photo in json.loads(result.stdout)["photos"]} == {"refused"}


def test_prepare(home: Path, things: str, tmp_path: Path) -> None:
    got = document(home, "prepare", things, "--class-noun", "dog", "--out", str(tmp_path / "out"))
    assert [entry["file"] for entry in got["prepared"]] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    for entry in got["prepared"]:
        assert size_px(entry["image"]) == size_px(entry["matte"]) == (512, 512)


def test_train_and_show_and_list(home: Path, base: str, things: str) -> None:
    words = ("train", things, "--name", "max", "--class-noun", "dog", "--base", base, "--steps", str(STEPS))
    got = document(home, *words, "--seed", "3")
    assert (got["adapter"]["steps"], got["adapter"]["seed"], len(got["losses"])) == (STEPS, 3, STEPS)
    assert got["set"]["count"] == 4
    assert {"check", "prepare", "train"} <= got["stage_seconds"].keys()
    assert error(home, *words, code=1)["code"] == "AdapterExists"
    shown = document(home, "show", "max")
    assert got["adapter"].items() <= shown.items()
    assert shown["bytes"] > 0
    listed = document(home, "list")
    (row,) = [row for row in listed["adapters"] if row["name"] == "max"]
    assert row["bytes"] == shown["bytes"]
    assert "max" in call(home, "list").stdout
    assert document(home, *words, "--replace", "--seed", "4")["adapter"]["seed"] == 4


def test_a_style_is_trained_and_blended(home: Path, base: str, things: str, rex: str) -> None:
    words = ("train", things, "--name", "oil", "--kind", "style", "--base", base, "--steps", str(STEPS))
    got = document(home, *words)
    assert (got["adapter"]["class_noun"], got["adapter"]["identifier"]) == ("", "<<STY>>")
    assert "style" in {advice["code"] for advice in got["set"]["advice"]}
    assert document(home, "show", "oil")["kind"] == "style" and document(home, "show", "rex")["kind"] == "thing"
    small = ("--base", base, "--steps", "1")
    for name, text, said in (
        ("oil", "a man in the snow", "a man in the snow, in <<STY>> style"),
        ("rex+oil@0.6", "snow", "picture of <<TOK>> dog, snow, in <<STY>> style"),
    ):
        assert document(home, "generate", name, text, *small)["images"][0]["prompt"] == said
    assert document(home, "score", "oil", "--base", base)["prompt"]["prompts"] == 4
    assert error(home, *words, "--class-noun", "dog", code=2)["code"] == "UsageError"
    kinds = {row["name"]: row["kind"] for row in document(home, "list")["adapters"]}
    assert (kinds["oil"], kinds["rex"]) == ("style", "thing")


def test_generate(home: Path, base: str, rex: str, tmp_path: Path) -> None:
    words = ("generate", rex, "in the snow", "--base", base, "--steps", "2", "-n", "3", "--seed", "7")
    got = document(home, *words, "--out", str(tmp_path))
    assert [image["seed"] for image in got["images"]] == [7, 8, 9]
    assert {image["prompt"] for image in got["images"]} == {"photo of <<TOK>> dog, in the snow"}
    assert {size_px(image["file"]) for image in got["images"]} == {(128, 128)}
    assert size_px(got["contact_sheet"])[0] > 3 * 256
    plain = call(home, "generate", "base", "photo of {me}", "--base", base, "--steps", "1")
    (path,) = plain.stdout.split()
    assert Path(path).parent == home / "outputs" / "base"
    assert Path(path).exists()
    assert "warning" not in plain.stderr
    own = ("generate", "base", "photo", "--base", base, "--steps", "1", "--size")
    (image,) = document(home, *own, "128x128")["images"]
    assert (image["width"], image["height"]) == size_px(image["file"]) == (128, 128)
    assert error(home, *own, "832x1216", code=2)["message"] == "expected the size 128x128, got 832x1216"
    assert "WIDTHxHEIGHT" in error(home, *own, "832", code=2)["message"]
    long = call(home, "generate", "base", "photo " * 60, "--base", base, "--steps", "1")
    assert "did not read the last" in long.stderr
    cut = "snow " * 60
    told = document(home, "generate", "base", "a (hat:1.2)", "--negative", cut, "--base", base, "--steps", "1")[
        "warnings"
    ]
    assert len(told) == 2
    assert "characters of the negative prompt" in told[0]
    assert "1 weight(s)" in told[1]
    last = error(home, "generate", rex, "photo " * 60 + "{me}", "--base", base, "--steps", "1", code=2)
    assert last["code"] == "PromptTooLong"


def test_export_import_forget(home: Path, base: str, rex: str, tmp_path: Path) -> None:
    out = tmp_path / "rex.safetensors"
    got = document(home, "export", rex, "--format", "kohya", "--out", str(out))
    assert got == {"name": rex, "format": "kohya", "path": str(out), "bytes": out.stat().st_size}
    words = ("import", str(out), "--name", "lent", "--format", "kohya", "--base", base)
    assert document(home, *words)["class_noun"] == "dog"
    assert error(home, *words, code=1)["code"] == "AdapterExists"
    assert error(home, "forget", "lent", code=2)["code"] == "UsageError"
    for answer in ("n\n", ""):  # and the end of the input
        stopped = call(home, "forget", "lent", text=answer)
        assert stopped.exit_code == 1 and stopped.stderr.endswith("error: stopped; nothing was changed\n")
    assert "lent" in adapters(home)
    receipt = document(home, "forget", "lent", "--yes")
    assert {item["kind"] for item in receipt["items"]} == {"adapter"}
    assert error(home, "show", "lent", code=1)["code"] == "AdapterNotFound"


def test_another_base_is_refused(home: Path, rex: str, tmp_path: Path) -> None:
    other = build_tiny_folder(tmp_path / "other", block_out_channels=(16, 32, 16))
    assert error(home, "generate", rex, "x", "--base", str(other), "--steps", "1", code=1)["code"] == "WrongBase"


def test_interrupt_and_resume(home: Path, base: str, things: str, rex: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, taken = TrainingLoop.step, []

    def interrupted(self: TrainingLoop) -> list[Progress]:
        taken.append(1)
        if len(taken) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self)

    monkeypatch.setattr(TrainingLoop, "step", interrupted)
    words = ("train", things, "--name", "cut", "--class-noun", "dog", "--base", base, "--steps", str(STEPS))
    result = call(home, *words)
    assert result.exit_code == 130
    assert "error: stopped after step 2 of 4" in result.stderr
    assert "hint: run the same command again" in result.stderr
    assert "cut" not in adapters(home)
    monkeypatch.undo()
    monkeypatch.setattr(cli, "recipe_named", small_recipe)
    resumed = document(home, *words)["adapter"]
    assert resumed["content_sha256"] == document(home, "show", rex)["content_sha256"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_full_disk_is_one_error_in_the_usual_form(
    home: Path, things: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "no", str(tmp_path))

    monkeypatch.setattr(cli, "save_prepared", full)
    words = ("prepare", things, "--class-noun", "dog", "--out", str(tmp_path))
    assert (got := error(home, *words, code=1))["code"] == "FileFailed"
    assert "No space left" in got["message"] and str(tmp_path) not in str(got)
    assert f"error: {got['message']}" in call(home, *words).stderr


MEMORY = [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("MPS backend out of memory")]


@pytest.mark.parametrize(
    ("place", "full"),
    [("training.loop.TrainingLoop.step", MEMORY[0]), ("training.prior.denoise_all", MEMORY[1]),
     ("diffusion.stable_diffusion.StableDiffusion.encode_photo", MEMORY[2]), ("diffusion.base.load_part", MEMORY[2])],
)  # fmt: skip
def test_a_training_without_memory_is_an_error_with_a_hint(
    things: str, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, full: Exception
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise full

    monkeypatch.setattr(f"likeness.{place}", fail)
    got = error(tmp_path, "train", things, "--name", "big", "--class-noun", "dog", "--base", base, code=1)
    assert (got["code"], "smaller base" in got["hint"]) == ("OutOfMemory", True)


def test_any_command_without_memory_says_so_and_other_errors_stay(
    home: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for full in MEMORY:
        monkeypatch.setattr(Likeness, "generate", lambda *_, full=full, **__: (_ for _ in ()).throw(full))
        assert error(home, "generate", "base", "x", "--base", base, code=1)["code"] == "OutOfMemory"
    monkeypatch.setattr(Likeness, "generate", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("a mistake")))
    assert isinstance(call(home, "generate", "base", "x", "--base", base).exception, RuntimeError)


@pytest.mark.parametrize(
    "words",
    [("prepare", "THINGS", "--class-noun", "dog"), ("generate", "base", "x"), ("demo",)],
)
def test_a_place_that_is_no_folder_is_refused_before_the_work(
    home: Path, base: str, things: str, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("")
    words = tuple(things if word == "THINGS" else word for word in words)
    chosen = () if words[0] == "prepare" else ("--base", base)
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        result = call(home, *words, *chosen, "--out", str(out))
        assert result.exit_code == 2
        assert result.stderr.startswith("error: expected --out")  # and no progress before


def test_an_interrupted_command_says_so(home: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Likeness, "generate", interrupted)
    assert error(home, "generate", "base", "x", "--base", base, code=130)["code"] == "Interrupted"
    assert "error: interrupted" in call(home, "generate", "base", "x", "--base", base).stderr


def test_train_says_at_once_what_cannot_be(home: Path, base: str, things: str) -> None:
    words = ("train", things, "--name", "never", "--class-noun", "dog", "--base", base)
    assert "seed" in error(home, *words, "--seed", "-1", code=2)["message"]
    assert "class noun" in error(home, *words, "--class-noun", "", code=2)["message"]
    assert "--consent" in error(home, *words, "--consent", "she said so", code=2)["message"]
    assert "--revision" in error(home, *words, "--revision", "abc", code=2)["message"]
    assert "--revision" in error(home, "generate", "base", "x", "--revision", "abc", code=2)["message"]
    remote = ("train", things, "--name", "never", "--remote", "http://127.0.0.1:1")
    for ignored in (("--base", base), ("--revision", "abc"), ("--restart",)):
        assert "--remote" in error(home, *remote, *ignored, code=2)["message"]
    assert not (home / "jobs" / "never").exists()


def test_an_adapter_of_too_large_a_rank_is_extracted(home: Path, base: str, rex: str, tmp_path: Path) -> None:
    out = tmp_path / "rex.safetensors"
    document(home, "export", rex, "--format", "kohya", "--out", str(out))
    rank = document(home, "show", rex)["rank"]
    words = ("import", str(out), "--name", "less", "--base", base, "--extract")
    assert "from 1 to 32, got 0" in error(home, *words, "0", code=2)["message"]
    assert "from 1 to 32, got 33" in error(home, *words, "33", code=2)["message"]
    card = document(home, *words, str(rank - 1))
    assert card["rank"] == rank - 1 and 0 < card["extraction"]["error"] <= card["extraction"]["largest_error"] <= 1
    assert document(home, "show", "less")["extraction"] == card["extraction"]
    said = call(home, "import", str(out), "--name", "lesser", "--base", base, "--extract", "1").stdout
    assert "extracted: its weights differ from the file's by" in said and "%" in said
    for name in ("less", "lesser"):
        document(home, "forget", name, "--yes")


def test_nobody_is_asked_about_what_is_not_there(home: Path) -> None:
    result = call(home, "forget", "nobody")
    assert (result.exit_code, result.stderr.count("Delete")) == (1, 0)
    assert error(home, "forget", "nobody", code=1)["code"] == "AdapterNotFound"


def test_reading_kept_photographs_makes_no_folder(home: Path, base: str, rex: str, tmp_path: Path) -> None:
    document(home, "export", rex, "--format", "kohya", "--out", str(tmp_path / "x"))
    document(home, "import", str(tmp_path / "x"), "--name", "guest", "--format", "kohya", "--base", base)
    words = ("--base", base, "--steps", "1", "--best-of", "2")
    assert error(home, "generate", "guest", "x", *words, code=1)["code"] == "PhotosRefused"
    assert not (home / "jobs" / "guest").exists()


@pytest.mark.parametrize(
    ("words", "table"),
    [
        (("train", "--recipe"), PRESETS),
        (("generate", "--sampler"), SAMPLERS),
        (("export", "--format"), EXTENSION.formats),
    ],
)
def test_help_names_what_can_be_chosen(home: Path, words: tuple[str, str], table: Mapping[str, object]) -> None:
    command, option = words
    _, _, shown = call(home, command, "--help").stdout.partition(option)
    *most, last = table
    assert f"{', '.join(most)} or {last}." in " ".join(shown.replace("│", " ").split())


SECRET = "zz-secret-$(id)"


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (["check", SECRET], 2, "UsageError"),
        (["check", "--" + SECRET], 2, "UsageError"),
        ([SECRET], 2, "UsageError"),
        ([], 2, "UsageError"),
        (["generate", "rex"], 2, "UsageError"),
        (["generate", SECRET, "x"], 2, "UsageError"),
        (["generate", "zz-secret", "x"], 1, "AdapterNotFound"),
        (["generate", "base", "x", "--steps", SECRET], 2, "UsageError"),
        (["generate", "base", "x", "--sampler", SECRET], 2, "UsageError"),
        (["generate", "base", SECRET * 200], 2, "UsageError"),
        (["generate", "base", "x", "-n", "65"], 2, "UsageError"),
        (["generate", "base", "x", "--base", SECRET], 1, "BaseNotFound"),
        (["train", ".", "--name", "x", "--recipe", SECRET], 2, "UsageError"),
        (["train", ".", "--name", "x", "--steps", "0"], 2, "UsageError"),
        (["export", "zz-secret", "--format", SECRET, "--out", SECRET], 2, "UsageError"),
    ],
)
def test_errors_have_one_form_and_repeat_nothing(tmp_path: Path, words: list[str], code: int, kind: str) -> None:
    got = error(tmp_path, *words, code=code)
    assert got["code"] == kind
    plain = call(tmp_path, *words)
    assert plain.exit_code == code
    assert plain.stdout == ""
    assert f"error: {got['message']}\n" in plain.stderr
    assert "secret" not in plain.stderr + json.dumps(got)
    assert "Traceback" not in plain.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "utf-8"])
def test_a_terminal_that_lacks_letters_shows_them_by_number(tmp_path: Path, encoding: str) -> None:
    """Also a name that is no text at all, which no encoding has."""
    for name in ("写真.jpg".encode(), b"caf\xe9.jpg"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"no photograph")
    words = [sys.executable, "-m", "likeness.cli", "--home", str(tmp_path / "home"), "check", str(tmp_path)]
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": SRC}
    done = subprocess.run(words, capture_output=True, env=environment)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert ("写真" if encoding == "utf-8" else "\\u5199\\u771f").encode() in done.stdout


def test_global_options_may_stand_anywhere() -> None:
    assert hoisted(["list", "--json", "--home", "h"]) == ["--json", "--home", "h", "list"]
    assert hoisted(["show", "--home=h", "x"]) == ["--home=h", "show", "x"]
    assert hoisted(["generate", "x", "--", "--json"]) == ["generate", "x", "--", "--json"]
    assert hoisted(["list", "--home"]) == ["--home", "list"]


def test_version(home: Path) -> None:
    from likeness import __version__

    assert document(home, "--version") == {"version": __version__}


@pytest.mark.slow
def test_demo(home: Path, base: str, tmp_path: Path) -> None:
    from likeness.commands.demo import PORTRAITS
    from likeness.errors import MissingPart
    from likeness.service.example import example_photos

    try:
        example_photos()
    except MissingPart:
        pytest.skip("the shipped photographs are not in this checkout")
    got = document(home, "demo", "--base", base, "--out", str(tmp_path / "demo"), "--steps", "2")
    assert len(got["images"]) == len(PORTRAITS) >= 8
    assert (tmp_path / "demo" / "report.html").read_text().count("data:image/png") == len(PORTRAITS)
    assert size_px(got["contact_sheet"])[0] > 1000
    assert "demo" not in adapters(home)
    assert adapters(Path(got["home"])) == {"demo"}
    assert got["peak_memory_bytes"] > 2**20
