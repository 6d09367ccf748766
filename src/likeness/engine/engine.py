"""Adapter + prompt + seed -> image, for any mixture of adapters in one batch.

One thread owns the device. A request joins the running batch at the next denoising step and leaves after its own last
step. Rows differ in adapter, prompt, seed, steps, guidance, sampler and scale; each image is the one that its request
gives alone. Images of another size take their steps in turn, in a forward of their own. Adapters come from a function
of a key, through host memory (`host_cache`), into the slots of the bank (`slot_cache`); `batcher` decides what joins.

The engine is independent of the adapters' storage and of the protocol of a request.
"""

import itertools
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from threading import Thread
from types import TracebackType

from ..diffusion.base import BaseModel
from ..diffusion.sampling import AdapterSlot, completed, row_count, rows_of
from ..errors import DeviceFailed, UsageError
from ..storage.device_turns import EngineTurns
from ..types import Adapter, Blend, GeneratedImage, ImageRequest
from .batch_limits import measured_limits
from .device import Device, small
from .facts import EngineFacts
from .packed import SlotWriter, pack
from .request_queue import RequestQueue
from .slot_banks import SlotBanks
from .ticket import OnStep, StepEvent, Ticket, results
from .turn import Turn, Work
from .warm_up import warm_up

HOST_BYTES = 256 << 20
LARGEST_ROWS = 8  # an image of so many is accepted with any `max_batch`: guided, four times the square's area
log = logging.getLogger("likeness.engine")


class Engine:
    """A base, a bank of adapter slots, and the images in the making. Call `close`, or use it in a `with`.

    Args:
        load: key -> adapter; called on a loader thread; what it raises is the error of the requests for this key.
        slots: of the bank, slot 0 (the bare base) included.
        rank: of the slots.
        large_rank: the largest that an adapter may have: those above `rank` take turns in a further slot.
        max_batch: guided images of the base's square in a step, two rows each; an unguided image is one row, and one of
            another size as many as its latent cells would fill.
        host_bytes: of adapters kept in host memory.
        queue_limit: requests that may wait.
        compiles: the blocks of the denoising network, before this returns; see `diffusion.compiled`.
        turns: at a device that trainings use too; closed with the engine.
        clock: seconds; for deadlines and latencies.
    """

    def __init__(
        self, base: BaseModel, *, load: Callable[[str], Adapter], slots: int = 8, rank: int = 8, large_rank: int = 0,
        max_batch: int = 8, host_bytes: int = HOST_BYTES, queue_limit: int = 256,
        compiles: bool = False, turns: EngineTurns | None = None, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        for name, got in {"max_batch": max_batch, "host_bytes": host_bytes, "queue_limit": queue_limit}.items():
            if got < 1:
                raise UsageError(f"expected {name} of at least 1, got {got}")
        self.base = base
        self.banks = banks = SlotBanks(base, slots=slots, rank=rank, large_rank=large_rank)
        if compiles:
            banks.compile()
            log.info("compiled the denoising network", extra={"seconds": round(warm_up(base, banks), 1)})
        self._writer = SlotWriter(banks)
        self._device = Device(base, banks, limits=measured_limits(base, banks, max_batch=max_batch))
        self._clock, self._ids, self._turns = clock, itertools.count(1), turns
        self._max_batch = max_batch
        self._queue = RequestQueue(
            lambda key: pack(load(key), banks, base.sha256),
            slots=slots, host_bytes=host_bytes, limit=queue_limit, turns=turns, clock=clock,
        )  # fmt: skip
        self._thread = Thread(target=self._run, name="likeness-device", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(
        self, request: ImageRequest, *, adapters: Blend = (), tenant: str = "local", deadline_s: float | None = None,
        on_step: OnStep | None = None, preview_every: int = 0, request_id: str | None = None, wait: bool = False,
    ) -> Ticket:  # fmt: skip
        """Put one request into the queue and start to load its adapters.

        Args:
            adapters: their names are the keys that are passed to `load`; `request.adapters` is only a label here.
            tenant: tenants share the device fairly.
            deadline_s: from now; a request that cannot be finished by then is refused or dropped.
            on_step: called after each step on the device thread: it must not block.
            preview_every: steps between two events with a preview, each of which costs a decoding; 0 = none.
            request_id: for the log and the ticket; None = a random one.
            wait: block while the queue is full instead of refusing.

        Raises:
            UsageError: more adapters than slots; an image that needs more rows than a batch has and would block all
                other requests; see also `sampling.completed`.
            EngineBusy: the queue is full or the deadline out of reach; it says when to try again.
            EngineClosed: after `close`.
        """
        number, now_s = next(self._ids), self._clock()
        ticket = Ticket(request_id or uuid.uuid4().hex[:16], lambda: self._queue.cancel(number))
        deadline = None if deadline_s is None else now_s + deadline_s
        request = completed(self.base, request)
        rows = rows_of(self.base, request)
        self._refuse_larger_than_the_batch(request, rows)
        self._queue.put(
            Work(number, ticket, request, rows, adapters, tenant, now_s, deadline, on_step, preview_every), wait=wait
        )
        return ticket

    def _refuse_larger_than_the_batch(self, request: ImageRequest, rows: int) -> None:
        most_rows = max(2 * self._max_batch, LARGEST_ROWS)
        if rows <= most_rows:
            return
        most = most_rows // row_count(request) * self.base.family.resolution_px**2
        raise UsageError(
            f"expected an image of at most {most / 1e6:.2f} megapixels, got {request.width}x{request.height}",
            hint="use a smaller size, or raise LIKENESS_MAX_BATCH of the server",
            param="size",
        )

    def generate(
        self, requests: Sequence[ImageRequest], *, progress: Callable[[int], None] = lambda done: None
    ) -> list[GeneratedImage]:
        """Make all images and wait for them. The keys of adapters are their names in the request. See `ticket.results`.

        Raises:
            LikenessError: of the first request that failed, as `submit`, `Ticket.result` and `load`.
        """
        tickets: list[Ticket] = []
        with ExitStack() as on_error:
            for request in requests:
                tickets.append(self.submit(request, adapters=request.adapters, wait=True))
                on_error.callback(tickets[-1].cancel)
            on_error.pop_all()
        return results(tickets, progress)

    def forget(self, key: str) -> None:
        """Drop an adapter from memory; images in the making are finished first, then its slot is wiped."""
        self._queue.forget(key)

    def held(self) -> frozenset[str]:
        """Keys of the adapters in memory."""
        return self._queue.held()

    def facts(self) -> EngineFacts:
        """Counters, occupancies and histograms at this moment."""
        return self._queue.facts()

    @property
    def is_alive(self) -> bool:
        """Whether the device thread runs; it ends with `close`, or with an error that no request caused."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Fail the requests that wait or run with EngineClosed, end all threads, and remove the bank from the base.

        Must not be called from a callback: callbacks run on the threads that it waits for.
        """
        self._queue.close()
        self._thread.join()
        self._queue.close_loads()
        self.banks.close()
        if self._turns is not None:
            self._turns.close()

    # the device thread

    def _run(self) -> None:
        try:
            while (turn := self._queue.next_turn(self._device.rows.now)) is not None:
                if self._turns is not None:
                    self._turns.begin()
                try:
                    self._take(turn)
                except Exception as error:  # unexpected: the requests of this turn fail, later ones are served
                    if not turn.running:
                        raise  # no request would leave, so the next turn would be the same
                    log.critical("a turn of the device thread failed", exc_info=error)
                    self._queue.abandon(turn, DeviceFailed(f"the device failed ({type(error).__name__})"))
        except BaseException as error:  # without this thread no request would ever end
            log.critical("the device thread ended", exc_info=error)
            self._queue.close(DeviceFailed(f"the device thread ended ({type(error).__name__})"))

    def _take(self, turn: Turn) -> None:
        started_s = time.perf_counter()
        for slot in turn.wipes:
            self._writer.wipe(slot)
        outcomes: dict[Work, GeneratedImage | Exception] = {}
        self._begin(turn, outcomes)
        works = [work for work in turn.running if work not in outcomes]
        images = [work.denoising for work in works if work.denoising is not None]
        errors = self._device.advance(images) if images else []
        outcomes |= {work: error for work, error in zip(works, errors, strict=True) if error is not None}
        alive = [work for work in works if work not in outcomes]
        self._queue.count_first_steps([work for work in alive if work.steps - work.steps_left == 1])
        self._tell(alive)
        outcomes |= self._finished(alive)
        rows = sum(work.rows for work in alive)
        self._queue.end_turn(outcomes, rows=rows, seconds=time.perf_counter() - started_s)

    def _begin(self, turn: Turn, outcomes: dict[Work, GeneratedImage | Exception]) -> None:
        """Write the slots and start the images that join; failures go into `outcomes`."""
        for slot, packed in turn.writes:
            try:
                self._writer.write(slot, packed)
            except Exception as error:
                log.error("a slot could not be written", exc_info=error)
                self._queue.unload(slot)
                failure = DeviceFailed(f"the adapter could not be put into its slot ({type(error).__name__})")
                outcomes |= {work: failure for work in turn.joins if slot in work.slots}
        joins = [work for work in turn.joins if work not in outcomes]
        for work in joins:
            work.ticket.start()
        begun = self._device.begin([(work.request, _slots(work)) for work in joins])
        for work, image in zip(joins, begun, strict=True):
            if isinstance(image, Exception):
                outcomes[work] = image
            else:
                work.denoising = image

    def _tell(self, alive: Sequence[Work]) -> None:
        """Call `on_step`, with a preview at every `preview_every` steps."""
        shown, latents = [], []
        for work in alive:
            image = work.denoising
            if work.on_step is None or not work.preview_every or image is None or image.latent is not None:
                continue
            if image.step % work.preview_every == 0 and image.clean is not None:
                shown.append(work)
                latents.append(image.clean)
        previews = dict(zip(shown, self._device.decode(latents), strict=True)) if shown else {}
        for work in alive:
            if work.on_step is None:
                continue
            preview = previews.get(work)
            thumbnail = None if preview is None or isinstance(preview, Exception) else small(preview)
            steps = work.steps
            try:
                work.on_step(StepEvent(steps - work.steps_left, steps, thumbnail))
            except Exception as error:  # a faulty callback must not fail the request
                log.error("on_step of request %s failed and is not called again", work.ticket.id, exc_info=error)
                work.on_step = None

    def _finished(self, alive: Sequence[Work]) -> dict[Work, GeneratedImage | Exception]:
        """Decode the images whose last step is done."""
        latents = {
            work: work.denoising.latent for work in alive if work.denoising is not None
            and work.denoising.latent is not None
        }  # fmt: skip
        decoded = self._device.decode(list(latents.values())) if latents else []
        now_s, sha256 = self._clock(), self.base.sha256
        return {
            work: pixels
            if isinstance(pixels, Exception)
            else GeneratedImage(work.request, pixels, sha256, work.adapter_sha256, now_s - work.joined_s)
            for work, pixels in zip(latents, decoded, strict=True)
        }


def _slots(work: Work) -> list[AdapterSlot]:
    """Where the adapters of a request lie, with their weights."""
    return [AdapterSlot(slot, one.weight, one.weight) for slot, one in zip(work.slots, work.adapters, strict=True)]
