"""Temporary files of a process that was killed go when the next one starts; those of a living one stay."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from likeness.storage.scratch import FOLDER, scratch

SRC = Path(__file__).parents[2] / "src"
KILLED = """
import os, sys, tempfile
from pathlib import Path
from likeness.storage.scratch import scratch
with scratch(Path(sys.argv[1])):
    Path(tempfile.mkdtemp(), "adapter.safetensors").write_bytes(b"a person")
    os._exit(9)
"""


def test_what_a_killed_process_left_goes_and_what_a_living_one_uses_stays(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment).returncode == 9
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["adapter.safetensors"]
    before = tempfile.gettempdir()
    with scratch(tmp_path) as first:
        assert list(tmp_path.rglob("*.safetensors")) == []
        with tempfile.NamedTemporaryFile() as file:
            assert Path(file.name).parent == first
            with scratch(tmp_path) as second:
                assert second != first and Path(file.name).exists()
                assert os.environ["TMPDIR"] == str(second)
            assert tempfile.gettempdir() == str(first)
    assert tempfile.gettempdir() == before
    assert list((tmp_path / FOLDER).iterdir()) == []
    assert (tmp_path / FOLDER).stat().st_mode & 0o077 == 0


def test_what_is_no_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "link").symlink_to(tmp_path)
    with scratch(tmp_path):
        pass
    assert (tmp_path / FOLDER / "link").is_symlink() and tmp_path.is_dir()
