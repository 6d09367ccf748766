"""An adapter in host memory takes its own bytes, and fills a slot as the bank itself would."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from fixtures.people import of_another_base, person
from likeness.diffusion.base import BaseModel
from likeness.engine.packed import SlotWriter, pack
from likeness.engine.slot_banks import SlotBanks
from likeness.errors import CorruptAdapter, Mismatch
from likeness.types import Adapter, LoraPair

RANK = 4


@pytest.fixture
def banks(tiny_base: BaseModel) -> Iterator[SlotBanks]:
    banks = SlotBanks(tiny_base, slots=3, rank=RANK, large_rank=0)
    yield banks
    banks.close()


def in_float16(adapter: Adapter) -> Adapter:
    weights = {
        network: {
            module: LoraPair(pair.A.astype(np.float16), pair.B.astype(np.float16)) for module, pair in pairs.items()
        }
        for network, pairs in adapter.weights.items()
    }
    return Adapter(adapter.card, weights)


def bytes_of(adapter: Adapter) -> int:
    return sum(pair.A.nbytes + pair.B.nbytes for pairs in adapter.weights.values() for pair in pairs.values())


def only_attention(adapter: Adapter) -> Adapter:
    unet = {module: pair for module, pair in adapter.weights["unet"].items() if "to_q" in module}
    return Adapter(adapter.card, {"unet": unet})


@pytest.mark.parametrize("rank", [1, 3, RANK])
@pytest.mark.parametrize("is_partial", [False, True])
@pytest.mark.parametrize("is_half", [False, True])
def test_a_slot_holds_what_the_bank_would_make_of_it(
    tiny_base: BaseModel, banks: SlotBanks, rank: int, is_partial: bool, is_half: bool
) -> None:
    bank = banks.usual
    adapter = person(tiny_base, "anna", 1, rank=rank)
    adapter = only_attention(adapter) if is_partial else adapter
    adapter = in_float16(adapter) if is_half else adapter
    packed = pack(adapter, banks, tiny_base.sha256)
    assert packed.nbytes == bytes_of(adapter)
    bank.write(1, torch.ones(bank.columns))  # an earlier tenant of the slot
    SlotWriter(banks).write(1, packed)
    expected = bank.row_of(adapter.weights, scale=adapter.card.alpha / adapter.card.rank)
    torch.testing.assert_close(bank.flat[1], expected.to(bank.flat.dtype), rtol=1e-6, atol=0)
    assert bank.flat[1].any() and not bank.flat[2].any() and not bank.flat[0].any()


def test_layers_of_different_ranks(tiny_base: BaseModel, banks: SlotBanks) -> None:
    bank = banks.usual
    large, small = (person(tiny_base, "anna", 1, rank=rank) for rank in (3, 1))
    first = next(iter(large.weights["unet"]))
    mixed = Adapter(large.card, {"unet": {**large.weights["unet"], first: small.weights["unet"][first]}})
    SlotWriter(banks).write(1, pack(mixed, banks, tiny_base.sha256))
    torch.testing.assert_close(bank.flat[1], bank.row_of(mixed.weights, scale=1.5).to(bank.flat.dtype))


def test_a_wiped_slot_is_zeros(tiny_base: BaseModel, banks: SlotBanks) -> None:
    bank = banks.usual
    writer = SlotWriter(banks)
    writer.write(1, pack(person(tiny_base, "anna", 1), banks, tiny_base.sha256))
    writer.wipe(1)
    assert not bank.flat.any()


def test_what_does_not_fit_is_refused(tiny_base: BaseModel, banks: SlotBanks) -> None:
    anna = person(tiny_base, "anna", 1)
    with pytest.raises(Mismatch):
        pack(of_another_base(anna), banks, tiny_base.sha256)
    with pytest.raises(Mismatch, match="rank 4 at most, got 5"):
        pack(person(tiny_base, "anna", 1, rank=5), banks, tiny_base.sha256)
    with pytest.raises(CorruptAdapter):
        pack(
            Adapter(anna.card, {"unet": {"nowhere": LoraPair(np.ones((2, 3)), np.ones((3, 2)))}}),
            banks,
            anna.card.base_sha256,
        )
    name, pair = next(iter(anna.weights["unet"].items()))
    for wrong in (LoraPair(pair.A[:, 1:], pair.B), LoraPair(pair.A, pair.B[1:]), LoraPair(pair.A, pair.B[:, 1:])):
        with pytest.raises(CorruptAdapter):
            pack(Adapter(anna.card, {"unet": {name: wrong}}), banks, tiny_base.sha256)
    liar = replace(anna.card, rank=1)  # says 1, is 2: fits all the same
    assert pack(Adapter(liar, anna.weights), banks, tiny_base.sha256).layout.rank == 2
    huge = person(tiny_base, "anna", 1, rank=9)
    with pytest.raises(Mismatch):
        pack(Adapter(liar, huge.weights), banks, tiny_base.sha256)
