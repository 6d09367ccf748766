"""The engine: mixed batches give what each request gives alone, whatever the batch and however few the slots."""

from dataclasses import replace

import numpy as np
import pytest

from fixtures.people import RANK, of_another_base, person
from likeness.diffusion.base import BaseModel
from likeness.diffusion.sampling import completed
from likeness.engine.engine import Engine
from likeness.errors import Mismatch
from likeness.types import Adapter, GeneratedImage, ImageRequest, blend_of


def requests() -> list[ImageRequest]:
    plain = ImageRequest("photo of <<TOK>> person", steps=3)
    return [
        replace(plain, adapters=blend_of("anna"), seed=1),
        replace(plain, seed=2),
        replace(plain, adapters=blend_of("bert"), seed=3, steps=2, sampler="ddim"),
        replace(plain, adapters=blend_of("cleo"), seed=4, guidance_scale=1.0),
        replace(plain, adapters=blend_of("anna"), seed=5, adapter_scale=0.5, sampler="euler"),
    ]


def difference(one: GeneratedImage, other: GeneratedImage) -> int:
    return int(np.abs(one.image.astype(int) - other.image.astype(int)).max())


@pytest.mark.parametrize(("slots", "max_batch"), [(2, 3), (3, 8), (8, 2)])
def test_mixed_batches_equal_each_request_alone(
    tiny_base: BaseModel, people: dict[str, Adapter], slots: int, max_batch: int
) -> None:
    with Engine(tiny_base, load=people.__getitem__, slots=2, rank=RANK, max_batch=1) as alone:
        expected = [alone.generate([request])[0] for request in requests()]
    with Engine(tiny_base, load=people.__getitem__, slots=slots, rank=4, max_batch=max_batch) as together:
        got = together.generate(requests())
    assert [image.request for image in got] == [completed(tiny_base, one) for one in requests()]  # as it was made
    assert min(difference(got[i], got[k]) for i in range(5) for k in range(i)) > 10  # or the next line says nothing
    assert max(difference(*pair) for pair in zip(got, expected, strict=True)) <= 1


def test_large_adapters_take_turns_beside_the_others(tiny_base: BaseModel, people: dict[str, Adapter]) -> None:
    """Two large adapters and one slot for them, in one batch with small ones; every picture as it is alone."""
    adapters = {**people, "large": person(tiny_base, "large", 7, rank=9), "wide": person(tiny_base, "wide", 8, rank=5)}
    named = [ImageRequest("photo of {me}", blend_of(name), seed=6, steps=3) for name in ("large", "wide", "large")]
    asked = [*requests()[:3], *named]
    with Engine(tiny_base, load=adapters.__getitem__, slots=2, rank=9, max_batch=1) as alone:
        expected = [alone.generate([request])[0] for request in asked]
    with Engine(tiny_base, load=adapters.__getitem__, slots=4, rank=RANK, large_rank=9, max_batch=8) as together:
        assert together.banks.usual.rank == RANK
        got = together.generate(asked)
        for name in adapters:
            together.forget(name)
        together.generate([ImageRequest("x", steps=1)])  # a turn later the slots are wiped
        assert not together.banks.usual.flat.any() and not together.banks.at(4)[0].flat.any()
        adapters["huge"] = person(tiny_base, "huge", 9, rank=10)
        with pytest.raises(Mismatch, match="rank 9 at most"):
            together.generate([ImageRequest("x", blend_of("huge"), steps=1)])
    assert min(difference(got[i], got[k]) for i in range(5) for k in range(i)) > 10
    assert max(difference(*pair) for pair in zip(got, expected, strict=True)) <= 1


def test_an_adapter_changes_the_picture_and_its_scale_too(tiny_base: BaseModel, people: dict[str, Adapter]) -> None:
    request = ImageRequest("photo of person", steps=2)
    asked = [
        request,
        replace(request, adapters=blend_of("anna")),
        replace(request, adapters=blend_of("anna"), adapter_scale=0.0),
    ]
    with Engine(tiny_base, load=people.__getitem__, rank=RANK) as engine:
        bare, anna, none_of_her = engine.generate(asked)
    assert difference(bare, anna) > 10
    assert difference(bare, none_of_her) <= 1
    assert (bare.adapter_sha256, anna.adapter_sha256) == (None, people["anna"].card.content_sha256)


def test_another_base_is_refused(tiny_base: BaseModel, people: dict[str, Adapter]) -> None:
    stranger = of_another_base(people["anna"])
    with Engine(tiny_base, load={"anna": stranger}.__getitem__, rank=RANK) as engine, pytest.raises(Mismatch):
        engine.generate([ImageRequest("x", blend_of("anna"), steps=1)])


def test_a_refused_adapter_leaves_the_engine_usable(tiny_base: BaseModel, people: dict[str, Adapter]) -> None:
    with Engine(tiny_base, load=people.__getitem__, slots=2, rank=1) as engine:
        with pytest.raises(Mismatch):
            engine.generate([ImageRequest("x", blend_of("anna"), steps=1)])
        assert len(engine.generate([ImageRequest("x", steps=1)])) == 1


def test_progress_counts_finished_pictures(tiny_base: BaseModel, people: dict[str, Adapter]) -> None:
    seen: list[int] = []
    with Engine(tiny_base, load=people.__getitem__, max_batch=2) as engine:
        engine.generate([ImageRequest("x", seed=k, steps=1) for k in range(3)], progress=seen.append)
    assert seen == [1, 2, 3]
