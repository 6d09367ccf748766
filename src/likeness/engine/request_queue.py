"""The engine's shared state: which requests wait or run, and which adapters are in slots or host memory. One lock.

Callers submit and cancel requests, loader threads deliver adapters, the device thread takes its next turn. `batcher`
decides what joins; no tensor is touched here. Tickets are resolved after the lock is released, so that a callback may
submit again.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Condition, Lock

from ..errors import EngineBusy, EngineClosed, LikenessError, RequestCancelled, UsageError
from ..storage.device_turns import EngineTurns
from ..types import GeneratedImage
from .batcher import Shares, cost, expected_wait_s, is_out_of_reach, plan, retry_after_s
from .facts import EngineFacts, Tally
from .host_cache import HostCache
from .packed import PackedAdapter
from .slot_cache import SlotCache
from .turn import Turn, Work

log = logging.getLogger("likeness.engine")


class RequestQueue:
    """Requests and adapters of one engine.

    Args:
        load: key -> adapter, called on loader threads.
        slots: of the bank, slot 0 included.
        host_bytes: of adapters in host memory.
        limit: requests that may wait.
        turns: called when the first request arrives and when the last one leaves.
        clock: seconds; of deadlines and of the histograms.
    """

    def __init__(
        self, load: Callable[[str], PackedAdapter], *, slots: int, host_bytes: int, limit: int,
        turns: EngineTurns | None = None, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._changed = Condition(Lock())
        self._settled: list[tuple[Work, GeneratedImage | Exception]] = []  # tickets to resolve without the lock
        self._waiting: dict[int, Work] = {}  # in the order of arrival
        self._running: dict[int, Work] = {}
        self._shares, self._row_limit = Shares(), 1
        self._limit, self._clock, self._turns = limit, clock, turns
        self._closed: LikenessError | None = None
        self._slot_count, self._slots = slots - 1, SlotCache(slots)
        self._sha256_in: dict[int, str] = {}  # slot -> of its adapter
        self._wipes: list[int] = []
        self._tally = Tally()
        self._host = HostCache(
            load, self._locked, budget_bytes=host_bytes, is_active=self._slots.__contains__, first=self._first_keys,
            failed=self._fail_key, loaded=self._tally.load_s.observe,
        )  # fmt: skip

    # callers' threads

    def put(self, work: Work, *, wait: bool = False) -> None:
        """Add a request to the queue and start to load its adapters.

        Args:
            wait: block until there is room instead of refusing.

        Raises:
            UsageError: more adapters than slots.
            EngineBusy: the queue is full, or the deadline cannot be met.
            EngineClosed: the engine is shutting down.
        """
        if len(work.keys) > self._slot_count:
            raise UsageError(
                f"expected at most {self._slot_count} adapters in an image, one a slot, got {len(work.keys)}",
                hint="use fewer adapters, or set LIKENESS_SLOTS higher",
                param="adapter",
            )
        with self._locked():
            while wait and self._closed is None and len(self._waiting) >= self._limit:
                self._changed.wait()
            if self._closed is not None:
                raise self._closed
            self._refuse_if_late(work)
            self._waiting[work.id] = work
            if self._turns is not None:
                self._turns.want()
            for key in work.keys:
                is_here = key in self._slots or key in self._host
                self._tally.host_hits += is_here
                self._tally.host_misses += not is_here
                self._host.want(key)

    def cancel(self, id: int) -> None:
        """Cancel a request: at once if it waits, at the next step if it runs; no effect once it is done."""
        with self._locked():
            if id in self._waiting:
                self._settle(self._waiting[id], RequestCancelled("the request was cancelled while it waited"))
            elif id in self._running:
                self._running[id].is_cancelled = True

    def forget(self, key: str) -> None:
        """Drop an adapter from host memory at once, from its slot once no running request needs it."""
        with self._locked():
            slot = self._slots.forget(key)
            if slot is not None:
                self._wipes.append(slot)
            self._host.forget(key)

    def held(self) -> frozenset[str]:
        """Keys of the adapters in slots or host memory."""
        with self._locked():
            return frozenset((*self._slots.held, *self._host.held))

    def facts(self) -> EngineFacts:
        with self._locked():
            tally = self._tally
            return EngineFacts(
                waiting=len(self._waiting), running=len(self._running),
                rows=sum(work.rows for work in self._running.values()), row_limit=self._row_limit,
                slots=self._slot_count, slots_held=len(self._slots.held), slots_pinned=self._slots.pinned,
                host_adapters=len(self._host), host_bytes=self._host.nbytes,
                slot_hits=tally.slot_hits, slot_misses=tally.slot_misses, slot_evictions=self._slots.evictions,
                host_hits=tally.host_hits, host_misses=tally.host_misses, host_evictions=self._host.evictions,
                images=tally.images, refused=tally.refused, cancelled=tally.cancelled,
                failures=tally.failures_now(), row_steps_per_s=tally.row_steps_per_s,
                load_s=tally.load_s.snapshot(), rows_per_step=tally.rows_per_step.snapshot(),
                queue_s=tally.queue_s.snapshot(), first_step_s=tally.first_step_s.snapshot(),
                total_s=tally.total_s.snapshot(),
            )  # fmt: skip

    def close(self, reason: LikenessError | None = None) -> None:
        """Refuse new requests, fail those that wait or run, and end the device thread."""
        with self._locked():
            self._closed = self._closed or reason or EngineClosed("the engine is shutting down")
            for work in [*self._waiting.values(), *self._running.values()]:
                self._settle(work, self._closed)

    def close_loads(self) -> None:
        """Wait for the loads under way."""
        self._host.close()

    # the device thread

    def next_turn(self, row_limit: int) -> Turn | None:
        """Wait until there is something to do; None once the engine is closed."""
        while True:
            with self._locked():
                if self._closed is not None:
                    return None
                self._row_limit = row_limit
                turn = self._turn()
                if turn.running or turn.wipes:
                    return turn
                if not self._settled:
                    self._changed.wait(self._until_deadline_s())

    def end_turn(self, outcomes: Mapping[Work, GeneratedImage | Exception], *, rows: int, seconds: float) -> None:
        """The turn took `seconds` for `rows` rows; the requests in `outcomes` are finished or failed."""
        with self._locked():
            if rows:
                self._tally.turn(rows, seconds)
            for work, outcome in outcomes.items():
                if work.id in self._running:  # else the engine was closed meanwhile
                    self._settle(work, outcome)

    def abandon(self, turn: Turn, error: Exception) -> None:
        """The turn broke off at an unknown step: its requests fail, and the slots that it was to write are emptied."""
        with self._locked():
            for slot, _ in turn.writes:
                self._unload(slot)
            for work in turn.running:
                if work.id in self._running:
                    self._settle(work, error)
            self._wipes = [*turn.wipes, *self._wipes]

    def unload(self, slot: int) -> None:
        """Writing a slot failed: it no longer counts as holding the adapter."""
        with self._locked():
            self._unload(slot)

    def count_first_steps(self, works: Sequence[Work]) -> None:
        """The first denoising step of `works` is done."""
        with self._locked():
            for work in works:
                self._tally.first_step_s.observe(self._clock() - work.arrived_s)

    # with the lock held

    @contextmanager
    def _locked(self) -> Iterator[None]:
        settled: list[tuple[Work, GeneratedImage | Exception]] = []
        try:
            with self._changed:
                try:
                    yield
                finally:
                    settled, self._settled = self._settled, []
                    self._changed.notify_all()
        finally:
            for work, outcome in settled:
                work.ticket.resolve(outcome)

    def _unload(self, slot: int) -> None:
        for key in [key for key in self._slots.held if self._slots.slot_of(key) == slot]:
            self._slots.forget(key)

    def _refuse_if_late(self, work: Work) -> None:
        ahead: Counter[str] = Counter()
        for other in (*self._waiting.values(), *self._running.values()):
            ahead[other.tenant] += cost(other)
        rate = self._tally.row_steps_per_s
        again_s = retry_after_s(ahead.total(), rate=rate)
        if len(self._waiting) >= self._limit:
            self._tally.refused += 1
            raise EngineBusy(f"the queue is full: {self._limit} requests wait", retry_after_s=again_s)
        if work.deadline_s is not None:
            # an idle engine accepts every deadline: its measured throughput may be old
            rows = sum(other.rows for other in self._running.values())
            is_full = bool(self._waiting) or (rows > 0 and rows + work.rows > self._row_limit)
            wait_s = expected_wait_s(ahead, work.tenant, rate=rate)
            own_s = work.steps * (self._tally.turn_s or 0.0)
            if is_full and is_out_of_reach(wait_s + own_s, work.deadline_s - work.arrived_s):
                self._tally.refused += 1
                raise EngineBusy("the queue is too long for this deadline", retry_after_s=again_s)

    def _turn(self) -> Turn:
        for work in [work for work in self._running.values() if work.is_cancelled]:
            self._settle(work, RequestCancelled("the request was cancelled"))
        now_s = self._clock()
        planned = plan(
            list(self._waiting.values()), list(self._running.values()), self._shares, row_limit=self._row_limit,
            slots=self._slots.usable, now_s=now_s, loading=self._loading(),
        )  # fmt: skip
        self._shares = planned.shares
        for work in planned.expired:
            left = sum(cost(other) for other in (*self._waiting.values(), *self._running.values()))
            again_s = retry_after_s(left, rate=self._tally.row_steps_per_s)
            late = EngineBusy(
                "the deadline passed before the image was finished", retry_after_s=again_s, code="DeadlinePassed"
            )
            self._settle(work, late)
        writes: list[tuple[int, PackedAdapter]] = []
        # requests whose adapters are in slots first: they pin these slots, so that the others do not evict them
        for work in sorted(planned.joins, key=lambda work: any(key not in self._slots for key in work.keys)):
            self._join(work, writes, now_s)
        self._host.start_loads()  # an adapter that waiting requests need may have been evicted from its slot
        # images of the same adapters side by side: the bank fetches their factors once for all of them
        running = tuple(sorted(self._running.values(), key=lambda work: work.slots))
        wipes, self._wipes = tuple(self._wipes), []
        return Turn(wipes, tuple(writes), tuple(work for work in running if work.denoising is None), running)

    def _join(self, work: Work, writes: list[tuple[int, PackedAdapter]], now_s: float) -> None:
        absent = {key: self._host.get(key) for key in work.keys if key not in self._slots}
        packed = {key: one for key, one in absent.items() if one is not None}
        large = [key for key, one in packed.items() if one.is_large]
        slots = self._slots.acquire(work.keys, large=large) if len(packed) == len(absent) else None
        if slots is None:
            return  # a request that joined in this turn took the last slot; this one waits on
        self._tally.slot_hits += len(work.keys) - len(packed)
        self._tally.slot_misses += len(packed)
        for key, slot in zip(work.keys, slots, strict=True):
            if key in packed:
                writes.append((slot, packed[key]))
                self._sha256_in[slot] = packed[key].content_sha256
            self._host.unwant(key)
        work.slots, work.adapter_sha256 = slots, "+".join(self._sha256_in[slot] for slot in slots) or None
        del self._waiting[work.id]
        self._running[work.id] = work
        work.joined_s = now_s
        self._tally.queue_s.observe(now_s - work.arrived_s)
        log.info("request %s joined the batch, %d rows", work.ticket.id, work.rows)

    def _settle(self, work: Work, outcome: GeneratedImage | Exception) -> None:
        """The one place where a request ends, with any outcome."""
        if self._waiting.pop(work.id, None) is not None:
            for key in work.keys:
                self._host.unwant(key)
        else:
            del self._running[work.id]
            self._wipes += [slot for slot in work.slots if self._slots.release(slot)]
        if self._turns is not None and not self._waiting and not self._running:
            self._turns.release()
        self._settled.append((work, outcome))
        if isinstance(outcome, GeneratedImage):
            self._tally.images += 1
            self._tally.total_s.observe(self._clock() - work.arrived_s)
            log.info("request %s done in %.3f s", work.ticket.id, self._clock() - work.arrived_s)
            return
        code = outcome.code if isinstance(outcome, LikenessError) else type(outcome).__name__
        if isinstance(outcome, RequestCancelled):
            self._tally.cancelled += 1
        else:
            self._tally.failures[code] += 1
        level = logging.INFO if isinstance(outcome, LikenessError) else logging.WARNING
        log.log(level, "request %s ended: %s", work.ticket.id, code)

    def _fail_key(self, key: str, error: Exception) -> None:
        for work in [work for work in self._waiting.values() if key in work.keys]:
            self._settle(work, error)

    def _loading(self) -> set[str]:
        keys = {key for work in self._waiting.values() for key in work.keys}
        return {key for key in keys if key not in self._slots and key not in self._host}

    def _first_keys(self) -> tuple[str, ...]:
        return next((work.keys for work in self._waiting.values() if work.keys), ())

    def _until_deadline_s(self) -> float | None:
        deadlines = [work.deadline_s for work in self._waiting.values() if work.deadline_s is not None]
        return max(0.0, min(deadlines) - self._clock()) if deadlines else None
