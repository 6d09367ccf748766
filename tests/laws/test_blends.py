"""Several adapters in an image: PEFT's sum of them, and the same image alone as among images with one adapter."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fixtures.tiny import random_row, relative
from likeness.diffusion.base import BaseModel, load_base
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.sampling import AdapterSlot, denoise_all
from likeness.engine.slot_banks import SlotBanks
from likeness.errors import UsageError
from likeness.types import ImageRequest

RANK = 4
Slots = list[AdapterSlot]


def weighted(*slots: tuple[int, float]) -> Slots:
    return [AdapterSlot(slot, weight, weight) for slot, weight in slots]


PAIR, OTHER_PAIR, THREE = (
    weighted((1, 1.0), (2, 0.6)),
    weighted((3, 0.5), (1, 1.5)),
    weighted((1, 1.0), (2, 0.3), (3, 1)),
)
ONE, SECOND, BARE = weighted((1, 1.0)), weighted((2, 0.7)), weighted()
GUIDED = ImageRequest("photo of <<TOK>> person", seed=3, steps=2, guidance_scale=3.0, negative_scale=1.0)
HALF = ImageRequest("photo of <<TOK>> person", seed=4, steps=2, guidance_scale=3.0, negative_scale=0.0)
PLAIN = ImageRequest("photo of <<TOK>> person", seed=5, steps=2, guidance_scale=1.0)
ASKED = [(GUIDED, PAIR), (GUIDED, ONE), (PLAIN, THREE), (HALF, OTHER_PAIR), (PLAIN, BARE), (HALF, SECOND)]


@pytest.fixture(scope="module")
def built_in() -> BaseModel:
    return load_base(device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def bank(built_in: BaseModel) -> Iterator[LoraBank]:
    bank = LoraBank(built_in.networks, built_in.family.targets, slots=4, rank=RANK)
    for slot in (1, 2, 3):
        bank.write(slot, random_row(bank, slot) * 0.05)
    yield bank
    bank.close()


def latents(base: BaseModel, bank: LoraBank | SlotBanks, asked: list[tuple[ImageRequest, Slots]]) -> Tensor:
    return denoise_all(base, bank, [request for request, _ in asked], [slots for _, slots in asked])


def test_an_image_of_any_number_of_adapters_is_what_it_is_alone(built_in: BaseModel, bank: LoraBank) -> None:
    """To the last bit: those of one adapter among those of two and three, and the other way round."""
    alone = [latents(built_in, bank, [one])[0] for one in ASKED]
    for company in (ASKED, ASKED[3:1:-1]):
        for one, together in zip(company, latents(built_in, bank, company), strict=True):
            assert torch.equal(together, alone[ASKED.index(one)])
    assert relative(alone[0], alone[1]) > 1e-3  # the second adapter does something


def test_one_adapter_of_weight_1_and_the_same_scale_of_a_request_are_one_thing(
    built_in: BaseModel, bank: LoraBank
) -> None:
    (weight,) = latents(built_in, bank, [(PLAIN, weighted((1, 0.5)))])
    scaled = ImageRequest(PLAIN.prompt, seed=PLAIN.seed, steps=2, guidance_scale=1.0, adapter_scale=0.5)
    assert torch.equal(weight, latents(built_in, bank, [(scaled, ONE)])[0])
    nothing = latents(built_in, bank, [(PLAIN, weighted((1, 1.0), (2, 0.0)))])[0]  # a weight of 0 is no adapter
    assert torch.equal(nothing, latents(built_in, bank, [(PLAIN, ONE)])[0])


def test_slots_of_a_larger_rank_add_their_share(tiny_base: BaseModel) -> None:
    """One small and two large adapters in one image, against a bank in which all have the same rank."""
    wide = LoraBank(tiny_base.networks, tiny_base.family.targets, slots=4, rank=8)
    rows = {1: wide.pairs_of(random_row(wide, 1) * 0.5, 2)}
    rows |= {slot: wide.pairs_of(random_row(wide, slot) * 0.5, 8) for slot in (2, 3)}
    for slot, pairs in rows.items():
        wide.write(slot, wide.row_of(pairs))
    expected = latents(tiny_base, wide, [(GUIDED, THREE), (PLAIN, ONE), (HALF, weighted((3, 0.5)))])
    wide.close()
    banks = SlotBanks(tiny_base, slots=2, rank=2, large_rank=8)
    try:
        for slot, pairs in rows.items():
            own, number = banks.at(slot)
            own.write(number, own.row_of(pairs))
        got = latents(tiny_base, banks, [(GUIDED, THREE), (PLAIN, ONE), (HALF, weighted((3, 0.5)))])
        assert banks.at(2)[0] is banks.at(3)[0]
    finally:
        banks.close()
    assert relative(got, expected) <= 1e-4


def test_a_training_has_one_adapter_a_row(tiny_base: BaseModel) -> None:
    bank = LoraBank(tiny_base.networks, tiny_base.family.targets, slots=3, rank=2)
    bank.enable_training()
    try:
        with pytest.raises(UsageError), bank.route(torch.tensor([[1, 2]])):
            pass
    finally:
        bank.close()
