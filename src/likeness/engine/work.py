"""One request inside the engine, and what the device thread is to do next."""

from dataclasses import dataclass

from ..diffusion.lora import BASE_SLOT
from ..diffusion.sampling import Denoising, Order
from ..types import ImageRequest
from .batcher import Running, Waiting
from .packed import PackedAdapter
from .ticket import Ticket, Watch


@dataclass(eq=False)
class Work:
    """A request on its way. What is set at creation never changes; the rest belongs to the queue and its lock."""

    id: int
    ticket: Ticket
    request: ImageRequest
    key: str | None  # of its adapter
    tenant: str
    arrived_s: float
    deadline_s: float | None  # on the engine's clock
    watch: Watch | None
    preview_every: int  # steps; 0 = no previews
    joined_s: float = 0.0
    slot: int = BASE_SLOT
    adapter_sha256: str | None = None
    picture: Denoising | None = None
    is_cancelled: bool = False

    @property
    def rows(self) -> int:
        return 1 if self.request.guidance_scale == 1 else 2

    @property
    def cost(self) -> int:
        """Row-steps that are still to do."""
        return self.rows * (self.request.steps - (self.picture.step if self.picture else 0))

    @property
    def order(self) -> Order:
        """What the sampling layer is told."""
        one = self.request
        return Order(
            one.prompt, one.negative_prompt, one.seed, one.steps, one.guidance_scale, one.sampler, self.slot,
            one.adapter_scale, one.negative_scale,
        )  # fmt: skip

    def as_waiting(self, *, is_ready: bool) -> Waiting:
        return Waiting(
            self.id, self.tenant, self.key, self.rows, self.request.steps, self.arrived_s, self.deadline_s, is_ready
        )

    def as_running(self) -> Running:
        return Running(self.id, self.key, self.rows, self.cost // self.rows, self.deadline_s)


@dataclass(frozen=True, eq=False)
class Turn:
    """Between two steps: wipe, write, begin `joins`; then one step for all of `running`."""

    wipes: tuple[int, ...]  # slots
    writes: tuple[tuple[int, PackedAdapter], ...]
    joins: tuple[Work, ...]
    running: tuple[Work, ...]  # the joins included
