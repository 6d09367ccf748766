"""What a long verb says while it works, and how it is asked to stop. Knows no screen and no signal."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Advance:
    """One piece of one stage is done."""

    stage: str  # 'check', 'prepare', 'load base', 'class images', 'encode', 'train', 'generate'
    done: int
    total: int
    loss: float | None = None  # of the step just taken
    images_per_s: float | None = None  # rows that went through the networks
    warning: str = ""  # what went wrong and did not stop the work
    left_s: float | None = None  # until the stage is over, as far as can be told
    together: int | None = None  # jobs in the same training loop

    def to_json(self) -> dict[str, Any]:
        """The form of a job's event stream; a warning is for a terminal only."""
        return {key: value for key, value in asdict(self).items() if key != "warning"}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Advance":
        return cls(**{field.name: document[field.name] for field in fields(cls) if field.name in document})


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
