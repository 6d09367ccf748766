"""Images that share forward passes, joining and leaving at any step, equal the images made alone."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from likeness.diffusion.base import BaseModel
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.sampling import Denoising, Order, advance, begin, denoise_all
from tests.tiny import random_row, relative

ORDERS = [
    Order("a photo of <<TOK>> person", "", 1, 6, 3.0, "dpmpp_2m", slot=1),
    Order("portrait of a man in the snow", "woman", 2, 9, 2.0, "euler", slot=2, scale=0.7),
    Order("a picture of a woman", "", 3, 4, 1.0, "ddim", slot=0),
    Order("photo of <<TOK>> person", "snow", 4, 5, 3.0, "ddim", slot=1, scale=1.2),
    Order("photo of <<TOK>> person", "", 5, 5, 3.0, "ddim", slot=2, negative_scale=0.0),
    Order("photo of <<TOK>> person", "", 6, 4, 3.0, "euler", slot=1, negative_scale=0.5),
]
JOINS = [0, 2, 3, 5, 1, 5]
SAME = 5e-5  # relative: float32 rounding, amplified over the steps; another person's adapter changes a picture by 1


@pytest.fixture
def bank(tiny_base: BaseModel) -> Iterator[LoraBank]:
    bank = LoraBank(tiny_base.networks, tiny_base.family.targets, slots=3, rank=4)
    for slot in (1, 2):
        bank.write(slot, random_row(bank, slot) * 0.5)
    yield bank
    bank.close()


def latent(picture: Denoising) -> Tensor:
    assert picture.latent is not None
    return picture.latent


def test_joining_a_running_batch_changes_nobody(tiny_base: BaseModel, bank: LoraBank) -> None:
    alone = [denoise_all(tiny_base, bank, [order])[0] for order in ORDERS]
    pictures: dict[int, Denoising] = {}
    most = 0
    for now in range(20):
        coming = [i for i, joins in enumerate(JOINS) if joins == now]
        if coming:
            pictures |= dict(zip(coming, begin(tiny_base, bank, [ORDERS[i] for i in coming]), strict=True))
        alive = [picture for picture in pictures.values() if picture.latent is None]
        most = max(most, len(alive))
        if alive:
            advance(tiny_base, bank, alive)
    assert most >= 3
    for i, order in enumerate(ORDERS):
        assert pictures[i].step == order.steps
        assert relative(latent(pictures[i]), alone[i]) <= SAME


def test_one_batch_equals_separate(tiny_base: BaseModel, bank: LoraBank) -> None:
    together = denoise_all(tiny_base, bank, ORDERS)
    for order, mine in zip(ORDERS, together, strict=True):
        assert relative(mine, denoise_all(tiny_base, bank, [order])[0]) <= SAME


def test_same_seed_same_image_and_everything_else_matters(tiny_base: BaseModel, bank: LoraBank) -> None:
    order = replace(ORDERS[0], steps=3)
    first = tiny_base.decode(denoise_all(tiny_base, bank, [order]))
    assert torch.equal(first, tiny_base.decode(denoise_all(tiny_base, bank, [order])))
    changes: list[dict[str, object]] = [
        {"seed": 9}, {"prompt": "a man"}, {"negative_prompt": "snow"}, {"guidance_scale": 2.0}, {"slot": 2},
        {"scale": 0.5}, {"negative_scale": 0.0}, {"negative_scale": 0.5}, {"steps": 4}, {"sampler": "euler"},
    ]  # fmt: skip
    for change in changes:
        other = tiny_base.decode(denoise_all(tiny_base, bank, [replace(order, **change)]))  # type: ignore[arg-type]
        assert not torch.equal(first, other), change


def test_no_bank_slot_0_and_scale_0_are_the_base(tiny_base: BaseModel, bank: LoraBank) -> None:
    bare = denoise_all(tiny_base, None, [ORDERS[0]])
    assert torch.equal(denoise_all(tiny_base, bank, [replace(ORDERS[0], slot=0)]), bare)
    assert torch.equal(denoise_all(tiny_base, bank, [replace(ORDERS[0], scale=0.0)]), bare)


def test_at_negative_scale_0_guidance_leads_away_from_the_bare_base(tiny_base: BaseModel, bank: LoraBank) -> None:
    order = replace(ORDERS[0], steps=1, sampler="ddim", negative_prompt="snow")
    away = replace(order, guidance_scale=1.0, prompt=order.negative_prompt, slot=0)
    (guided,), (towards,), (from_here,) = (
        begin(tiny_base, bank, [one])
        for one in (replace(order, negative_scale=0.0), replace(order, guidance_scale=1.0), away)
    )
    for picture in (guided, towards, from_here):
        advance(tiny_base, bank, [picture])
    assert guided.clean is not None and towards.clean is not None and from_here.clean is not None
    expected = from_here.clean + order.guidance_scale * (towards.clean - from_here.clean)
    assert relative(guided.clean, expected) <= SAME
    (turned,) = begin(tiny_base, bank, [replace(order, scale=0.0, negative_scale=1.0)])  # the bare row is the prompt's
    towards_bare = replace(order, guidance_scale=1.0, slot=0)
    away_from_her = replace(order, guidance_scale=1.0, prompt=order.negative_prompt)
    (to,), (away_from,) = (begin(tiny_base, bank, [one]) for one in (towards_bare, away_from_her))
    for picture in (turned, to, away_from):
        advance(tiny_base, bank, [picture])
    assert turned.clean is not None and to.clean is not None and away_from.clean is not None
    other_way = away_from.clean + order.guidance_scale * (to.clean - away_from.clean)
    assert relative(turned.clean, other_way) <= SAME
    (usual,) = begin(tiny_base, bank, [order])
    advance(tiny_base, bank, [usual])
    assert usual.clean is not None and relative(usual.clean, expected) > 100 * SAME


def test_guidance_1_is_not_guided_and_costs_one_row(tiny_base: BaseModel, bank: LoraBank) -> None:
    plain, guided = begin(tiny_base, bank, [replace(ORDERS[0], guidance_scale=1.0), ORDERS[0]])
    assert (len(plain.states), len(guided.states)) == (1, 2)
    near = denoise_all(tiny_base, bank, [replace(ORDERS[0], guidance_scale=1.0 + 1e-6)])
    assert relative(denoise_all(tiny_base, bank, [replace(ORDERS[0], guidance_scale=1.0)]), near) <= 1e-4
