"""The examples run, and stay short."""

import runpy
from pathlib import Path

import pytest

from likeness.diffusion.base import load_base
from likeness.service.example import example_photos

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_short(example: Path) -> None:
    assert len(example.read_text().splitlines()) <= 40


def test_portraits_from_photos(tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIKENESS_BASE", str(tiny_base_folder))
    main = runpy.run_path(str(EXAMPLES / "portraits_from_photos.py"))["main"]
    paths = main([example_photos()], steps=2)
    assert len(paths) == 2 and all(path.stat().st_size > 0 for path in paths)


def test_many_people_one_loop(tiny_base_folder: Path) -> None:
    main = runpy.run_path(str(EXAMPLES / "many_people_one_loop.py"))["main"]
    done = main(load_base(str(tiny_base_folder)), steps=3)
    assert set(done) == {"anna", "ben", "cleo"} and min(done.values()) > 0
