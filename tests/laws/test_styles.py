"""A style adapter on the built-in base: beside a person's it brings its style, which the person's alone has not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from likeness.diffusion.base import BaseModel, load_base
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.sampling import AdapterSlot, denoise_all
from likeness.engine.prompts import worded
from likeness.photos import styled
from likeness.photos.quality import colourfulness
from likeness.training.data import build_training_set
from likeness.training.loop import TrainingLoop
from likeness.training.recipe import recipe_named
from likeness.types import ImageRequest, PreparedPhoto, Subject

PEOPLE = Path(__file__).parents[1] / "photos" / "virtual_people.jpg"  # renders of eight people
ANNA, INK = Subject("anna", "woman"), Subject("ink", "")
STEPS, SEEDS = 30, 2


def pictures() -> list[PreparedPhoto]:
    sheet = Image.open(PEOPLE)
    tiles = [sheet.crop((c * 128, r * 128, c * 128 + 128, r * 128 + 128)) for r in range(2) for c in range(4)]
    full, none = np.full((128, 128), 255, np.uint8), np.zeros((128, 128), np.uint8)
    return [PreparedPhoto(np.asarray(tile), full, none, "whole", f"{k}") for k, tile in enumerate(tiles)]


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load_base(device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def bank(base: BaseModel) -> Iterator[LoraBank]:
    """Slot 1: a person; slot 2: the style of pencil sketches of seven others. Trained together, no class images."""
    recipe = recipe_named(
        "fast", steps=STEPS, instance_rows=4, prior_rows=0, warmup_steps=3, unet_learning_rate=3e-4, variants=2,
        styled_copies=0, vary_background=False, down_blocks=True,  # needs fewer steps, see docs/log.md
    )  # fmt: skip
    whole, rng = pictures(), np.random.default_rng(0)
    sketches = [styled(one, "pencil sketch", rng) for one in whole[1:]]
    loop = TrainingLoop(base, capacity=2, rank=recipe.rank)
    for subject, shown in ((ANNA, [replace(whole[0], framing="aligned")]), (INK, sketches)):
        no_prior = torch.zeros(0, *base.latent_shape)
        data = build_training_set(base, subject, shown, recipe=recipe, prior_latents=no_prior, seed=0)
        loop.join(subject.name, recipe, data, seed=0)
    for _ in range(STEPS):
        loop.step()
    rows = [loop.bank.row_of(loop.leave(one.name), scale=recipe.scale_of("unet")) for one in (ANNA, INK)]
    loop.close()
    bank = LoraBank(base.networks, base.family.trained, slots=3, rank=recipe.rank)
    for slot, row in enumerate(rows, start=1):
        bank.write(slot, row)
    yield bank
    bank.close()


def colour(base: BaseModel, bank: LoraBank, prompt: str, *subjects: Subject) -> float:
    """Mean colourfulness of images of the same seeds with the adapters of these subjects."""
    slots = [AdapterSlot(1 if one is ANNA else 2) for one in subjects]
    asked = ImageRequest(prompt, fast=True).numbered(SEEDS)
    requests = [worded(base, one, subjects) for one in asked]
    pixels = base.decode(denoise_all(base, bank, requests, [slots] * SEEDS))
    images: NDArray[np.uint8] = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return float(np.mean([colourfulness(image) for image in images]))


def test_the_style_reaches_another_persons_images(base: BaseModel, bank: LoraBank) -> None:
    bare = colour(base, bank, "photo of a woman in the garden")
    person = colour(base, bank, "{me} in the garden", ANNA)
    both = colour(base, bank, "{me} in the garden", ANNA, INK)
    alone = colour(base, bank, "a woman in the garden", INK)
    assert person > 0.8 * bare
    assert both < 0.6 * person and alone < 0.3 * bare
