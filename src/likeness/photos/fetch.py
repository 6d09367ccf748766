"""Downloads the files of MediaPipe's networks from the package index: `python -m likeness.photos.fetch`.

A wheel is a zip file, so pip downloads the one named here, whichever Python and system this is, and the files are taken
out of it without an installation. Files that are there already are not fetched again.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ..errors import LikenessError, MissingPart
from . import models

_WHEEL = (
    "mediapipe==0.10.21", "--no-deps", "--only-binary=:all:", "--platform=manylinux_2_28_x86_64",
    "--implementation=cp", "--python-version=3.12", "--abi=cp312",
)  # fmt: skip


def fetch(folder: Path) -> list[str]:
    """Place the files in `folder`; returns the names of those that were not there.

    Raises:
        MissingPart: the wheel cannot be downloaded, or its files are not those of `models`.
    """
    missing = [file for file in models.FILES if not _is_there(folder / file.name, file)]
    if missing:
        with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(_downloaded(Path(scratch))) as wheel:
            contents = {file: wheel.read(f"mediapipe/modules/{file.path}") for file in missing}
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            if not models.is_intact(file, content):
                raise MissingPart(f"expected {file.name} as released, got another one", hint="check the package index")
            unfinished = folder / f"{file.name}.part"
            unfinished.write_bytes(content)
            unfinished.replace(folder / file.name)
    return [file.name for file in missing]


def _is_there(path: Path, file: models.ModelFile) -> bool:
    return path.is_file() and models.is_intact(file, path.read_bytes())


def _downloaded(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "-d", str(scratch)]
    done = subprocess.run([*command, *_WHEEL], capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        hint = "check the network and that this Python has pip, then try again"
        raise MissingPart(f"expected the wheel of {_WHEEL[0]} from pip, got: {lines[-1]}", hint=hint)
    return wheels[0]


def main() -> None:
    try:
        fetch(models.folder())
    except LikenessError as error:
        sys.exit(f"{error.message}\n{error.hint}")


if __name__ == "__main__":
    main()
