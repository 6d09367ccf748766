"""Importing the package loads no networks, and the libraries' start-up logs are removed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from likeness.photos import network
from likeness.types import Photo


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True)


def test_import_loads_no_network() -> None:
    done = _run("import sys, likeness.photos; print(*({'torch', 'ai_edge_litert', 'dlib'} & set(sys.modules)))")
    assert done.stdout.split() == []


def test_photographs_need_no_torch_and_leave_standard_error_clean(person: list[Photo], tmp_path: Path) -> None:
    for photo in person[:2]:
        (tmp_path / photo.name).write_bytes(photo.content)
    done = _run(
        "import sys; from likeness.photos import *\n"
        "result = check(read_photos(sys.argv[1:]), 'person')\n"
        "for one in result.usable: prepare(one.image, one.face, one.photo.sha256)\n"
        "print(len(result.usable), 'torch' in sys.modules)",
        str(tmp_path),
    )
    assert done.stdout.split() == ["2", "False"]
    assert done.stderr == ""


def test_other_lines_of_standard_error_are_kept(capfd: pytest.CaptureFixture[str]) -> None:
    with network.without_chatter():
        os.write(2, network.CHATTER + b"keep me\n")
    with pytest.raises(KeyError), network.without_chatter():
        raise KeyError
    os.write(2, b"still here\n")
    assert capfd.readouterr().err == "keep me\nstill here\n"
