"""An installation of each test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.installation import Installation, installed


@pytest.fixture
def installation(tmp_path: Path, tiny_base_folder: Path) -> Iterator[Installation]:
    with installed(tmp_path / "home", tiny_base_folder) as one:
        yield one
