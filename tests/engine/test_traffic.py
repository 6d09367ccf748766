"""Requests that come, go, wait and fail, on a real engine: nobody hangs, and nobody is disturbed by another."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fixtures.people import RANK, Store, of_another_base
from fixtures.waiting import HANG_S
from fixtures.weights import resident_sha256
from likeness.diffusion import sampling
from likeness.diffusion.base import BaseModel
from likeness.diffusion.sampling import completed
from likeness.engine.engine import Engine
from likeness.engine.ticket import StepEvent, Ticket
from likeness.errors import DeviceFailed, EngineBusy, EngineClosed, LikenessError, Mismatch, NotFound, RequestCancelled
from likeness.types import Adapter, ImageRequest, blend_of

SHORT = ImageRequest("photo of person", steps=2, guidance_scale=1.0)
ENDLESS = replace(SHORT, steps=200)
Open = Callable[..., Engine]
ADVANCE = "likeness.engine.device.advance"


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def store(people: dict[str, Adapter]) -> Store:
    return Store(people)


@pytest.fixture
def opened(tiny_base: BaseModel, store: Store) -> Iterator[Open]:
    engines: list[Engine] = []

    def build(**options: Any) -> Engine:
        engines.append(Engine(tiny_base, load=store, rank=RANK, **options))
        return engines[-1]

    yield build
    for engine in engines:
        engine.close()
    names = {thread.name for thread in threading.enumerate()}
    assert not [name for name in names if name.startswith("likeness-")]


def started(engine: Engine, request: ImageRequest, *, key: str | None = None, **options: Any) -> Ticket:
    """Submit, and return once the first step is done."""
    first = threading.Event()
    ticket = engine.submit(request, adapters=blend_of(key), on_step=lambda _: first.set(), **options)
    assert first.wait(HANG_S)
    return ticket


def test_a_request_joins_a_running_batch_and_leaves_it(opened: Open) -> None:
    engine = opened()
    long = started(engine, ENDLESS)
    short = engine.submit(SHORT, adapters=blend_of("anna")).result(HANG_S)
    assert short.adapter_sha256 is not None
    assert not long.done
    long.cancel()
    with pytest.raises(RequestCancelled):
        long.result(HANG_S)
    assert engine.facts().running == 0
    assert engine.facts().cancelled == 1


def test_one_load_for_all_who_wait_and_none_for_those_who_come_later(opened: Open, store: Store) -> None:
    engine = opened()
    gate = store.close_gate("anna")
    tickets = [engine.submit(replace(SHORT, seed=k), adapters=blend_of("anna")) for k in range(5)]
    gate.set()
    assert all(ticket.result(HANG_S).adapter_sha256 for ticket in tickets)
    engine.submit(SHORT, adapters=blend_of("anna")).result(HANG_S)
    assert store.loads["anna"] == 1
    facts = engine.facts()
    assert (facts.slot_misses, facts.slot_hits, facts.load_s.count, facts.images) == (1, 5, 1, 6)


def test_who_waits_for_an_adapter_holds_up_nobody(opened: Open, store: Store) -> None:
    engine = opened(max_batch=1)
    gate = store.close_gate("anna")
    slow = engine.submit(SHORT, adapters=blend_of("anna"))
    for key in ("bert", None, "cleo"):
        engine.submit(SHORT, adapters=blend_of(key)).result(HANG_S)
    assert not slow.done
    gate.set()
    slow.result(HANG_S)


def test_an_adapter_that_fails_fails_its_own_requests_only(
    opened: Open, store: Store, people: dict[str, Adapter]
) -> None:
    store.adapters["stranger"] = of_another_base(people["anna"])
    engine = opened()
    good = started(engine, replace(ENDLESS, steps=30), key="anna")
    missing = [engine.submit(SHORT, adapters=blend_of("nobody")) for _ in range(2)]
    stranger = engine.submit(SHORT, adapters=blend_of("stranger"))
    for ticket in missing:
        with pytest.raises(NotFound):
            ticket.result(HANG_S)
    with pytest.raises(Mismatch):
        stranger.result(HANG_S)
    good.result(HANG_S)
    assert engine.facts().failures == {"AdapterNotFound": 2, "WrongBase": 1}
    store.adapters["nobody"] = people["bert"]  # a failure is not remembered
    engine.submit(SHORT, adapters=blend_of("nobody")).result(HANG_S)


def test_more_adapters_than_slots_and_host_memory(opened: Open, store: Store) -> None:
    engine = opened(slots=3, host_bytes=1)
    keys = [*store.adapters] * 3
    tickets = [engine.submit(replace(SHORT, seed=k), adapters=blend_of(key)) for k, key in enumerate(keys)]
    shas = [ticket.result(HANG_S).adapter_sha256 for ticket in tickets]
    assert shas == [store.adapters[key].card.content_sha256 for key in keys]
    facts = engine.facts()
    assert facts.slots_held <= 2
    assert facts.slots_pinned == facts.host_bytes == facts.host_adapters == 0
    assert facts.slot_evictions > 0 < facts.host_evictions


def test_a_full_queue_refuses_and_says_when_to_come_again(opened: Open, store: Store) -> None:
    engine = opened(queue_limit=2)
    gate = store.close_gate("anna")
    waiting = [engine.submit(SHORT, adapters=blend_of("anna")) for _ in range(2)]
    with pytest.raises(EngineBusy) as refusal:
        engine.submit(SHORT)
    assert 1.0 <= refusal.value.retry_after_s <= 60.0
    assert refusal.value.http_status == 503
    waiting[0].cancel()  # makes room at once
    with pytest.raises(RequestCancelled):
        waiting[0].result(0)
    engine.submit(SHORT).result(HANG_S)
    gate.set()
    waiting[1].result(HANG_S)
    assert (engine.facts().refused, engine.facts().waiting) == (1, 0)


def test_what_is_too_late_is_dropped_in_the_queue_and_in_the_batch(opened: Open, store: Store) -> None:
    clock = Clock()
    engine = opened(clock=clock)
    running = started(engine, ENDLESS, deadline_s=10.0)
    gate = store.close_gate("anna")
    waiting = engine.submit(SHORT, adapters=blend_of("anna"), deadline_s=10.0)
    clock.now_s = 11.0
    for ticket in (running, waiting):
        with pytest.raises(EngineBusy):
            ticket.result(HANG_S)
    gate.set()
    engine.submit(SHORT, adapters=blend_of("anna"), deadline_s=10.0).result(HANG_S)


def test_a_deadline_wakes_an_idle_engine(opened: Open, store: Store) -> None:
    engine = opened()
    gate = store.close_gate("anna")
    waiting = engine.submit(SHORT, adapters=blend_of("anna"), deadline_s=0.05)
    with pytest.raises(EngineBusy):
        waiting.result(HANG_S)
    gate.set()


def test_a_deadline_out_of_reach_is_refused_at_the_door(opened: Open) -> None:
    engine = opened(max_batch=1)
    engine.submit(SHORT, deadline_s=1e9).result(HANG_S)  # the throughput is known from now on
    long = started(engine, replace(ENDLESS, guidance_scale=3.0))
    with pytest.raises(EngineBusy):
        engine.submit(ENDLESS, deadline_s=1e-6)
    engine.submit(SHORT, deadline_s=1e9)
    long.cancel()


def test_a_forgotten_adapter_is_gone_from_memory(opened: Open, store: Store) -> None:
    engine = opened()
    picture = started(engine, replace(ENDLESS, steps=40), key="anna")
    engine.submit(SHORT, adapters=blend_of("bert")).result(HANG_S)
    engine.forget("anna")
    engine.forget("bert")
    del store.adapters["anna"]
    with pytest.raises(NotFound):
        engine.submit(SHORT, adapters=blend_of("anna")).result(HANG_S)
    picture.result(HANG_S)  # in the making: finished
    engine.submit(SHORT).result(HANG_S)  # a step later
    assert not engine.banks.usual.flat.any()
    assert engine.facts().host_bytes == engine.facts().slots_held == 0


def test_what_is_being_loaded_when_it_is_forgotten_is_loaded_again(opened: Open, store: Store) -> None:
    engine = opened()
    gate = store.close_gate("anna")
    ticket = engine.submit(SHORT, adapters=blend_of("anna"))
    engine.forget("anna")
    del store.adapters["anna"]
    gate.set()
    with pytest.raises(NotFound):
        ticket.result(HANG_S)


def test_events_and_previews(opened: Open) -> None:
    events: list[StepEvent] = []
    opened().submit(replace(SHORT, steps=5), on_step=events.append, preview_every=2).result(HANG_S)
    assert [(event.step, event.steps) for event in events] == [(k, 5) for k in range(1, 6)]
    assert [event.preview is not None for event in events] == [False, True, False, True, False]
    assert events[1].preview is not None and events[1].preview.shape == (128, 128, 3)


def test_a_callback_that_fails_harms_no_request(opened: Open) -> None:
    def fail(event: StepEvent) -> None:
        raise ValueError("mine")

    engine = opened()
    tickets = [engine.submit(SHORT, on_step=fail), engine.submit(SHORT)]
    made = completed(engine.base, SHORT)
    assert [ticket.result(HANG_S).request for ticket in tickets] == [made, made]


def test_a_callback_may_submit_again(opened: Open) -> None:
    engine = opened()
    second: list[Ticket] = []
    called = threading.Event()

    def again(ticket: Ticket) -> None:
        second.append(engine.submit(SHORT))
        called.set()

    engine.submit(SHORT).add_done_callback(again)
    assert called.wait(HANG_S)
    second[0].result(HANG_S)


def test_closing_tells_everybody(opened: Open, store: Store) -> None:
    engine = opened()
    running = started(engine, ENDLESS)
    gate = store.close_gate("anna")
    waiting = engine.submit(SHORT, adapters=blend_of("anna"))
    threading.Timer(0.05, gate.set).start()
    engine.close()
    for ticket in (running, waiting):
        with pytest.raises(EngineClosed):
            ticket.result(HANG_S)
    with pytest.raises(EngineClosed):
        engine.submit(SHORT)
    engine.close()


def test_out_of_memory_makes_smaller_steps(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened()
    requests = [replace(SHORT, seed=k, steps=4) for k in range(6)]
    expected = engine.generate(requests)
    real, sizes = sampling.advance, []

    def advance(base: object, bank: object, pictures: list[object]) -> None:
        if len(pictures) > 2:
            raise torch.OutOfMemoryError("no room")
        sizes.append(len(pictures))
        real(base, bank, pictures)  # type: ignore[arg-type]

    monkeypatch.setattr(ADVANCE, advance)
    got = engine.generate(requests)
    assert all(np.abs(a.image.astype(int) - b.image).max() <= 1 for a, b in zip(got, expected, strict=True))
    assert max(sizes) == 2 or engine.facts().row_limit == 1
    assert engine.facts().row_limit < 16

    monkeypatch.setattr(ADVANCE, lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("none at all")))
    with pytest.raises(DeviceFailed, match="no memory"):
        engine.submit(SHORT).result(HANG_S)
    monkeypatch.setattr(ADVANCE, real)
    engine.submit(SHORT).result(HANG_S)


def test_a_picture_that_breaks_the_device_breaks_alone(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sampling.advance

    def advance(base: object, bank: object, pictures: list[Any]) -> None:
        if any(picture.guidance_scale == 7.0 for picture in pictures):
            raise RuntimeError("secret words of a prompt")
        real(base, bank, pictures)  # type: ignore[arg-type]

    monkeypatch.setattr(ADVANCE, advance)
    engine = opened()
    good = started(engine, replace(ENDLESS, steps=40), key="anna")
    bad = engine.submit(replace(SHORT, guidance_scale=7.0), adapters=blend_of("anna"))
    with pytest.raises(DeviceFailed) as failure:
        bad.result(HANG_S)
    assert "secret" not in str(failure.value)
    good.result(HANG_S)


def break_turns(monkeypatch: pytest.MonkeyPatch, breaks: list[BaseException]) -> None:
    """Each of these errors ends a turn of the engine at its start, before a slot is written."""

    def look() -> float:
        if breaks:
            raise breaks.pop()
        return time.perf_counter()

    monkeypatch.setattr("likeness.engine.engine.time", SimpleNamespace(perf_counter=look))


def test_a_turn_that_breaks_off_fails_its_pictures_and_the_next_ones_are_made(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(slots=2)
    wanted = {key: engine.submit(SHORT, adapters=blend_of(key)).result(HANG_S) for key in ("anna", "bert")}
    breaks: list[BaseException] = []
    break_turns(monkeypatch, breaks)
    for _ in range(2):
        breaks.append(SystemError("a bug"))
        with pytest.raises(DeviceFailed):
            engine.submit(SHORT, adapters=blend_of("anna")).result(HANG_S)
        for key, image in wanted.items():  # not with what lay in the slot before
            assert np.array_equal(engine.submit(SHORT, adapters=blend_of(key)).result(HANG_S).image, image.image)


def test_a_device_thread_that_ends_leaves_nobody_waiting(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened()
    break_turns(monkeypatch, [SystemExit("a bug")])
    with pytest.raises(DeviceFailed):
        engine.submit(SHORT).result(HANG_S)
    with pytest.raises(DeviceFailed):
        engine.submit(SHORT)


def test_nothing_of_a_prompt_is_logged(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    engine = opened()
    ticket = engine.submit(replace(SHORT, prompt="my secret"), adapters=blend_of("anna"), request_id="r-1")
    ticket.result(HANG_S)
    assert ticket.id == "r-1"
    assert sum("r-1" in record.getMessage() for record in caplog.records) >= 2
    assert "secret" not in caplog.text


def test_the_base_is_never_written(opened: Open, tiny_base: BaseModel, store: Store) -> None:
    before = resident_sha256(tiny_base)
    engine = opened(slots=2)
    for k in range(12):
        engine.submit(replace(SHORT, steps=1), adapters=blend_of(list(store.adapters)[k % 6])).result(HANG_S)
    assert engine.facts().slot_misses == 12
    assert resident_sha256(tiny_base) == before
    parameter = next(tiny_base.networks["unet"].parameters())
    parameter.view(-1)[0] += 1
    assert resident_sha256(tiny_base) != before  # or the line above says nothing
    parameter.view(-1)[0] -= 1


def test_facts_add_up(opened: Open) -> None:
    engine = opened(max_batch=2)
    engine.generate([replace(SHORT, seed=k, guidance_scale=3.0) for k in range(6)])
    facts = engine.facts()
    assert (facts.images, facts.waiting, facts.running, facts.rows, facts.row_limit) == (6, 0, 0, 0, 4)
    assert facts.queue_s.count == facts.first_step_s.count == facts.total_s.count == 6
    assert facts.rows_per_step.sum == 6 * 2 * 2
    assert facts.row_steps_per_s is not None and facts.row_steps_per_s > 0


def test_an_error_of_one_takes_the_others_back(opened: Open) -> None:
    engine = opened(max_batch=1)
    with pytest.raises(LikenessError):
        engine.generate([replace(SHORT, adapters=blend_of("nobody")), *[replace(ENDLESS, seed=k) for k in range(3)]])
    engine.submit(SHORT).result(HANG_S)
    assert engine.facts().running == engine.facts().waiting == 0
