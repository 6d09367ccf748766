"""Prepared photographs -> training data: latents, emphasis maps, and captions as token ids.

Everything is encoded once before the first step; the loop sees neither images nor text.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffusion.base import BaseModel
from ..diffusion.family import Family
from ..diffusion.pixels import to_pixels
from ..photos import styled, vary_background
from ..types import PreparedPhoto, Subject
from .loss import place_emphasis
from .recipe import FineTuneRecipe

# framing -> captions; {} is '[identifier] [class noun]', or the class noun alone for class images
TEMPLATES = {
    "portrait": ("photo of {}", "a photo of {}", "portrait photo of {}"),
    "close": ("close-up photo of {}", "a close-up photo of {}"),
    "aligned": ("photo of {}", "a photo of {}", "portrait photo of {}", "close-up photo of {}"),
    "whole": ("photo of {}", "a photo of {}", "a picture of {}"),
}
# of a style: nothing about what the picture shows; {} is '[identifier] style'
STYLE_TEMPLATES = ("picture in {}", "a picture in {}", "in {}")


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """All training data of one person, on the base's device."""

    latents: Tensor  # (N, C, h, w)
    emphasis: Tensor  # (N, 1, h, w), mean 1 over each row
    ids: Tensor  # (N, K, ...), token ids of K captions per latent
    prior_latents: Tensor  # (M, C, h, w)
    prior_ids: Tensor  # (M, ...)

    @cached_property
    def captions(self) -> "Captions":
        return Captions.of(self)


@dataclass(frozen=True, eq=False)
class Captions:
    """The distinct captions of a training set, and those of each latent."""

    ids: Tensor  # (D, ...)
    instance: Tensor  # (N, K) indices in `ids`
    prior: Tensor  # (M,)

    @classmethod
    def of(cls, data: TrainingSet) -> "Captions":
        every = torch.cat([data.ids.flatten(0, 1), data.prior_ids])
        ids, place = torch.unique(every, dim=0, return_inverse=True)
        instance, prior = place.split([data.ids.shape[0] * data.ids.shape[1], len(data.prior_ids)])
        return cls(ids, instance.view(data.ids.shape[:2]), prior)


def captions(subject: Subject, templates: Sequence[str]) -> list[str]:
    """Instance captions with identifier and class noun (Ruiz et al. 2023, section 3.1)."""
    return [template.format(subject.words) for template in templates]


def augment(
    prepared: Sequence[PreparedPhoto], recipe: FineTuneRecipe, *, is_person: bool, seed: int
) -> list[PreparedPhoto]:
    """Copies of each prepared photograph: one unchanged, the others with a new background, half of them mirrored."""
    rng = np.random.default_rng(seed)
    out = []
    for photo in prepared:
        for k in range(recipe.variants):
            copy = vary_background(photo, rng) if k and is_person and recipe.vary_background else photo
            if k % 2:
                copy = PreparedPhoto(
                    np.ascontiguousarray(copy.image[:, ::-1]), np.ascontiguousarray(copy.matte[:, ::-1]),
                    np.ascontiguousarray(copy.face[:, ::-1]), copy.framing, copy.source_sha256,
                )  # fmt: skip
            out.append(copy)
    return out


def style_copies(
    prepared: Sequence[PreparedPhoto], family: Family, recipe: FineTuneRecipe, *, is_person: bool, seed: int
) -> list[tuple[str, PreparedPhoto]]:
    """Caption template and styled copy, `recipe.styled_copies` of each photograph, the family's styles in turn.

    A photograph without a framing of the family ("whole") has no figure to draw, and gives none.
    """
    if not is_person or not family.styles:
        return []
    rng = np.random.default_rng(seed)
    turns = itertools.cycle(family.styles.items())
    wanted = [photo for photo in prepared if photo.framing in family.framings for _ in range(recipe.styled_copies)]
    return [(template, styled(photo, style, rng)) for photo, (template, style) in zip(wanted, turns, strict=False)]


def _coverage(masks: Sequence[np.ndarray], cells: int) -> Tensor:
    """(H, W) uint8 each -> coverage of each latent cell, (B, 1, cells, cells)."""
    stacked = torch.from_numpy(np.stack(masks))[:, None].float() / 255
    return F.interpolate(stacked, (cells, cells), mode="area")


def build_training_set(
    base: BaseModel, subject: Subject, prepared: Sequence[PreparedPhoto], *,
    recipe: FineTuneRecipe, prior_latents: Tensor, seed: int,
) -> TrainingSet:  # fmt: skip
    """Select the framings of the base's family, augment, add styled copies, encode and tokenize.

    prior_latents: (M, C, h, w) from `prior.class_latents`.
    """
    framed = [photo for photo in prepared if photo.framing in (*base.family.framings, "whole")]
    copies = augment(framed, recipe, is_person=subject.is_person, seed=seed)
    is_style = subject.kind == "style"
    templates = [STYLE_TEMPLATES if is_style else TEMPLATES[copy.framing] for copy in copies]
    for template, copy in style_copies(framed, base.family, recipe, is_person=subject.is_person, seed=seed):
        copies.append(copy)
        templates.append((template, f"{'an' if template[0] in 'aeiou' else 'a'} {template}"))
    cells = base.latent_shape[-1]
    latents = torch.cat([
        base.encode_photo(to_pixels([copy.image for copy in copies[i : i + 8]], base.family.resolution_px))
        for i in range(0, len(copies), 8)
    ])  # fmt: skip
    emphasis = place_emphasis(
        _coverage([copy.matte for copy in copies], cells),
        _coverage([copy.face for copy in copies], cells),
        background=recipe.background_weight,
        face_gain=recipe.face_gain,
    )
    most = max(len(some) for some in TEMPLATES.values())
    ids = torch.stack([
        base.tokenize([texts[k % len(texts)] for k in range(most)])
        for texts in (captions(subject, some) for some in templates)
    ])  # fmt: skip
    prior_ids = base.tokenize(class_captions(base.family, subject.prior_noun, len(prior_latents)) or [""])
    return TrainingSet(
        latents.float(), emphasis.to(base.device), ids, prior_latents.float().to(base.device),
        prior_ids[: len(prior_latents)],
    )  # fmt: skip


def stand_in(base: BaseModel) -> TrainingSet:
    """A training set with the shapes and captions of a person's, and zeros, to measure a step."""
    subject, count = Subject("nobody"), 8
    latents = torch.zeros(count, *base.latent_shape, device=base.device)
    framings = [captions(subject, TEMPLATES[framing]) for framing in base.family.framings]
    most = max(len(texts) for texts in framings)
    ids = [base.tokenize([texts[k % len(texts)] for k in range(most)]) for texts in framings]
    return TrainingSet(
        latents, torch.ones(count, 1, *base.latent_shape[1:], device=base.device),
        torch.stack([ids[k % len(ids)] for k in range(count)]), latents,
        base.tokenize(class_captions(base.family, subject.prior_noun, count)),
    )  # fmt: skip


def class_captions(family: Family, class_noun: str, count: int) -> list[str]:
    """The prompts of the first `count` class images."""
    templates = itertools.cycle(family.class_templates)
    return [template.format(class_noun) for template in itertools.islice(templates, count)]
