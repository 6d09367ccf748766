"""Random people for the engine's tests, and a store that can be slow, broken or counted."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from likeness.diffusion.base import BaseModel
from likeness.diffusion.lora import LoraBank
from likeness.errors import NotFound
from likeness.types import Adapter, AdapterCard
from tests.tiny import random_row
from tests.waiting import HANG_S

RANK = 2


def person(base: BaseModel, name: str, seed: int, *, rank: int = RANK, strength: float = 1.0) -> Adapter:
    """A random adapter whose alpha is not its rank. `strength` 1: as large as the base's own weights."""
    bank = LoraBank(base.networks, base.family.targets, slots=2, rank=rank)
    weights = bank.pairs_of(strength**0.5 * random_row(bank, seed), rank)
    bank.close()
    card = AdapterCard(
        name=name, class_noun="person", identifier="<<TOK>>", base_id="tiny", base_sha256=base.sha256,
        family=base.family.name, recipe={}, seed=seed, photos=1, steps=1, seconds=0.0, created="2026-01-01",
        versions={}, rank=rank, alpha=1.5 * rank, content_sha256=f"{seed:064x}",
    )  # fmt: skip
    return Adapter(card, weights)


def of_another_base(adapter: Adapter) -> Adapter:
    return Adapter(replace(adapter.card, base_sha256="0" * 64), adapter.weights)


class Store:
    """`load` of an engine: counts, and holds a load back while its gate is closed."""

    def __init__(self, adapters: Mapping[str, Adapter]) -> None:
        self.adapters = dict(adapters)
        self.loads: Counter[str] = Counter()
        self.gates: dict[str, threading.Event] = {}

    def close_gate(self, key: str) -> threading.Event:
        self.gates[key] = threading.Event()
        return self.gates[key]

    def __call__(self, key: str) -> Adapter:
        self.loads[key] += 1
        if key in self.gates:
            assert self.gates[key].wait(HANG_S)
        if key not in self.adapters:
            raise NotFound("expected an adapter, got none", code="AdapterNotFound")
        return self.adapters[key]
