"""Prepared photos to training rows: captions, augmentation, where the loss looks; and the shared class images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures.tiny import random_person
from likeness.diffusion.base import BaseModel
from likeness.diffusion.family import LIKENESS_128, SD_15, SDXL
from likeness.diffusion.pixels import to_pixels
from likeness.diffusion.schedule import DiffusionSchedule
from likeness.photos.styles import STYLES
from likeness.storage.objects import FileObjects
from likeness.training import prior
from likeness.training.data import (
    TEMPLATES,
    augment,
    build_training_set,
    captions,
    class_captions,
    framed,
    style_copies,
    training_size,
    view_of,
)
from likeness.training.loop import FineTune, draw_batches
from likeness.training.recipe import recipe_named
from likeness.types import Crop, PreparedPhoto, Subject


def a_photo(seed: int, framing: str = "portrait") -> PreparedPhoto:
    rng = np.random.default_rng(seed)
    matte, face = np.zeros((2, 64, 64), np.uint8)
    matte[8:, 16:56] = 255
    face[16:40, 24:40] = 255
    return PreparedPhoto(rng.integers(0, 256, (64, 64, 3), np.uint8), matte, face, framing, "ab" * 32)


@pytest.mark.parametrize("framing", TEMPLATES)
def test_captions_hold_identifier_and_class_noun(framing: str) -> None:
    for caption in captions(Subject("anna", "woman", "<<TOK>>"), TEMPLATES[framing]):
        assert "<<TOK>> woman" in caption


@pytest.mark.parametrize(
    ("worn", "noun", "named"),
    [
        ((True, True, False, False), "man", True), ((True, False, False, False), "man", False),
        ((True, True, True, False), "man", False), ((True,) * 4, "man", False),
        ((True, True, False, False), "dog", False), ((True, True, False, None), "man", False),
    ],
)  # fmt: skip
def test_captions_name_glasses_that_are_not_always_worn(
    worn: tuple[bool | None, ...], noun: str, named: bool, tiny_base: BaseModel
) -> None:
    photos = [
        replace(a_photo(k, tiny_base.family.framings[0]), glasses=glasses, source_sha256=str(k))
        for k, glasses in enumerate(worn)
    ]
    subject, recipe = Subject("anna", noun), recipe_named("fast", variants=2, styled_copies=0)
    prior = torch.zeros(1, *tiny_base.latent_shape)
    made = build_training_set(tiny_base, subject, photos, recipe=recipe, prior_latents=prior, seed=0)
    templates = TEMPLATES[photos[0].framing]
    plain, glasses = (
        tiny_base.tokenize([template.format(f"{subject.words}{said}") for template in templates])
        for said in ("", " wearing glasses")
    )
    for k, ids in enumerate(made.ids):
        assert torch.equal(ids, glasses if named and worn[k // recipe.variants] else plain), k


def test_captions_of_a_style_say_nothing_of_the_content(tiny_base: BaseModel) -> None:
    photos, recipe = [a_photo(0, "whole"), a_photo(1, "whole")], recipe_named("fast", variants=2)
    prior_latents = torch.zeros(12, *tiny_base.latent_shape)
    made = build_training_set(tiny_base, Subject("oil", ""), photos, recipe=recipe, prior_latents=prior_latents, seed=0)
    assert len(made.latents) == 4  # no styled copies
    read = [tiny_base.tokenize([text])[0] for text in ("picture in <<STY>> style", "a picture in <<STY>> style")]
    assert torch.equal(made.ids[3, 0], read[0]) and torch.equal(made.ids[0, 1], read[1])
    assert torch.equal(made.prior_ids[0], tiny_base.tokenize(["photo of person"])[0])


def test_class_images_take_the_family_s_captions_in_turn() -> None:
    assert class_captions(SD_15, "woman", 2) == ["photo of woman", "photo of woman"]
    turn = class_captions(LIKENESS_128, "woman", 13)
    assert turn[0] == turn[12] == "photo of woman" and len(set(turn)) == 12 and "bronze statue of woman" in turn


def test_the_first_copy_of_each_photo_is_as_it_is_and_every_second_is_mirrored() -> None:
    photos, recipe = [a_photo(0), a_photo(1)], recipe_named("fast", variants=4)
    copies = augment(photos, recipe, is_person=True, seed=0)
    assert len(copies) == 8
    for first, photo in ((0, photos[0]), (4, photos[1])):
        assert np.array_equal(copies[first].image, photo.image)
        assert np.array_equal(copies[first + 1].face, photo.face[:, ::-1])
        assert not np.array_equal(copies[first + 2].image, photo.image)
        assert np.array_equal(copies[first + 2].matte, photo.matte)
    again = augment(photos, recipe, is_person=True, seed=0)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(copies, again, strict=True))
    things = augment(photos, recipe, is_person=False, seed=0)
    assert np.array_equal(things[2].image, photos[0].image)


def test_styled_copies_go_through_the_family_s_styles_and_keep_the_masks() -> None:
    photos, recipe = [a_photo(k, "aligned") for k in range(3)], recipe_named("standard", styled_copies=4)
    copies = style_copies(photos, LIKENESS_128, recipe, is_person=True, seed=0)
    assert [template for template, _ in copies[:11]] == list(LIKENESS_128.styles) and len(copies) == 12
    assert copies[0][1].image.shape == photos[0].image.shape
    assert not np.array_equal(copies[0][1].image, photos[0].image) and copies[4][1].matte is photos[1].matte
    again = style_copies(photos, LIKENESS_128, recipe, is_person=True, seed=0)
    assert all(np.array_equal(a.image, b.image) for (_, a), (_, b) in zip(copies, again, strict=True))
    assert not style_copies([a_photo(0, "whole")], LIKENESS_128, recipe, is_person=True, seed=0)
    assert not style_copies(photos, SD_15, recipe, is_person=True, seed=0)
    assert not style_copies(photos, LIKENESS_128, recipe, is_person=False, seed=0)
    assert not style_copies(photos, LIKENESS_128, recipe_named("origin-2023"), is_person=True, seed=0)


def test_every_style_of_a_family_is_a_filter_and_says_who() -> None:
    for template, style in LIKENESS_128.styles.items():
        assert style in STYLES and style in template.replace(" portrait", "") and template.endswith(" {}")


def test_pixels_are_resized_to_the_base_and_scaled() -> None:
    white, black = np.full((64, 64, 3), 255, np.uint8), np.zeros((64, 64, 3), np.uint8)
    for size_px in (32, 128):
        pixels = to_pixels([white, black], size_px)
        assert pixels.shape == (2, 3, size_px, size_px)
        torch.testing.assert_close(pixels[0], torch.ones(3, size_px, size_px))
        torch.testing.assert_close(pixels[1], -torch.ones(3, size_px, size_px))


def test_a_training_set_has_a_row_for_every_copy(tiny_base: BaseModel) -> None:
    recipe = recipe_named("fast", variants=2, styled_copies=3)
    photos = [a_photo(0, "aligned"), a_photo(1, "portrait"), a_photo(2, "whole")]  # the family takes no portraits
    made = build_training_set(
        tiny_base, Subject("anna"), photos, recipe=recipe, prior_latents=torch.zeros(4, *tiny_base.latent_shape), seed=0
    )
    assert isinstance(made.latents, torch.Tensor) and isinstance(made.emphasis, torch.Tensor)
    assert made.latents.shape == (2 * 2 + 3, *tiny_base.latent_shape)
    torch.testing.assert_close(made.emphasis.mean((1, 2, 3)), torch.ones(7))
    assert made.emphasis[0, 0, 6, 7] > made.emphasis[0, 0, 14, 7] > made.emphasis[0, 0, 0, 0]  # face, body, room
    assert torch.equal(made.ids[0, 0], tiny_base.tokenize(["photo of <<TOK>> person"])[0])
    assert torch.equal(made.ids[0, 3], tiny_base.tokenize(["close-up photo of <<TOK>> person"])[0])
    assert torch.equal(made.ids[2, 2], tiny_base.tokenize(["a picture of <<TOK>> person"])[0])
    assert torch.equal(made.ids[4, 0], tiny_base.tokenize(["pencil sketch of <<TOK>> person"])[0])
    assert torch.equal(made.ids[5, 1], tiny_base.tokenize(["an oil painting of <<TOK>> person"])[0])
    assert made.prior_ids.shape == (4, 48)
    none = build_training_set(
        tiny_base, Subject("anna"), photos, recipe=recipe, prior_latents=torch.zeros(0, *tiny_base.latent_shape), seed=0
    )
    assert len(none.prior_ids) == 0


def test_photographs_in_buckets_keep_their_shape_and_go_before_their_squares(tiny_base: BaseModel) -> None:
    bucketed = replace(tiny_base, family=replace(LIKENESS_128, framings=SD_15.framings, aspects=SDXL.aspects))
    squares = [a_photo(0, "portrait"), a_photo(0, "close"), a_photo(0, "aligned"), a_photo(1, "portrait")]
    squares[3] = replace(squares[3], source_sha256="cd" * 32)
    tall = replace(
        squares[0], image=np.zeros((72, 56, 3), np.uint8), matte=np.full((72, 56), 255, np.uint8),
        face=np.zeros((72, 56), np.uint8), framing="tall", crop=Crop(400, 300, 40, 20, 180, 140),
    )  # fmt: skip
    photos = [*squares, tall]
    assert framed(photos, bucketed.family) == [squares[1], squares[3], tall]
    assert framed(photos, SD_15) == [squares[0], squares[1], squares[3]]
    assert [training_size(photo, bucketed.family, 128) for photo in (squares[1], tall)] == [(128, 128), (144, 112)]
    assert training_size(tall, SD_15, 512) == (512, 512)
    recipe, none = recipe_named("fast", variants=2, styled_copies=0), torch.zeros(0, *tiny_base.latent_shape)
    made = build_training_set(bucketed, Subject("anna"), photos, recipe=recipe, prior_latents=none, seed=0)
    assert [tuple(one.shape[1:]) for one in made.latents] == [(16, 16)] * 4 + [(18, 14)] * 2
    assert [tuple(one.shape[1:]) for one in made.emphasis] == [(16, 16)] * 4 + [(18, 14)] * 2
    assert all(one.mean() == pytest.approx(1, rel=1e-5) for one in made.emphasis)
    large = replace(recipe, resolution_px=256)
    made = build_training_set(bucketed, Subject("anna"), photos[:4], recipe=large, prior_latents=none, seed=0)
    assert isinstance(made.latents, torch.Tensor) and made.latents.shape[2:] == (32, 32)


def test_the_view_of_a_photograph_is_that_of_diffusers_script() -> None:
    """train_dreambooth_lora_sdxl.py: the size of the file, then the crop's edges in the resized photograph."""
    photo = replace(a_photo(0), crop=Crop(400, 300, 40, 20, 180, 140))
    assert view_of(photo, (1152, 896)) == (400, 300, 256, 128, 1152, 896)
    (_, mirrored) = augment([photo], recipe_named("origin-2023", variants=2), is_person=True, seed=0)
    assert view_of(mirrored, (1152, 896)) == (400, 300, 256, 896, 1152, 896)
    outside = replace(photo, crop=Crop(400, 300, -9, -9, 500, 500))
    assert view_of(outside, (1024, 1024))[2:4] == (0, 0)
    assert view_of(replace(photo, crop=None), (512, 512)) == (512, 512, 0, 0, 512, 512)


def test_a_batch_has_instance_rows_then_prior_rows(tiny_base: BaseModel) -> None:
    recipe = recipe_named("fast", instance_rows=3, prior_rows=2)
    data = random_person(tiny_base, 0)
    (batch,) = draw_batches(FineTune("a", recipe, data, torch.Generator().manual_seed(1), slot=1), tiny_base.schedule)
    assert batch.is_prior.tolist() == [False] * 3 + [True] * 2
    for row in range(5):
        source = data.prior_latents if batch.is_prior[row] else data.latents
        assert any(torch.equal(batch.x0[row], latent) for latent in source)
    assert torch.equal(batch.emphasis[3:], torch.ones(2, 1, 16, 16))
    alone = FineTune("a", recipe, random_person(tiny_base, 0, priors=0), torch.Generator(), slot=1)
    (bare,) = draw_batches(alone, tiny_base.schedule)
    assert bare.is_prior.tolist() == [False] * 3


def test_class_images_are_made_once(tiny_base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior, "STEPS", 3)
    done: list[int] = []
    first = prior.class_latents(tiny_base, "man; rm -rf ../", 10, objects=FileObjects(tmp_path), progress=done.append)
    assert first.shape == (10, *tiny_base.latent_shape)
    assert done == [8, 10]
    assert not torch.equal(first[0], first[1])
    assert torch.equal(
        prior.class_latents(tiny_base, "man; rm -rf ../", 10, objects=FileObjects(tmp_path), progress=done.append),
        first,
    )
    assert done == [8, 10]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert not any("man" in str(path.relative_to(tmp_path)) for path in files)
    assert not torch.equal(prior.class_latents(tiny_base, "woman", 2, objects=FileObjects(tmp_path)), first[:2])
    assert len(prior.class_latents(tiny_base, "cat", 0, objects=FileObjects(tmp_path))) == 0


def test_class_images_are_kept_batch_by_batch(
    tiny_base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prior, "STEPS", 2)
    monkeypatch.setattr(prior, "BATCH", 2)

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prior.class_latents(tiny_base, "man", 6, objects=FileObjects(tmp_path), progress=stop)
    made: list[int] = []
    whole = prior.class_latents(tiny_base, "man", 6, objects=FileObjects(tmp_path), progress=made.append)
    assert made == [4, 6]  # the first two are there already
    (damaged, *_) = sorted(path for path in tmp_path.rglob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert torch.equal(
        prior.class_latents(tiny_base, "man", 6, objects=FileObjects(tmp_path), progress=made.append), whole
    )
    assert made == [4, 6, 2]


def test_class_images_that_cannot_be_kept_are_made_all_the_same(
    tiny_base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prior, "STEPS", 2)
    (tmp_path / "file").write_text("no folder")
    errors: list[Exception] = []
    made = prior.class_latents(tiny_base, "man", 3, objects=FileObjects(tmp_path / "file"), unsaved=errors.append)
    assert len(made) == 3 and len(errors) == 1


def test_the_class_image_cache_knows_how_its_images_were_made(
    tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(base: BaseModel = tiny_base, noun: str = "man") -> str:
        return prior.cache_prefix(base, noun)

    folders = [folder(), folder(noun="woman")]
    assert isinstance(tiny_base.schedule, DiffusionSchedule)
    changed = replace(tiny_base.schedule, last_alpha_bar=0.5), replace(tiny_base.family, guidance_scale=9.0)
    folders += [folder(replace(tiny_base, schedule=changed[0])), folder(replace(tiny_base, family=changed[1]))]
    folders.append(folder(replace(tiny_base, family=replace(tiny_base.family, sampler="ddim"))))
    folders.append(folder(replace(tiny_base, family=replace(tiny_base.family, steps=8))))
    for name, value in {"STEPS": 9, "__version__": "0"}.items():
        with monkeypatch.context() as patch:
            patch.setattr(prior, name, value)
            folders.append(folder())
    assert len(set(folders)) == len(folders)
    assert folder() == folders[0]


def test_class_images_do_not_depend_on_the_batch(
    tiny_base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prior, "STEPS", 3)
    by_eight = prior.class_latents(tiny_base, "man", 5, objects=FileObjects(tmp_path / "a"))
    monkeypatch.setattr(prior, "BATCH", 2)
    torch.testing.assert_close(prior.class_latents(tiny_base, "man", 5, objects=FileObjects(tmp_path / "b")), by_eight)
