"""A chore goes on whatever its runs end in, and says so."""

import logging
from collections.abc import Callable

import pytest

from likeness.errors import StorageUnavailable
from likeness.worker.chores import LONGEST_PAUSE_S, Chore


def raising(errors: list[Exception | None]) -> Callable[[], None]:
    def work() -> None:
        if (error := errors.pop(0)) is not None:
            raise error

    return work


def test_an_unexpected_error_is_logged_counted_and_followed_by_the_next_run(caplog: pytest.LogCaptureFixture) -> None:
    failed: list[str] = []
    errors: list[Exception | None] = [KeyError("x"), None, StorageUnavailable("away"), ValueError(), ValueError(), None]
    chore = Chore("deliver", raising(errors), every_s=2.0, failed=failed.append)
    with caplog.at_level(logging.ERROR):
        assert [chore.run() for _ in range(6)] == [False, True, False, False, False, True]
    assert failed == ["deliver"] * 3
    assert len([record for record in caplog.records if record.exc_info]) == 3


def test_a_run_comes_when_it_is_due_and_later_after_errors() -> None:
    now_s = [0.0]
    chore = Chore("purge", raising([ValueError()] * 10 + [None]), every_s=2.0, clock=lambda: now_s[0])
    pauses, due = [], []
    for _ in range(11):
        due.append(chore.is_due)
        chore.run()
        pauses.append(chore.pause_s)
        due.append(chore.is_due)
        now_s[0] += chore.pause_s
    assert due == [True, False] * 11
    assert pauses == [4.0, 8.0, 16.0, 32.0, *[LONGEST_PAUSE_S] * 6, 2.0]
