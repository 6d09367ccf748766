"""Progress of long operations, and requests to stop them. Knows neither terminals nor signals."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Advance:
    """Progress within one stage."""

    stage: str  # 'check', 'prepare', 'load base', 'class images', 'encode', 'train', 'generate'
    done: int
    total: int
    loss: float | None = None  # of the last step
    images_per_s: float | None = None  # rows per second through the networks
    warning: str = ""  # a problem that did not stop the work
    left_s: float | None = None  # estimate for the rest of the stage
    together: int | None = None  # jobs in the same training loop

    def to_json(self) -> dict[str, Any]:
        """The form of a job's event stream; warnings are for terminals only."""
        return {key: value for key, value in asdict(self).items() if key != "warning"}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Advance":
        return cls(**{field.name: document[field.name] for field in fields(cls) if field.name in document})


Watch = Callable[[Advance], None]
ShouldStop = Callable[[], bool]


def unwatched(advance: Advance) -> None:
    """Ignores progress."""


def never() -> bool:
    """Never requests a stop."""
    return False


class Stopwatch:
    """Seconds per stage, in the order in which they ran; repeated stages are added up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started_s
