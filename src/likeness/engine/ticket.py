"""The caller's side of an engine: its interface, the ticket of a request, and an event for each step."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ..types import Blend, GeneratedImage, ImageRequest
from .facts import EngineFacts

if TYPE_CHECKING:
    from ..diffusion.base import BaseModel


@dataclass(frozen=True, eq=False)
class StepEvent:
    """One denoising step of one image is done."""

    step: int  # 1 to steps
    steps: int
    preview: NDArray[np.uint8] | None = None  # (h, w, 3) RGB, the network's current prediction of the image


OnStep = Callable[[StepEvent], None]


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
        """Wait for the image.

        Raises:
            TimeoutError: not done within `timeout_s`; the request goes on.
            LikenessError: the request failed; RequestCancelled after `cancel`.
        """
        return self._future.result(timeout_s)

    def cancel(self) -> None:
        """Cancel the request: at once if it waits, at the next step if it runs. No effect once it is done."""
        self._cancel()

    def add_done_callback(self, fn: Callable[["Ticket"], object]) -> None:
        """Call `fn(ticket)` when it is done, on one of the engine's threads; at once if it is. It must not block."""
        self._future.add_done_callback(lambda _: fn(self))

    def add_start_callback(self, fn: Callable[[], None]) -> None:
        """Call `fn()` before the device starts on this request; at once if it has. It must not block."""
        self._started.add_done_callback(lambda _: fn())

    def start(self) -> None:
        """Called once by the engine, before the first work on the device."""
        self._started.set_result(None)

    def resolve(self, outcome: GeneratedImage | Exception) -> None:
        """Called once by the engine, without its lock."""
        if isinstance(outcome, Exception):
            self._future.set_exception(outcome)
        else:
            self._future.set_result(outcome)


class ImageEngine(Protocol):
    """What `service` needs of an engine: `engine.Engine`, or replicas of it in other processes."""

    @property
    def base(self) -> "BaseModel": ...

    def submit(
        self, request: ImageRequest, *, adapters: Blend = (), tenant: str = "local", deadline_s: float | None = None,
        on_step: OnStep | None = None, preview_every: int = 0, request_id: str | None = None, wait: bool = False,
    ) -> Ticket: ...  # fmt: skip

    def forget(self, key: str) -> None: ...
    def held(self) -> frozenset[str]: ...
    def facts(self) -> EngineFacts: ...
    def close(self) -> None: ...


def results(tickets: Sequence[Ticket], progress: Callable[[int], None] = lambda done: None) -> list[GeneratedImage]:
    """Wait for all images, in the order of `tickets`; when one fails or the wait breaks off, the others are cancelled.

    Args:
        progress: called on this thread with the number of finished images whenever it grows.

    Raises:
        LikenessError: of the first request that failed.
    """
    finished: SimpleQueue[Ticket] = SimpleQueue()
    try:
        for ticket in tickets:
            ticket.add_done_callback(finished.put)
        for done in range(1, len(tickets) + 1):
            finished.get().result()
            progress(done)
    finally:
        for ticket in tickets:
            ticket.cancel()
    return [ticket.result() for ticket in tickets]
