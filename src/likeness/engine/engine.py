"""Adapter + prompt + seed -> image, for any mixture of people in one batch.

One thread owns the device. A request joins the running batch at the next denoising step and leaves when its own steps
are done; rows differ in adapter, prompt, seed, steps, guidance, sampler and scale, and the picture is the one it would
be alone. Adapters come from a function that is told a key, through host memory (`host`), into the bank's slots
(`cache`); who joins when is `batcher`'s.

The engine does not know where adapters are kept nor who asks.
"""

import itertools
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from queue import SimpleQueue
from threading import Thread
from types import TracebackType

from ..diffusion.base import BaseModel
from ..diffusion.devices import memory_for
from ..diffusion.lora import LoraBank
from ..diffusion.samplers import sampler_named
from ..diffusion.sampling import Denoising
from ..errors import DeviceFailed, UsageError
from ..portraits import check_request
from ..types import Adapter, GeneratedImage, ImageRequest
from .device import Device, small
from .facts import EngineFacts
from .memory import measured_limits
from .packed import SlotWriter, pack
from .queue import Outcome, RequestQueue
from .ticket import StepEvent, Ticket, Watch
from .work import Turn, Work

HOST_BYTES = 256 << 20
log = logging.getLogger("likeness.engine")

Load = Callable[[str], Adapter]


class Engine:
    """A base, a bank of slots, and the pictures in the making. Close it, or use it in a `with`.

    Args:
        load: key -> adapter; called on a loader thread; what it raises is the error of the requests that wait for it.
        slots: of the bank, slot 0 (the bare base) included.
        rank: the largest an adapter may have.
        max_batch: guided pictures in one forward, two rows each; one that is not guided is one row.
        host_bytes: of adapters kept in host memory.
        queue_limit: requests that may wait.
        clock: seconds; for deadlines and latencies.
    """

    def __init__(
        self, base: BaseModel, *, load: Load, slots: int = 8, rank: int = 8, max_batch: int = 8,
        host_bytes: int = HOST_BYTES, queue_limit: int = 256, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        for name, got in {"max_batch": max_batch, "host_bytes": host_bytes, "queue_limit": queue_limit}.items():
            if got < 1:
                raise UsageError(f"expected {name} of at least 1, got {got}")
        self.base = base
        with memory_for(f"{slots} slots of rank {rank}", hint="set LIKENESS_SLOTS or LIKENESS_RANK lower"):
            self.bank = LoraBank(base.networks, base.family.targets, slots=slots, rank=rank)
        self._negative_scale = base.family.negative_scale
        self._writer = SlotWriter(self.bank)
        self._device = Device(base, self.bank, limits=measured_limits(base, self.bank, max_batch=max_batch))
        self._clock, self._ids = clock, itertools.count(1)
        self._queue = RequestQueue(
            lambda key: pack(load(key), self.bank, base.sha256),
            slots=slots, host_bytes=host_bytes, limit=queue_limit, clock=clock,
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
        self, request: ImageRequest, *, key: str | None, tenant: str = "local", deadline_s: float | None = None,
        watch: Watch | None = None, preview_every: int = 0, request_id: str | None = None,
    ) -> Ticket:  # fmt: skip
        """Put one request in the queue and return at once; its adapter is fetched meanwhile.

        Args:
            key: what `load` is told; None = the bare base. `request.adapter` is only a label here.
            tenant: tenants take turns.
            deadline_s: from now; a request that cannot be finished by then is refused or dropped.
            watch: told each step, on the device's thread: it must not block.
            preview_every: steps between two events with a preview, each of which costs a decoding; 0 = none.
            request_id: for the log and the ticket; else one is made up.

        Raises:
            EngineBusy: the queue is full or the deadline out of reach; says when to try again.
            EngineClosed: after `close`.
            UsageError: a value out of its range, an unknown sampler.
        """
        return self._submit(
            request, key, tenant=tenant, deadline_s=deadline_s, watch=watch, preview_every=preview_every,
            request_id=request_id,
        )  # fmt: skip

    def generate(
        self, requests: Sequence[ImageRequest], *, progress: Callable[[int], None] = lambda done: None
    ) -> list[GeneratedImage]:
        """Make every picture and wait for them; the result is in the order of `requests`.

        The key of an adapter is its name in the request. When one request fails the others are taken back.

        Args:
            progress: called on this thread with the number of finished pictures whenever it grows.

        Raises:
            LikenessError: of the first request that failed, as `submit` and `Ticket.result`, and what `load` raises.
        """
        for request in requests:
            _check(request)
        tickets: list[Ticket] = []
        finished: SimpleQueue[Ticket] = SimpleQueue()
        try:
            for request in requests:
                tickets.append(self._submit(request, request.adapter, may_wait=True))
                tickets[-1].add_done_callback(finished.put)
            for done in range(1, len(tickets) + 1):
                finished.get().result()
                progress(done)
        finally:
            for ticket in tickets:
                ticket.cancel()
        return [ticket.result() for ticket in tickets]

    def forget(self, key: str) -> None:
        """Drop an adapter from memory: pictures in the making are finished, then its slot is wiped."""
        self._queue.forget(key)

    def held(self) -> frozenset[str]:
        """Keys of the adapters in memory."""
        return self._queue.held()

    def facts(self) -> EngineFacts:
        """Counters, occupancies and histograms of this moment."""
        return self._queue.facts()

    def close(self) -> None:
        """Fail what waits or runs with EngineClosed, end all threads, and leave the base as it was.

        Not from a callback: those run on the threads that are waited for.
        """
        self._queue.close()
        self._thread.join()
        self._queue.close_loads()
        self.bank.close()

    def _submit(
        self, request: ImageRequest, key: str | None, *, tenant: str = "local", deadline_s: float | None = None,
        watch: Watch | None = None, preview_every: int = 0, request_id: str | None = None, may_wait: bool = False,
    ) -> Ticket:  # fmt: skip
        _check(request)
        if request.negative_scale is None:
            request = replace(request, negative_scale=self._negative_scale)
        number, now_s = next(self._ids), self._clock()
        ticket = Ticket(request_id or uuid.uuid4().hex[:16], lambda: self._queue.cancel(number))
        deadline = None if deadline_s is None else now_s + deadline_s
        work = Work(number, ticket, request, key, tenant, now_s, deadline, watch, preview_every)
        self._queue.put(work, wait=may_wait)
        return ticket

    # the device thread

    def _run(self) -> None:
        try:
            while (turn := self._queue.next_turn(self._device.rows.now)) is not None:
                try:
                    self._take(turn)
                except Exception as error:  # unforeseen: its pictures fail, and the next ones are made
                    if not turn.running:
                        raise  # nothing would end the next turn, which would be the same
                    log.critical("a turn of the device thread failed", exc_info=error)
                    self._queue.abandon(turn, DeviceFailed(f"the device failed ({type(error).__name__})"))
        except BaseException as error:  # nobody may wait for a thread that is gone
            log.critical("the device thread ended", exc_info=error)
            self._queue.close(DeviceFailed(f"the device thread ended ({type(error).__name__})"))

    def _take(self, turn: Turn) -> None:
        started_s = time.perf_counter()
        for slot in turn.wipes:
            self._writer.wipe(slot)
        outcomes = self._begin(turn)
        failed = {id(work) for work, _ in outcomes}
        works = [work for work in turn.running if id(work) not in failed]
        pictures = [picture for work in works if (picture := work.picture) is not None]
        errors = self._device.advance(pictures) if pictures else []
        alive: list[tuple[Work, Denoising]] = []
        for work, picture, error in zip(works, pictures, errors, strict=True):
            if error is None:
                alive.append((work, picture))
            else:
                outcomes.append((work, error))
        self._queue.count_first_steps([work for work, picture in alive if picture.step == 1])
        self._tell(alive)
        outcomes += self._finish([(work, picture) for work, picture in alive if picture.latent is not None])
        rows = sum(work.rows for work, _ in alive)
        self._queue.end_turn(outcomes, rows=rows, seconds=time.perf_counter() - started_s)

    def _begin(self, turn: Turn) -> list[tuple[Work, Outcome]]:
        """Write the slots and start the pictures that join; the failures."""
        outcomes: list[tuple[Work, Outcome]] = []
        for slot, packed in turn.writes:
            try:
                self._writer.write(slot, packed)
            except Exception as error:
                log.error("a slot could not be written", exc_info=error)
                self._queue.unload(slot)
                failure = DeviceFailed(f"the adapter could not be put into its slot ({type(error).__name__})")
                outcomes += [(work, failure) for work in turn.joins if work.slot == slot]
        failed = {id(work) for work, _ in outcomes}
        joins = [work for work in turn.joins if id(work) not in failed]
        for work in joins:
            work.ticket.start()
        for work, begun in zip(joins, self._device.begin([work.order for work in joins]), strict=True):
            if isinstance(begun, Exception):
                outcomes.append((work, begun))
            else:
                work.picture = begun
        return outcomes

    def _tell(self, alive: Sequence[tuple[Work, Denoising]]) -> None:
        """Events of the step, with previews for those who asked for one at this step."""
        shown = [
            (work, picture.clean) for work, picture in alive
            if work.watch is not None and work.preview_every and picture.step % work.preview_every == 0
            and picture.clean is not None and picture.latent is None
        ]  # fmt: skip
        decoded = self._device.decode([clean for _, clean in shown]) if shown else []
        previews = {id(work): image for (work, _), image in zip(shown, decoded, strict=True)}
        for work, picture in alive:
            if work.watch is None:
                continue
            image = previews.get(id(work))
            preview = None if image is None or isinstance(image, Exception) else small(image)
            try:
                work.watch(StepEvent(picture.step, work.request.steps, preview))
            except Exception as error:  # whoever watches must not harm who is watched
                log.error("the watcher of request %s failed and is told no more", work.ticket.id, exc_info=error)
                work.watch = None

    def _finish(self, finished: Sequence[tuple[Work, Denoising]]) -> list[tuple[Work, Outcome]]:
        latents = [picture.latent for _, picture in finished if picture.latent is not None]
        if not latents:
            return []
        now_s = self._clock()
        return [
            (
                work,
                image
                if isinstance(image, Exception)
                else GeneratedImage(work.request, image, self.base.sha256, work.adapter_sha256, now_s - work.joined_s),
            )
            for (work, _), image in zip(finished, self._device.decode(latents), strict=True)
        ]


def _check(request: ImageRequest) -> None:
    check_request(request)
    sampler_named(request.sampler)
