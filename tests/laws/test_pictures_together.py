"""Images that share forward passes, joining and leaving at any step, equal the images made alone."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fixtures.tiny import random_row, relative
from likeness.diffusion.base import BaseModel
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.sampling import AdapterSlot, Denoising, advance, begin, denoise_all
from likeness.types import ImageRequest

Asked = tuple[ImageRequest, list[AdapterSlot]]


def asked(
    prompt: str, negative_prompt: str, seed: int, steps: int, guidance_scale: float, sampler: str, *,
    slot: int, scale: float = 1.0, negative_scale: float | None = None,
) -> Asked:  # fmt: skip
    """A request and its slot; without `negative_scale` both prompts have the adapter at the same scale."""
    request = ImageRequest(
        prompt, negative_prompt=negative_prompt, seed=seed, steps=steps, guidance_scale=guidance_scale,
        adapter_scale=scale, negative_scale=scale if negative_scale is None else negative_scale, sampler=sampler,
    )  # fmt: skip
    return request, [AdapterSlot(slot)]


ASKED = [
    asked("a photo of <<TOK>> person", "", 1, 6, 3.0, "dpmpp_2m", slot=1),
    asked("portrait of a man in the snow", "woman", 2, 9, 2.0, "euler", slot=2, scale=0.7),
    asked("a picture of a woman", "", 3, 4, 1.0, "ddim", slot=0),
    asked("photo of <<TOK>> person", "snow", 4, 5, 3.0, "ddim", slot=1, scale=1.2),
    asked("photo of <<TOK>> person", "", 5, 5, 3.0, "ddim", slot=2, negative_scale=0.0),
    asked("photo of <<TOK>> person", "", 6, 4, 3.0, "euler", slot=1, negative_scale=0.5),
]
FIRST, BARE, HERS = ASKED[0][0], [AdapterSlot(0)], [AdapterSlot(1)]
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


def begun(base: BaseModel, bank: LoraBank, pairs: list[Asked]) -> list[Denoising]:
    return begin(base, bank, [request for request, _ in pairs], [slot for _, slot in pairs])


def latents(base: BaseModel, bank: LoraBank, pairs: list[Asked]) -> Tensor:
    return denoise_all(base, bank, [request for request, _ in pairs], [slot for _, slot in pairs])


def test_joining_a_running_batch_changes_nobody(tiny_base: BaseModel, bank: LoraBank) -> None:
    alone = [latents(tiny_base, bank, [one])[0] for one in ASKED]
    pictures: dict[int, Denoising] = {}
    most = 0
    for now in range(20):
        coming = [i for i, joins in enumerate(JOINS) if joins == now]
        if coming:
            pictures |= dict(zip(coming, begun(tiny_base, bank, [ASKED[i] for i in coming]), strict=True))
        alive = [picture for picture in pictures.values() if picture.latent is None]
        most = max(most, len(alive))
        if alive:
            advance(tiny_base, bank, alive)
    assert most >= 3
    for i, (request, _) in enumerate(ASKED):
        assert pictures[i].step == request.steps
        assert relative(latent(pictures[i]), alone[i]) <= SAME


def test_one_batch_equals_separate(tiny_base: BaseModel, bank: LoraBank) -> None:
    together = latents(tiny_base, bank, ASKED)
    for one, mine in zip(ASKED, together, strict=True):
        assert relative(mine, latents(tiny_base, bank, [one])[0]) <= SAME


def test_same_seed_same_image_and_everything_else_matters(tiny_base: BaseModel, bank: LoraBank) -> None:
    request = replace(FIRST, steps=3)
    first = tiny_base.decode(latents(tiny_base, bank, [(request, HERS)]))
    assert torch.equal(first, tiny_base.decode(latents(tiny_base, bank, [(request, HERS)])))
    changes: list[dict[str, object]] = [
        {"seed": 9}, {"prompt": "a man"}, {"negative_prompt": "snow"}, {"guidance_scale": 2.0},
        {"adapter_scale": 0.5, "negative_scale": 0.5}, {"negative_scale": 0.0}, {"negative_scale": 0.5},
        {"steps": 4}, {"sampler": "euler"},
    ]  # fmt: skip
    others = [(replace(request, **change), HERS) for change in changes]  # type: ignore[arg-type]
    for other in [*others, (request, [AdapterSlot(2)])]:
        assert not torch.equal(first, tiny_base.decode(latents(tiny_base, bank, [other]))), other


def test_no_bank_slot_0_and_scale_0_are_the_base(tiny_base: BaseModel, bank: LoraBank) -> None:
    bare = denoise_all(tiny_base, None, [FIRST])
    assert torch.equal(latents(tiny_base, bank, [(FIRST, BARE)]), bare)
    nothing = replace(FIRST, adapter_scale=0.0, negative_scale=0.0)
    assert torch.equal(latents(tiny_base, bank, [(nothing, HERS)]), bare)


def test_at_negative_scale_0_guidance_leads_away_from_the_bare_base(tiny_base: BaseModel, bank: LoraBank) -> None:
    request = replace(FIRST, steps=1, sampler="ddim", negative_prompt="snow")
    plain = replace(request, guidance_scale=1.0)
    negative = replace(plain, prompt=request.negative_prompt)

    def clean(one: ImageRequest, slot: list[AdapterSlot]) -> Tensor:
        (picture,) = begin(tiny_base, bank, [one], [slot])
        advance(tiny_base, bank, [picture])
        assert picture.clean is not None
        return picture.clean

    towards, from_here = clean(plain, HERS), clean(negative, BARE)
    expected = from_here + 3.0 * (towards - from_here)
    assert relative(clean(replace(request, negative_scale=0.0), HERS), expected) <= SAME
    to, away_from = clean(plain, BARE), clean(negative, HERS)
    turned = clean(replace(request, adapter_scale=0.0, negative_scale=1.0), HERS)  # the bare row is the prompt's
    assert relative(turned, away_from + 3.0 * (to - away_from)) <= SAME
    assert relative(clean(request, HERS), expected) > 100 * SAME


def test_guidance_1_is_not_guided_and_costs_one_row(tiny_base: BaseModel, bank: LoraBank) -> None:
    plain = replace(FIRST, guidance_scale=1.0)
    first, second = begun(tiny_base, bank, [(plain, HERS), (FIRST, HERS)])
    assert (len(first.prompts), len(second.prompts)) == (1, 2)
    near = latents(tiny_base, bank, [(replace(FIRST, guidance_scale=1.0 + 1e-6), HERS)])
    assert relative(latents(tiny_base, bank, [(plain, HERS)]), near) <= 1e-4
