"""The tiny base's folder, and an installation of each test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.installation import Installation, installed
from fixtures.tiny import build_tiny_folder


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_folder(tmp_path_factory.mktemp("jobs-base") / "tiny-base")


@pytest.fixture
def installation(tmp_path: Path, base_folder: Path) -> Iterator[Installation]:
    with installed(tmp_path / "home", base_folder) as one:
        yield one
