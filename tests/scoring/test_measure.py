"""The whole card on a tiny base, the prompt question by hand, and the command."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from fixtures.tiny import random_row
from likeness.cli import app
from likeness.commands.score import kept_photos, most_alike
from likeness.diffusion.base import BaseModel
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.sampling import AdapterSlot, denoise_all
from likeness.errors import InputRefused, Mismatch
from likeness.photos import check, prepare, read_photos
from likeness.scoring import measure, prompt
from likeness.scoring.likeness import Reference, ranked
from likeness.scoring.measure import PLACES, STYLES, score_adapter
from likeness.service import save_prepared
from likeness.service.example import example_photos
from likeness.types import Adapter, AdapterCard, GeneratedImage, ImageRequest, LoraPair, Network, PreparedPhoto


def adapter_of(base: BaseModel, class_noun: str, *, base_sha256: str | None = None) -> Adapter:
    bank = LoraBank(base.networks, base.family.targets, slots=2, rank=2)
    weights: dict[Network, dict[str, LoraPair]] = bank.pairs_of(random_row(bank, 1) * 0.2, 2)
    bank.close()
    card = AdapterCard(
        name="anna", class_noun=class_noun, identifier="<<TOK>>", base_id=base.id,
        base_sha256=base_sha256 or base.sha256, family=base.family.name, recipe={}, seed=0, photos=1, steps=1,
        seconds=1.0, created="2026-01-01T00:00:00+00:00", versions={}, rank=2, alpha=2.0,
    )  # fmt: skip
    return Adapter(card, weights)


@pytest.fixture(scope="module")
def person() -> tuple[PreparedPhoto, ...]:
    """Four of the shipped photographs."""
    paths = sorted(path for path in example_photos().iterdir() if path.suffix in (".jpg", ".png", ".webp"))[:4]
    checked = check(read_photos(paths), "person")
    return tuple(one for usable in checked.usable for one in prepare(usable.image, usable.face, usable.photo.sha256))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "STEPS", 2)


def test_the_prompt_that_denoises_best_is_the_answer(tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    given = torch.tensor([[4.0, 4, 4, 9], [1, 1, 1, 9], [2, 2, 2, 9], [3, 1, 1, 9], [3, 2, 2, 9], [9, 9, 9, 9]])
    monkeypatch.setattr(prompt, "denoising_losses", lambda *rest, **options: given)
    latents = torch.zeros(2, *tiny_base.latent_shape)
    assert prompt.most_likely_prompts(tiny_base, latents, ["a man", "a woman", "snow"], seed=0) == [1, 0]


def test_the_loss_is_that_of_each_picture_under_its_own_text(tiny_base: BaseModel) -> None:
    latents = torch.randn(3, *tiny_base.latent_shape)
    states = tiny_base.encode_prompt(tiny_base.tokenize(["a man", "a woman", "snow"]))
    together = prompt.denoising_losses(tiny_base, latents, states, seed=4)
    assert together.shape == (3, len(prompt.TIMES))
    for k in range(3):
        alone = prompt.denoising_losses(tiny_base, latents[k : k + 1], states[k : k + 1], seed=4)
        torch.testing.assert_close(alone[0], together[k], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(prompt.denoising_losses(tiny_base, latents, states, seed=5), together)


@pytest.mark.usefixtures("quick")
def test_a_card_of_a_style(
    tiny_base: BaseModel, person: Sequence[PreparedPhoto], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places only, with the words of the style and without; there is nobody to be similar to."""
    asked: list[str] = []

    def drawn(base: BaseModel, bank: LoraBank, requests: list[ImageRequest], slots: list[list[AdapterSlot]]) -> Tensor:
        asked.extend(request.prompt for request in requests)
        return denoise_all(base, bank, requests, slots)

    monkeypatch.setattr(measure, "denoise_all", drawn)
    adapter = adapter_of(tiny_base, "")
    card = score_adapter(tiny_base, adapter, person[:4], held_out=person[4:])
    assert card.likeness is None and card.prompt.prompts == len(PLACES) == 4
    assert card.overfitting.loss_gap is not None
    assert asked[0] == "photo of person in the mountains, in <<TOK>> style" and asked[4] == asked[0].split(",")[0]
    assert not any("sketch" in prompt for prompt in asked) and len(asked) == 8


@pytest.mark.usefixtures("quick")
def test_a_card_of_something_without_a_face(tiny_base: BaseModel, person: Sequence[PreparedPhoto]) -> None:
    card = score_adapter(tiny_base, adapter_of(tiny_base, "dog"), person[:4], held_out=person[4:])
    assert card.likeness is None
    assert card.prompt.prompts == len(PLACES + STYLES) == 8
    assert 0 <= card.prompt.recognised <= 1
    assert card.overfitting.loss_gap is not None
    document = json.loads(json.dumps(card.to_json()))
    assert document["likeness"] is None and document["overfitting"]["copies"] == 0
    again = score_adapter(tiny_base, adapter_of(tiny_base, "dog"), person[:4], held_out=person[4:])
    assert again.prompt == card.prompt and again.overfitting == card.overfitting


@pytest.mark.usefixtures("quick")
def test_a_card_of_a_person_measures_the_photographs_too(
    tiny_base: BaseModel, person: Sequence[PreparedPhoto], monkeypatch: pytest.MonkeyPatch
) -> None:
    large = [photo.image for photo in person if photo.framing == "portrait"]
    # the tiny base paints noise; what is under test is what is done with pictures, so it shows the photographs
    monkeypatch.setattr(measure, "to_images", lambda pixels: (large * 2)[: len(pixels)])
    card = score_adapter(tiny_base, adapter_of(tiny_base, "man"), person)
    like = card.likeness
    assert like is not None
    assert (like.photos, like.portraits, like.faces) == (4, 4, 4)
    assert like.distance is not None and like.distance <= like.threshold
    assert like.alike == 1
    assert card.overfitting.copies == 8


@pytest.mark.usefixtures("quick")
def test_an_adapter_of_another_base_is_refused(tiny_base: BaseModel) -> None:
    with pytest.raises(Mismatch):
        score_adapter(tiny_base, adapter_of(tiny_base, "dog", base_sha256="0" * 64), ())


def test_the_bank_goes_away_even_where_scoring_fails(tiny_base: BaseModel) -> None:
    layer = next(module for name, module in tiny_base.networks["unet"].named_modules() if name.endswith("to_q"))
    before = len(layer._forward_hooks)
    with pytest.raises(Exception, match="boom"):  # noqa: PT012

        def broken(advance: object) -> None:
            raise RuntimeError("boom")

        score_adapter(tiny_base, adapter_of(tiny_base, "dog"), (), watch=broken)
    assert len(layer._forward_hooks) == before


@pytest.mark.parametrize("is_old", [False, True])
def test_kept_photographs_come_back(person: Sequence[PreparedPhoto], tmp_path: Path, is_old: bool) -> None:
    save_prepared(person, tmp_path)
    if is_old:  # as versions before 0.2 kept them
        for path in (tmp_path / "index.json", *tmp_path.glob("*-face.png")):
            path.unlink()
    kept = kept_photos(tmp_path)
    assert sorted(photo.framing for photo in kept) == sorted(photo.framing for photo in person)
    first = next(photo for photo in kept if photo.framing == person[0].framing)
    assert np.array_equal(first.image, person[0].image) and np.array_equal(first.matte, person[0].matte)
    assert np.array_equal(first.face, np.zeros_like(person[0].face) if is_old else person[0].face)
    with pytest.raises(InputRefused, match="not in the home folder"):
        kept_photos(tmp_path / "nothing")


def test_the_most_alike_first(person: Sequence[PreparedPhoto]) -> None:
    portraits = [photo.image for photo in person if photo.framing == "portrait"]
    noise = np.random.default_rng(0).integers(0, 256, portraits[0].shape, dtype=np.uint8)
    blurred = np.asarray(Image.fromarray(portraits[0]).resize((48, 48)).resize((512, 512)), dtype=np.uint8)
    reference = Reference.of(person)
    assert ranked([noise, blurred, portraits[0]], reference) == [2, 1, 0]
    pictures = [GeneratedImage(ImageRequest("x"), image, "", None, 1.0) for image in (noise, portraits[1])]
    assert most_alike(pictures, reference, 1) == [pictures[1]]


def test_the_command_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["--home", str(tmp_path), *words])
        return result.exit_code, result.output

    assert run("score", "nobody")[0] == 1
    assert run("score", "nobody", "-n", "99")[0] == 2
    assert run("generate", "base", "snow", "--best-of", "4")[0] == 2
