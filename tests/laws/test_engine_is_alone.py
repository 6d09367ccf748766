"""An image made in a batch equals the image made alone, whatever requests join, leave or fail meanwhile.

Compared before rounding to 8 bits. Random networks can amplify float32 rounding within a few steps, so they use float64
here; the built-in base, whose networks are trained, uses float32 as in production.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fixtures.people import RANK, Store, person
from fixtures.pixels import RecordingBase, difference, recording
from fixtures.tiny import random_row
from fixtures.waiting import HANG_S
from likeness.diffusion.base import load_base
from likeness.diffusion.family import KLEIN_BASE_4B, SD_15
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.sampling import AdapterSlot, denoise_all
from likeness.engine.engine import Engine
from likeness.errors import NotFound, RequestCancelled, UsageError
from likeness.types import Blend, ImageRequest, WeightedAdapter, blend_of

SAME = 1e-5  # of the [0, 1] range of a picture
NAMES = ("anna", "bert", "cleo")


@dataclass(eq=False, repr=False)  # hypothesis would print the networks
class World:
    """A base, three people, and each request's picture alone, made once."""

    base: RecordingBase
    store: Store
    alone: dict[ImageRequest, NDArray[np.float64]] = field(default_factory=dict)

    def solo(self, request: ImageRequest) -> NDArray[np.float64]:
        if request not in self.alone:
            with Engine(self.base, load=self.store, slots=3, rank=RANK, max_batch=1) as engine:
                self.alone[request] = self.base.pixels_of(engine.generate([request])[0])
        return self.alone[request]


def world_of(base: RecordingBase, strength: float) -> World:
    people = {name: person(base, name, seed, strength=strength) for seed, name in enumerate(NAMES, 1)}
    return World(base, Store(people))


@pytest.fixture(scope="module")
def world(contrasted_base_folder: Path) -> Iterator[World]:
    base = load_base(str(contrasted_base_folder), device=torch.device("cpu"), dtype=torch.float64)
    base = replace(base, family=replace(base.family, sizes=SD_15.sizes))
    with recording(base) as recorder:
        yield world_of(recorder, 1.0)


SIZES: list[tuple[int | None, int | None]] = [(None, None), (128, 128), (128, 192), (192, 128)]
BLENDS: list[Blend] = [blend_of(text) for text in (*NAMES, None, "anna+bert@0.5", "cleo@0.3+anna")]
_SQUARES = st.builds(
    ImageRequest,
    st.sampled_from(["photo of <<TOK>> person", "portrait of a man in the snow"]),
    st.sampled_from(BLENDS),
    seed=st.integers(0, 3),
    steps=st.integers(1, 4),
    guidance_scale=st.sampled_from([1.0, 3.0]),
    adapter_scale=st.sampled_from([1.0, 0.5]),
    negative_scale=st.sampled_from([None, 0.0, 0.5, 1.0]),
    sampler=st.sampled_from(["ddim", "euler", "dpmpp_2m"]),
)
REQUESTS = st.builds(lambda one, size: replace(one, width=size[0], height=size[1]), _SQUARES, st.sampled_from(SIZES))
FATES = st.sampled_from(["finishes", "finishes", "is cancelled", "has no adapter"])


def set_event(event: threading.Event, _: object) -> None:
    event.set()


@settings(max_examples=6)
@given(
    asked=st.lists(st.tuples(REQUESTS, FATES, st.booleans()), min_size=2, max_size=6),
    slots=st.integers(3, 5),
    max_batch=st.integers(1, 4),
    host_bytes=st.sampled_from([1, 1 << 30]),
)
def test_a_picture_is_what_it_is_alone(
    world: World, asked: list[tuple[ImageRequest, str, bool]], slots: int, max_batch: int, host_bytes: int
) -> None:
    """Some requests arrive while earlier ones wait, some after the first step of the one before."""
    with Engine(
        world.base, load=world.store, slots=slots, rank=RANK, max_batch=max_batch, host_bytes=host_bytes
    ) as engine:
        tickets = []
        for request, fate, is_awaited in asked:
            long = replace(request, steps=100) if fate == "is cancelled" else request
            adapters = (WeightedAdapter("nobody"),) if fate == "has no adapter" else request.adapters
            begun = threading.Event()
            tenant = request.sampler or "local"
            ticket = engine.submit(long, adapters=adapters, tenant=tenant, on_step=partial(set_event, begun))
            ticket.add_done_callback(partial(set_event, begun))
            assert not is_awaited or begun.wait(HANG_S)
            if fate == "is cancelled":
                ticket.cancel()
            tickets.append(ticket)
        for ticket, (_, fate, _) in zip(tickets, asked, strict=True):
            if fate == "is cancelled":
                with pytest.raises(RequestCancelled):
                    ticket.result(HANG_S)
            elif fate == "has no adapter":
                with pytest.raises(NotFound):
                    ticket.result(HANG_S)
        images = [
            (request, ticket.result(HANG_S))
            for ticket, (request, fate, _) in zip(tickets, asked, strict=True)
            if fate == "finishes"
        ]
    for request, image in images:
        assert difference(world.base.pixels_of(image), world.solo(request)) <= SAME


@pytest.mark.parametrize("name", NAMES)
def test_another_person_is_another_picture(world: World, name: str) -> None:
    """Otherwise the test above would prove nothing."""
    request = ImageRequest("photo of <<TOK>> person", blend_of(name), steps=3)
    others = [world.solo(replace(request, adapters=blend_of(other))) for other in (*NAMES, None) if other != name]
    assert min(difference(world.solo(request), other) for other in others) > 1000 * SAME


def test_the_built_in_base_in_float32() -> None:
    """Every sampler, guided and not, in a batch of six rows and two slots for three people."""
    plain = ImageRequest("photo of <<TOK>> person", steps=4, guidance_scale=3.0)
    requests = [
        replace(plain, adapters=blend_of("anna"), seed=1),
        replace(plain, adapters=blend_of("bert"), seed=2, sampler="euler", steps=6),
        replace(plain, seed=3, sampler="ddim", guidance_scale=1.0),
        replace(plain, adapters=blend_of("cleo"), seed=4, guidance_scale=1.0, steps=3),
        replace(plain, adapters=blend_of("anna"), seed=5, sampler="ddim", adapter_scale=0.5),
    ]
    with recording(load_base(device=torch.device("cpu"), dtype=torch.float32)) as recorder:
        world = world_of(recorder, 0.05)
        with Engine(recorder, load=world.store, slots=3, rank=RANK, max_batch=3) as engine:
            images = engine.generate(requests)
        for request, image in zip(requests, images, strict=True):
            assert difference(recorder.pixels_of(image), world.solo(request)) <= SAME
        bare = world.solo(replace(requests[0], adapters=()))
        assert difference(world.solo(requests[0]), bare) > 100 * SAME


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_is_the_same_picture_to_the_last_bit_on_a_cpu(threads: int) -> None:
    """One row, two, or many; of one person or several; with the built-in base as in production."""
    base = load_base(device=torch.device("cpu"), dtype=torch.float32)
    bank = LoraBank(base.networks, base.family.targets, slots=3, rank=RANK)
    for slot in (1, 2):
        bank.write(slot, random_row(bank, slot) * 0.05)
    guided = ImageRequest("photo of <<TOK>> person", seed=10, steps=2, guidance_scale=3.0, negative_scale=0.0)
    plain, bare, hers, his = replace(guided, guidance_scale=1.0), [AdapterSlot(0)], [AdapterSlot(1)], [AdapterSlot(2)]
    mine = [(guided, hers), (plain, hers), (plain, bare)]
    others = [(replace(guided, seed=11), hers), (replace(guided, seed=12, negative_scale=1.0), his)]

    def pixels(asked: list[tuple[ImageRequest, list[AdapterSlot]]]) -> torch.Tensor:
        return base.decode(denoise_all(base, bank, [one for one, _ in asked], [slot for _, slot in asked]))

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        alone = [pixels([one])[0] for one in mine]
        for company in (mine, [*mine, *others]):
            for together, picture in zip(pixels(company), alone, strict=False):
                assert torch.equal(together, picture)
        assert not torch.equal(alone[0], alone[1])
    finally:
        torch.set_num_threads(before)
        bank.close()


def test_an_image_that_needs_more_than_the_whole_batch_is_refused(world: World) -> None:
    base = replace(world.base, family=replace(world.base.family, sizes=KLEIN_BASE_4B.sizes))
    side = base.family.resolution_px
    with Engine(base, load=world.store, slots=3, rank=RANK, max_batch=8) as engine:
        huge = ImageRequest("a face", width=4 * side, height=4 * side, guidance_scale=3.0)
        with pytest.raises(UsageError, match=r"at most 0\.13 megapixels, got 512x512"):
            engine.submit(huge)
        engine.submit(replace(huge, guidance_scale=1.0)).cancel()  # one row: half as many
