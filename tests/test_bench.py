"""The commit recorded with a result."""

import subprocess
from pathlib import Path

import pytest

from recipes import measurement


@pytest.mark.parametrize("name", ["src/a.py", "recipes/base_model/render/b.py", "bench/c.py", "bench/results/d.json"])
def test_code_that_differs_from_its_commit_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def git(*words: str) -> None:
        author = ("-c", "user.name=A", "-c", "user.email=a@example.com")
        subprocess.run(["git", "-C", tmp_path, *author, *words], check=True, capture_output=True)

    monkeypatch.setattr(measurement, "ROOT", tmp_path)
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "One")
    assert not measurement.commit().endswith("-changed")
    (tmp_path / name).write_text("2\n")
    assert measurement.commit().endswith("-changed") == (not name.endswith(".json"))
