"""The engine: mixed batches give what each request gives alone, whatever the batch and however few the slots."""

from dataclasses import replace

import numpy as np
import pytest

from likeness.diffusion.base import BaseModel
from likeness.diffusion.lora import LoraBank
from likeness.engine.engine import Engine
from likeness.errors import CorruptAdapter, UsageError, WrongBase
from likeness.types import Adapter, AdapterCard, GeneratedImage, ImageRequest
from tests.tiny import random_row

RANK = 2


def person(base: BaseModel, name: str, seed: int) -> Adapter:
    """A random adapter whose alpha is not its rank."""
    bank = LoraBank(base.networks, base.family.targets, slots=2, rank=RANK)
    weights = bank.pairs_of(random_row(bank, seed), RANK)
    bank.close()
    card = AdapterCard(
        name=name, class_noun="person", identifier="<<TOK>>", base_id="tiny", base_sha256=base.sha256,
        family=base.family.name, recipe={}, seed=seed, photos=1, steps=1, seconds=0.0, created="2026-01-01",
        versions={}, rank=RANK, alpha=3.0, content_sha256=f"{seed:064x}",
    )  # fmt: skip
    return Adapter(card, weights)


@pytest.fixture(scope="module")
def people(tiny_base: BaseModel) -> dict[str, Adapter]:
    return {name: person(tiny_base, name, seed) for seed, name in enumerate(("anna", "bert", "cleo"), 1)}


def requests() -> list[ImageRequest]:
    plain = ImageRequest("photo of <<TOK>> person", steps=3)
    return [
        replace(plain, adapter="anna", seed=1),
        replace(plain, seed=2),
        replace(plain, adapter="bert", seed=3, steps=2, sampler="ddim"),
        replace(plain, adapter="cleo", seed=4, guidance_scale=1.0),
        replace(plain, adapter="anna", seed=5, adapter_scale=0.5, sampler="euler"),
    ]


def difference(one: GeneratedImage, other: GeneratedImage) -> int:
    return int(np.abs(one.image.astype(int) - other.image.astype(int)).max())


@pytest.mark.parametrize(("slots", "max_batch"), [(2, 3), (3, 8), (8, 2)])
def test_mixed_batches_equal_each_request_alone(
    tiny_base: BaseModel, people: dict[str, Adapter], slots: int, max_batch: int
) -> None:
    alone = Engine(tiny_base, slots=2, rank=RANK, max_batch=1)
    expected = [alone.generate([request], people.__getitem__)[0] for request in requests()]
    alone.close()
    together = Engine(tiny_base, slots=slots, rank=4, max_batch=max_batch)
    got = together.generate(requests(), people.__getitem__)
    together.close()
    assert [image.request for image in got] == requests()
    assert min(difference(got[i], got[k]) for i in range(5) for k in range(i)) > 10  # or the next line says nothing
    assert max(difference(*pair) for pair in zip(got, expected, strict=True)) <= 1


def test_an_adapter_changes_the_picture_and_its_scale_too(tiny_base: BaseModel, people: dict[str, Adapter]) -> None:
    engine = Engine(tiny_base, rank=RANK)
    request = ImageRequest("photo of person", steps=2)
    asked = [request, replace(request, adapter="anna"), replace(request, adapter="anna", adapter_scale=0.0)]
    bare, anna, none_of_her = engine.generate(asked, people.__getitem__)
    engine.close()
    assert difference(bare, anna) > 10
    assert difference(bare, none_of_her) <= 1
    assert (bare.adapter_sha256, anna.adapter_sha256) == (None, people["anna"].card.content_sha256)


def test_another_base_is_refused_before_any_work(tiny_base: BaseModel, people: dict[str, Adapter]) -> None:
    stranger = Adapter(replace(people["anna"].card, base_sha256="0" * 64), people["anna"].weights)
    engine = Engine(tiny_base, rank=RANK)
    with pytest.raises(WrongBase):
        engine.generate([ImageRequest("x", "anna", steps=1)], {"anna": stranger}.__getitem__)
    engine.close()


def test_a_refused_adapter_leaves_the_engine_usable(tiny_base: BaseModel, people: dict[str, Adapter]) -> None:
    engine = Engine(tiny_base, slots=2, rank=1)
    with pytest.raises(CorruptAdapter):
        engine.generate([ImageRequest("x", "anna", steps=1)], people.__getitem__)
    with pytest.raises(UsageError):
        engine.generate([ImageRequest("x", steps=1, sampler="magic")], people.__getitem__)
    assert len(engine.generate([ImageRequest("x", steps=1)], people.__getitem__)) == 1
    engine.close()


def test_progress_counts_finished_pictures(tiny_base: BaseModel, people: dict[str, Adapter]) -> None:
    engine = Engine(tiny_base, max_batch=2)
    seen: list[int] = []
    engine.generate([ImageRequest("x", seed=k, steps=1) for k in range(3)], people.__getitem__, progress=seen.append)
    engine.close()
    assert seen == [2, 3]
