"""The fine-tunes for measuring likeness: trained as by a worker, and cached.

An adapter is cached under a hash of base (without its decoder), recipe and photographs, so a run with other sampling
settings, or one that was interrupted, trains only missing adapters. Four people share a loop: each additional person
needs memory, and more people give no speed-up (docs/log.md).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
from safetensors.torch import load_file, save_file
from torch import Tensor

from likeness.photos import check, prepare, read_photos
from likeness.storage.objects import FileObjects
from likeness.training.data import TrainingSet, build_training_set
from likeness.training.loop import TrainingLoop
from likeness.training.prior import class_latents
from likeness.training.recipe import FineTuneRecipe, recipe_document, recipe_named
from likeness.types import Photo, Subject

from .exam import Exam
from .kept import key_of
from .render.dataset import held_out_seeds
from .render.demo_person import held_out_photos
from .render.people import sample_person

GALLERY_PEOPLE = 100
TOGETHER = 4  # people in one loop
TRAINING_SEED = 0
REAL = "real"


@dataclass(frozen=True, eq=False)
class Sitter:
    """A person with photographs."""

    seed: int | None  # of a virtual person; None: the real one
    class_noun: str
    photos: Sequence[Photo]

    @property
    def subject(self) -> Subject:
        return Subject(REAL if self.seed is None else f"person-{self.seed}", self.class_noun)


def sitters(exam: Exam) -> list[Sitter]:
    """The number of virtual people in the settings and, if there are photographs, the real person at the end."""
    settings = exam.settings
    everybody = [virtual_sitter(exam, seed) for seed in chosen_people(exam, settings.people)]
    if settings.photos is not None:
        everybody.append(Sitter(None, settings.class_noun, read_photos([settings.photos])))
    return everybody


def chosen_people(exam: Exam, count: int) -> list[int]:
    """Seeds spread over the gallery, without people with sunglasses, which make poor photographs for training."""
    seeds = held_out_seeds()[:GALLERY_PEOPLE]
    clear = [seed for seed in seeds if sample_person(seed, exam.assets).glasses != "sunglasses"]
    return [clear[k * len(clear) // count] for k in range(count)]


def virtual_sitter(exam: Exam, seed: int) -> Sitter:
    """A held-out person with twelve photographs, as files."""
    images = held_out_photos(seed, exam.assets, size_px=2 * exam.base.family.resolution_px)
    files = [cv2.imencode(".png", image[..., ::-1])[1].tobytes() for image in images]
    photos = [Photo(f"{seed}-{k}.png", content) for k, content in enumerate(files)]
    return Sitter(seed, sample_person(seed, exam.assets).gender, photos)


def tuning_recipe(exam: Exam) -> FineTuneRecipe:
    return recipe_named("standard", exam.base.family.name, **exam.settings.tune)


def adapters(exam: Exam, everybody: Sequence[Sitter], recipe: FineTuneRecipe) -> list[Tensor]:
    """Each person's row (P,) for a bank of the recipe's rank, with alpha applied; trained unless cached."""
    paths = [_path(exam, sitter, recipe) for sitter in everybody]
    missing = [(sitter, path) for sitter, path in zip(everybody, paths, strict=True) if not path.exists()]
    for start in range(0, len(missing), TOGETHER):
        _train(exam, missing[start : start + TOGETHER], recipe)
    return [load_file(path)["row"] for path in paths]


def training_set(exam: Exam, sitter: Sitter, recipe: FineTuneRecipe) -> TrainingSet:
    """Check, prepare and encode, as in the service."""
    usable = check(sitter.photos, kind="person").usable
    size = 2 * exam.base.family.resolution_px
    prepared = [part for one in usable for part in prepare(one.image, one.face, one.photo.sha256, size_px=size)]
    objects = FileObjects(exam.settings.work)
    prior = class_latents(exam.base, sitter.class_noun, recipe.class_images, objects=objects)
    return build_training_set(
        exam.base, sitter.subject, prepared, recipe=recipe, prior_latents=prior, seed=TRAINING_SEED
    )


def _path(exam: Exam, sitter: Sitter, recipe: FineTuneRecipe) -> Path:
    key = key_of(
        base=exam.tuned_sha256, recipe=recipe_document(recipe), styles=sorted(exam.base.family.styles.values()),
        noun=sitter.class_noun, seed=TRAINING_SEED, photos=[photo.sha256 for photo in sitter.photos],
    )  # fmt: skip
    return exam.settings.work / "adapters" / f"{sitter.subject.name}-{key}.safetensors"


def _train(exam: Exam, group: Sequence[tuple[Sitter, Path]], recipe: FineTuneRecipe) -> None:
    """Train a few people in one loop and cache their adapters."""
    loop = TrainingLoop(exam.base, capacity=len(group), rank=recipe.rank)
    names = [sitter.subject.name for sitter, _ in group]
    try:
        for name, (sitter, _) in zip(names, group, strict=True):
            loop.join(name, recipe, training_set(exam, sitter, recipe), seed=TRAINING_SEED)
        for step in range(1, recipe.steps + 1):
            progress = loop.step()
            if errors := [one.error for one in progress if one.error is not None]:
                raise errors[0]
            if step % 20 == 0:
                mean = sum(one.loss for one in progress) / len(progress)
                told = f"{', '.join(names)}: step {step} of {recipe.steps}, mean loss {mean:.4f}"
                print(f"fine-tune of {told}", file=sys.stderr, flush=True)
        for name, (_, path) in zip(names, group, strict=True):
            row = loop.bank.row_of(loop.leave(name), scale=recipe.scale_of("unet"))
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"row": row}, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
    finally:
        loop.close()
