"""An installation, and a queue without one, of each test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.installation import Installation, installed
from likeness.jobs.queue import Queue
from likeness.jobs.tables import open_jobs_database


@pytest.fixture
def installation(tmp_path: Path, tiny_base_folder: Path) -> Iterator[Installation]:
    with installed(tmp_path / "home", tiny_base_folder) as one:
        yield one


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """Nothing is published."""
    made = Queue(open_jobs_database(f"sqlite:///{tmp_path / 'jobs.sqlite'}"), lambda tenant, name: None)
    yield made
    made.close()
