"""The engine's state of one request, and the device thread's next turn."""

from dataclasses import dataclass

from ..diffusion.sampling import Denoising
from ..types import Blend, ImageRequest
from .packed import PackedAdapter
from .ticket import OnStep, Ticket


@dataclass(eq=False)
class Work:
    """One request from `submit` to its end. Fields without a default never change; the queue's lock guards the rest."""

    id: int  # rising with arrival
    ticket: Ticket
    request: ImageRequest  # completed with the base's defaults
    rows: int  # of the base's square, see `sampling.square_rows`
    adapters: Blend  # their names are the keys; empty = the bare base
    tenant: str
    arrived_s: float
    deadline_s: float | None  # on the engine's clock
    on_step: OnStep | None
    preview_every: int  # steps; 0 = no previews
    joined_s: float = 0.0
    slots: tuple[int, ...] = ()  # of the adapters
    adapter_sha256: str | None = None
    denoising: Denoising | None = None  # set by the device thread at its first step
    is_cancelled: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.adapters)

    @property
    def steps(self) -> int:
        """Of the whole image."""
        assert self.request.steps is not None  # it is completed
        return self.request.steps

    @property
    def steps_left(self) -> int:
        return self.steps - (self.denoising.step if self.denoising else 0)


@dataclass(frozen=True, eq=False)
class Turn:
    """What the device thread does between two waits: wipe, write, begin `joins`, one step for all of `running`."""

    wipes: tuple[int, ...]  # slots
    writes: tuple[tuple[int, PackedAdapter], ...]
    joins: tuple[Work, ...]
    running: tuple[Work, ...]  # the joins included
