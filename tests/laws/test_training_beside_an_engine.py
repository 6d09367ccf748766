"""An engine and a training on one base in one process do not affect each other: the results equal those alone."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fixtures.people import RANK, Store, person
from fixtures.tiny import random_person, random_row
from fixtures.waiting import HANG_S
from likeness.diffusion.base import BaseModel
from likeness.diffusion.lora import LoraBank
from likeness.engine.engine import Engine
from likeness.training.loop import TrainingLoop
from likeness.training.recipe import recipe_named
from likeness.types import ImageRequest, blend_of

T = TypeVar("T")
STEPS = 8
RECIPE = recipe_named("fast", steps=STEPS, rank=2, alpha=2, instance_rows=2, prior_rows=1, warmup_steps=1)


def elsewhere(work: Callable[[], T]) -> T:
    """What `work` gives on another thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result(HANG_S)


def bank_of(base: BaseModel, seed: int) -> LoraBank:
    bank = LoraBank(base.networks, base.family.targets, slots=3, rank=RANK)
    for slot in (1, 2):
        bank.write(slot, random_row(bank, 10 * seed + slot))
    return bank


def test_a_route_is_of_the_thread_that_made_it(tiny_base: BaseModel) -> None:
    ids = tiny_base.tokenize(["photo of person"] * 3)

    def states(bank: LoraBank | None, rows: int, *slots: int) -> torch.Tensor:
        with torch.no_grad():
            if bank is None:
                return tiny_base.encode_prompt(ids[:rows]).states
            with bank.route(torch.tensor(slots)):
                return tiny_base.encode_prompt(ids[:rows]).states

    mine, others = bank_of(tiny_base, 1), bank_of(tiny_base, 2)
    try:
        bare, routed = states(None, 3), states(others, 2, 2, 1)
        alone = states(mine, 3, 1, 2, 0)
        assert not torch.equal(bare, alone) and not torch.equal(bare[:2], routed)
        with mine.route(torch.tensor([1, 2, 0])):
            assert torch.equal(elsewhere(lambda: states(None, 3)), bare)
            assert torch.equal(elsewhere(lambda: states(others, 2, 2, 1)), routed)  # another number of rows
            assert torch.equal(elsewhere(lambda: states(mine, 3, 1, 2, 0)), alone)
            assert torch.equal(tiny_base.encode_prompt(ids).states, alone)
    finally:
        mine.close()
        others.close()


def trained(base: BaseModel) -> list[NDArray[np.float32]]:
    loop = TrainingLoop(base, capacity=1, rank=2)
    try:
        loop.join("anna", RECIPE, random_person(base, 1), seed=3)
        for _ in range(STEPS):
            loop.step()
        weights = loop.leave("anna")
    finally:
        loop.close()
    return [part for pairs in weights.values() for pair in pairs.values() for part in (pair.A, pair.B)]


def test_both_at_once_make_what_they_make_alone(tiny_base: BaseModel) -> None:
    store = Store({"bert": person(tiny_base, "bert", 2)})
    picture = ImageRequest("photo of <<TOK>> person", blend_of("bert"), steps=6, guidance_scale=3.0, negative_scale=0.5)
    learnt = trained(tiny_base)
    with Engine(tiny_base, load=store, slots=2, rank=RANK, max_batch=1) as engine:
        alone = [engine.generate([replace(picture, seed=seed)])[0].image for seed in range(2)]
        is_over = threading.Event()
        made: list[list[NDArray[np.uint8]]] = []

        def make() -> None:
            while not is_over.is_set() or not made:
                made.append([engine.generate([replace(picture, seed=seed)])[0].image for seed in range(2)])

        with ThreadPoolExecutor(1) as thread:
            making = thread.submit(make)
            try:
                beside = [trained(tiny_base) for _ in range(2)]
            finally:
                is_over.set()
            making.result(HANG_S)
    for again in beside:
        assert all(np.array_equal(a, b) for a, b in zip(again, learnt, strict=True))
    assert all(np.array_equal(a, b) for pictures in made for a, b in zip(pictures, alone, strict=True))


def test_prompts_are_tokenized_from_any_threads_at_once(tiny_base: BaseModel) -> None:
    prompts = ["photo of person", "a man in the snow " * 40]
    alone = [tiny_base.tokenize([prompt]) for prompt in prompts]
    with ThreadPoolExecutor(4) as threads:
        many = list(threads.map(lambda k: tiny_base.tokenize([prompts[k % 2]]), range(200)))
    assert all(torch.equal(ids, alone[k % 2]) for k, ids in enumerate(many))
