"""A worker's beat: what stops it, and what others make of it."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from likeness.jobs.heartbeat import Heartbeat

from likeness.jobs.tables import open_jobs_database
from likeness.storage.database import Database
from tests.waiting import HANG_S


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = open_jobs_database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    yield made
    made.close()


def test_a_beat_that_fails_in_an_unexpected_way_is_not_the_last(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = [KeyError("x"), ZeroDivisionError()]
    beaten = threading.Event()
    heart = Heartbeat(database, "w-0", beat_s=0.01, concurrency=1, beaten=lambda: None)
    heart.start()
    run = database.run

    def failing(work: Any, **options: Any) -> Any:
        if errors:
            raise errors.pop()
        beaten.set()
        return run(work, **options)

    monkeypatch.setattr(database, "run", failing)
    assert beaten.wait(HANG_S)
    monkeypatch.undo()
    heart.stop()
    assert not errors
