"""`likeness backup` and `likeness restore`."""

import json
import stat
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from likeness import cli
from likeness.config import Settings
from likeness.service import build
from likeness.types import Subject


def call(home: Path, *words: str) -> Result:
    return CliRunner().invoke(cli.app, ["--home", str(home), *words])


def document(home: Path, *words: str) -> Any:
    result = call(home, *words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_backup_is_private_new_and_restores(tmp_path: Path) -> None:
    likeness = build(Settings(home=tmp_path / "one"))
    likeness.subjects.create("team", Subject("rex", "dog"), consent="")
    likeness.close()
    file = tmp_path / "backup.zip"
    made = document(tmp_path / "one", "backup", str(file), "--tenant", "team")
    assert made == {
        "file": str(file), "bytes": file.stat().st_size, "subjects": 1, "photos": 0, "adapters": 0, "images": 0,
        "jobs": 0,
    }  # fmt: skip
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    refused = call(tmp_path / "one", "backup", str(file))
    assert refused.exit_code == 1 and "one that exists" in refused.stderr
    assert file.stat().st_size == made["bytes"]
    found = document(tmp_path / "two", "restore", str(file))
    assert found == {"subjects": 1, "photos": 0, "adapters": 0, "images": 0, "jobs": 0, "left_out": []}
    assert document(tmp_path / "two", "restore", str(file))["subjects"] == 0


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    for home in ("one", "two"):
        likeness = build(Settings(home=tmp_path / home))
        likeness.subjects.create("local", Subject("rex", "dog"), consent="")
        likeness.close()
    call(tmp_path / "one", "backup", str(tmp_path / "backup.zip"))
    said = call(tmp_path / "two", "restore", str(tmp_path / "backup.zip"))
    assert said.exit_code == 0 and "left out 1 of rex: another subject of this name exists" in said.stderr


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert call(tmp_path, "restore", str(tmp_path / "notes.txt")).exit_code == 1
    assert call(tmp_path, "restore", str(tmp_path / "none.zip")).exit_code == 2
    assert not (tmp_path / "none.zip").exists()


def test_a_backup_that_fails_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "catalog.sqlite").write_bytes(b"no database at all, but of some length" * 100)
    assert call(tmp_path / "home", "backup", str(tmp_path / "backup.zip")).exit_code == 1
    assert not (tmp_path / "backup.zip").exists()
