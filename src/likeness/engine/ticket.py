"""What a caller holds while the engine works: the ticket, and what is told at each step."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..types import GeneratedImage


@dataclass(frozen=True, eq=False)
class StepEvent:
    """One denoising step of one picture is done."""

    step: int  # 1 to steps
    steps: int
    preview: NDArray[np.uint8] | None = None  # (h, w, 3) RGB, the picture as the network takes it to be by now


Watch = Callable[[StepEvent], None]


class Ticket:
    """One submitted request. All methods may be called from any thread."""

    def __init__(self, id: str, cancel: Callable[[], None]) -> None:
        self.id = id
        self._cancel = cancel
        self._future: Future[GeneratedImage] = Future()
        self._started: Future[None] = Future()

    @property
    def done(self) -> bool:
        """Whether there is a result or an error."""
        return self._future.done()

    def result(self, timeout_s: float | None = None) -> GeneratedImage:
        """Wait for the picture.

        Raises:
            TimeoutError: not done within `timeout_s`; the request goes on.
            LikenessError: whatever became of the request instead; RequestCancelled after `cancel`.
        """
        return self._future.result(timeout_s)

    def cancel(self) -> None:
        """Take the request back: out of the queue at once, out of the batch at the next step; done is done."""
        self._cancel()

    def add_done_callback(self, fn: Callable[["Ticket"], object]) -> None:
        """Call `fn(ticket)` when it is done, on one of the engine's threads; at once if it is. It must not block."""
        self._future.add_done_callback(lambda _: fn(self))

    def add_start_callback(self, fn: Callable[[], None]) -> None:
        """Call `fn()` before the device does anything for this request; at once if it has begun. It must not block."""
        self._started.add_done_callback(lambda _: fn())

    def start(self) -> None:
        """The engine's side: once, before the first work on the device."""
        self._started.set_result(None)

    def resolve(self, outcome: GeneratedImage | Exception) -> None:
        """The engine's side: once, and not with the engine's lock held."""
        if isinstance(outcome, Exception):
            self._future.set_exception(outcome)
        else:
            self._future.set_result(outcome)
