"""What a long verb says while it works, and how it is asked to stop. Knows no screen and no signal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Advance:
    """One piece of one stage is done."""

    stage: str  # 'check', 'prepare', 'load base', 'class images', 'encode', 'train', 'generate'
    done: int
    total: int
    loss: float | None = None  # of the step just taken
    images_per_s: float | None = None  # rows that went through the networks
    warning: str = ""  # what went wrong and did not stop the work


Watch = Callable[[Advance], None]
ShouldStop = Callable[[], bool]


def unwatched(advance: Advance) -> None:
    """For callers who do not want to know."""


def never() -> bool:
    """For callers who cannot be asked to stop."""
    return False


class Stopwatch:
    """Seconds of each stage, in the order in which they ran; a stage that runs twice is added up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started_s
