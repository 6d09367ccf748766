"""Prepared photographs -> training data: latents, emphasis maps, and captions as token ids.

Everything is encoded once before the first step; the loop sees neither images nor text.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffusion.base import BaseModel
from ..diffusion.family import Family
from ..diffusion.pixels import to_pixels
from ..photos import styled, vary_background
from ..photos.prepare import nearest_aspect
from ..types import PreparedPhoto, Subject
from .loss import place_emphasis
from .recipe import FineTuneRecipe

# framing -> captions; {} is '[identifier] [class noun]', or the class noun alone for class images
TEMPLATES = {
    "portrait": ("photo of {}", "a photo of {}", "portrait photo of {}"),
    "close": ("close-up photo of {}", "a close-up photo of {}"),
    "aligned": ("photo of {}", "a photo of {}", "portrait photo of {}", "close-up photo of {}"),
    "whole": ("photo of {}", "a photo of {}", "a picture of {}"),
    "tall": ("photo of {}", "a photo of {}", "portrait photo of {}"),
    "full": ("photo of {}", "a photo of {}", "a picture of {}"),
}
LEAST_ALIKE = 2  # photographs with glasses, and without, for captions that name them
_INSTEAD = {"tall": "portrait", "full": "whole"}  # framing in a bucket -> the square that it replaces
# of a style: nothing about what the picture shows; {} is '[identifier] style'
STYLE_TEMPLATES = ("picture in {}", "a picture in {}", "in {}")


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """All training data of one person, on the base's device."""

    latents: Tensor | tuple[Tensor, ...]  # N of (C, h, w): one tensor if all have one shape
    emphasis: Tensor | tuple[Tensor, ...]  # N of (1, h, w), mean 1 each
    ids: Tensor  # (N, K, ...), token ids of K captions per latent
    prior_latents: Tensor  # (M, C, h, w)
    prior_ids: Tensor  # (M, ...)
    views: Tensor | None = None  # (N, 6), see `BaseModel.reads_views`; None: whole images

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


def captions(subject: Subject, templates: Sequence[str], *, glasses: bool = False) -> list[str]:
    """Instance captions with identifier and class noun (Ruiz et al. 2023, section 3.1).

    Args:
        glasses: the caption names them.
    """
    return [template.format(f"{subject.words}{' wearing glasses' * glasses}") for template in templates]


def glasses_vary(prepared: Sequence[PreparedPhoto]) -> bool:
    """Whether some photographs show a person with glasses and some without, at least `LEAST_ALIKE` of each.

    Captions name the glasses of such sets only. Otherwise glasses that are always worn would need a word in the prompt,
    and glasses that are not always worn would be learned as a part of the face. A single photograph does not count: it
    may be a mistake of `photos.glasses`.
    """
    worn = list({photo.source_sha256: photo.glasses for photo in prepared}.values())
    return min(worn.count(True), worn.count(False)) >= LEAST_ALIKE


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
                image, matte, face = (np.ascontiguousarray(p[:, ::-1]) for p in (copy.image, copy.matte, copy.face))
                copy = replace(copy, image=image, matte=matte, face=face, crop=copy.crop and copy.crop.mirrored)
            out.append(copy)
    return out


def style_copies(
    prepared: Sequence[PreparedPhoto], family: Family, recipe: FineTuneRecipe, *, is_person: bool, seed: int
) -> list[tuple[str, PreparedPhoto]]:
    """Caption template and styled copy, `recipe.styled_copies` of each photograph, the family's styles in turn.

    A photograph without a framing of the family ("whole") has no figure, and gets no styled copy.
    """
    if not is_person or not family.styles:
        return []
    rng = np.random.default_rng(seed)
    turns = itertools.cycle(family.styles.items())
    wanted = [photo for photo in prepared if photo.framing in family.framings for _ in range(recipe.styled_copies)]
    return [(template, styled(photo, style, rng)) for photo, (template, style) in zip(wanted, turns, strict=False)]


def _coverage(masks: Sequence[np.ndarray], cells: tuple[int, int]) -> Tensor:
    """(H, W) uint8 each -> coverage of each latent cell, (B, 1, *cells)."""
    stacked = torch.from_numpy(np.stack(masks))[:, None].float() / 255
    return F.interpolate(stacked, cells, mode="area")


def framed(prepared: Sequence[PreparedPhoto], family: Family) -> list[PreparedPhoto]:
    """The framings that a family trains on: one in a bucket instead of the square of the same photograph."""
    if not family.aspects:
        return [photo for photo in prepared if photo.framing in (*family.framings, "whole")]
    better = {(photo.source_sha256, _INSTEAD[photo.framing]) for photo in prepared if photo.framing in _INSTEAD}
    wanted = {*family.framings, "whole", *_INSTEAD}
    return [
        photo for photo in prepared if photo.framing in wanted and (photo.source_sha256, photo.framing) not in better
    ]


def training_size(photo: PreparedPhoto, family: Family, side_px: int) -> tuple[int, int]:
    """Height and width for the networks: the square of this side, or the bucket with the photograph's aspect."""
    height, width = nearest_aspect(photo.image.shape[0] / photo.image.shape[1], family.aspects)
    return height * side_px // 16, width * side_px // 16


def view_of(photo: PreparedPhoto, size: tuple[int, int]) -> tuple[float, ...]:
    """The network's input for a photograph that is trained in this size, see `BaseModel.reads_views`."""
    if photo.crop is None:
        return *size, 0, 0, *size
    crop, scale = photo.crop, size[0] / photo.crop.height
    top, left = (round(max(0, edge) * scale) for edge in (crop.top, crop.left))
    return crop.source_height, crop.source_width, top, left, *size


def build_training_set(
    base: BaseModel, subject: Subject, prepared: Sequence[PreparedPhoto], *,
    recipe: FineTuneRecipe, prior_latents: Tensor, seed: int,
) -> TrainingSet:  # fmt: skip
    """Select the framings of the base's family, augment, add styled copies, encode and tokenize.

    prior_latents: (M, C, h, w) from `prior.class_latents`.
    """
    shown = framed(prepared, base.family)
    copies = augment(shown, recipe, is_person=subject.is_person, seed=seed)
    is_style = subject.kind == "style"
    templates = [STYLE_TEMPLATES if is_style else TEMPLATES[copy.framing] for copy in copies]
    for template, copy in style_copies(shown, base.family, recipe, is_person=subject.is_person, seed=seed):
        copies.append(copy)
        templates.append((template, f"{'an' if template[0] in 'aeiou' else 'a'} {template}"))
    names_glasses = subject.is_person and glasses_vary(shown)
    sizes = [training_size(copy, base.family, recipe.resolution_px or base.family.resolution_px) for copy in copies]
    latents, emphasis = dict[int, Tensor](), dict[int, Tensor]()
    for size in dict.fromkeys(sizes):
        alike = [k for k, one in enumerate(sizes) if one == size]
        latents.update(zip(alike, _encoded(base, [copies[k].image for k in alike], size), strict=True))
        cells = size[0] // base.pixels_per_cell, size[1] // base.pixels_per_cell
        found = place_emphasis(
            _coverage([copies[k].matte for k in alike], cells), _coverage([copies[k].face for k in alike], cells),
            background=recipe.background_weight, face_gain=recipe.face_gain,
        )  # fmt: skip
        emphasis.update(zip(alike, found.to(base.device), strict=True))
    views = [view_of(copy, size) for copy, size in zip(copies, sizes, strict=True)]
    most = max(len(some) for some in TEMPLATES.values())
    ids = torch.stack([
        base.tokenize([texts[k % len(texts)] for k in range(most)])
        for texts in (
            captions(subject, some, glasses=names_glasses and copy.glasses is True)
            for some, copy in zip(templates, copies, strict=True)
        )
    ])  # fmt: skip
    prior_ids = base.tokenize(class_captions(base.family, subject.prior_noun, len(prior_latents)) or [""])
    return TrainingSet(
        _rows(latents), _rows(emphasis), ids, prior_latents.float().to(base.device), prior_ids[: len(prior_latents)],
        torch.tensor(views, dtype=torch.float32) if base.reads_views else None,
    )  # fmt: skip


def _encoded(base: BaseModel, images: Sequence[np.ndarray], size: tuple[int, int]) -> Tensor:
    """(B, C, h, w), eight images at a time."""
    parts = [base.encode_photo(to_pixels(images[i : i + 8], size)) for i in range(0, len(images), 8)]
    return torch.cat(parts).float()


def _rows(found: Mapping[int, Tensor]) -> Tensor | tuple[Tensor, ...]:
    """Rows by their number: one tensor if they have one shape."""
    rows = tuple(found[k] for k in range(len(found)))
    return torch.stack(rows) if len({row.shape for row in rows}) == 1 else rows


def stand_in(base: BaseModel, resolution_px: int | None = None) -> TrainingSet:
    """A training set with the shapes and captions of a person's, and zeros, to measure a step.

    Squares only: buckets have less than their area.

    Args:
        resolution_px: of the recipe.
    """
    subject, count = Subject("nobody"), 8
    classes = torch.zeros(count, *base.latent_shape, device=base.device)
    cells = (resolution_px or base.family.resolution_px) // base.pixels_per_cell
    latents = torch.zeros(count, base.latent_shape[0], cells, cells, device=base.device)
    framings = [captions(subject, TEMPLATES[framing]) for framing in base.family.framings]
    most = max(len(texts) for texts in framings)
    ids = [base.tokenize([texts[k % len(texts)] for k in range(most)]) for texts in framings]
    return TrainingSet(
        latents, torch.ones_like(latents[:, :1]), torch.stack([ids[k % len(ids)] for k in range(count)]), classes,
        base.tokenize(class_captions(base.family, subject.prior_noun, count)),
    )  # fmt: skip


def class_captions(family: Family, class_noun: str, count: int) -> list[str]:
    """The prompts of the first `count` class images."""
    templates = itertools.cycle(family.class_templates)
    return [template.format(class_noun) for template in itertools.islice(templates, count)]
