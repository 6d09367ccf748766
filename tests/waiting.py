"""Waiting in tests: for an event, however long a busy machine needs."""

import time
from collections.abc import Callable

HANG_S = 600.0  # what takes so long hangs


def until(condition: Callable[[], object], most_s: float = HANG_S, pause_s: float = 0.05) -> None:
    """Wait for something; an assertion fails when it does not come."""
    end_s = time.monotonic() + most_s
    while not condition():
        assert time.monotonic() < end_s, f"this did not happen within {most_s} s"
        time.sleep(pause_s)
