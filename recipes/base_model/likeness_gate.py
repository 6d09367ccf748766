"""Does a fine-tune learn the person: virtual people whom the base never saw and, given photographs, a real one.

All of them are fine-tuned together, as a training worker does it, with the recipe `standard`. Who a portrait shows is
asked of dlib's face descriptor, which knows nothing of the base. A portrait without a face shows nobody: it counts as
wrong. True renders are reduced to the base's resolution first, so that both are judged at the same sharpness.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from likeness.diffusion.lora import LoraBank
from likeness.photos import SAME_PERSON, check, descriptor, prepare, read_photos
from likeness.training.data import TrainingSet, build_training_set
from likeness.training.loop import FineTune, TrainingLoop
from likeness.training.prior import class_latents
from likeness.training.recipe import FineTuneRecipe, recipe_named
from likeness.types import Photo, Subject

from .exam import Exam, Pixels
from .gates import Figures, Measured, judge_note
from .prompts import portrait_prompts, style_prompts
from .render.dataset import held_out_seeds
from .render.demo_person import held_out_photos
from .render.people import sample_person
from .render.picture import render
from .render.scene import sample_scene

GALLERY_PEOPLE, GALLERY_RENDERS = 100, 4
GALLERY_STREAM, QUERY_STREAM = 101, 102  # of random scenes: neither is what the fine-tune sees
RENDER_PX = 256
REAL = "real"

Points = NDArray[np.float64]  # (N, 128)


@dataclass(frozen=True, eq=False)
class Portraits:
    """What one person's adapter made."""

    seed: int | None  # of the virtual person; None: the real one
    photos: Pixels  # (M, H, W, 3)
    styled: dict[str, Pixels]  # style -> (H, W, 3)


def chosen_people(exam: Exam, count: int) -> list[int]:
    """Seeds spread over the gallery, nobody with sunglasses: photographs with those are advised against."""
    seeds = held_out_seeds()[:GALLERY_PEOPLE]
    clear = [seed for seed in seeds if sample_person(seed, exam.assets).glasses != "sunglasses"]
    return [clear[k * len(clear) // count] for k in range(count)]


def virtual_photos(exam: Exam, seed: int) -> tuple[str, list[Photo]]:
    """Class noun and the twelve photographs of a held-out person, as files."""
    images = held_out_photos(seed, exam.assets, size_px=2 * exam.base.family.resolution_px)
    files = [cv2.imencode(".png", image[..., ::-1])[1].tobytes() for image in images]
    photos = [Photo(f"{seed}-{k}.png", content) for k, content in enumerate(files)]
    return sample_person(seed, exam.assets).gender, photos


def training_set(exam: Exam, subject: Subject, photos: Sequence[Photo], *, recipe: FineTuneRecipe) -> TrainingSet:
    """As the service does it: checked, prepared, encoded."""
    usable = check(photos, is_person=True).usable
    size = 2 * exam.base.family.resolution_px
    prepared = [part for photo, image, face in usable for part in prepare(image, face, photo.sha256, size_px=size)]
    folder = exam.settings.work / "class-images"
    prior = class_latents(exam.base, subject.class_noun, recipe.class_images, folder=folder)
    return build_training_set(exam.base, subject, prepared, recipe=recipe, prior_latents=prior, seed=0)


def tuned_portraits(exam: Exam) -> list[Portraits]:
    """Fine-tune everybody in one loop, then let everybody's adapter make its pictures."""
    settings = exam.settings
    changes = {} if settings.tune_steps is None else {"steps": settings.tune_steps}
    recipe = recipe_named("standard", **changes)
    people: dict[int | None, tuple[str, list[Photo]]] = {
        seed: virtual_photos(exam, seed) for seed in chosen_people(exam, settings.people)
    }
    if settings.photos is not None:
        people[None] = (settings.class_noun, read_photos([settings.photos]))
    loop = TrainingLoop(exam.base, capacity=len(people), rank=recipe.rank)
    try:
        jobs = {}
        for seed, (noun, photos) in people.items():
            subject = Subject(REAL if seed is None else f"person-{seed}", noun)
            data = training_set(exam, subject, photos, recipe=recipe)
            jobs[seed] = subject, loop.join(subject.name, recipe, data, seed=0)
        _train(loop, recipe.steps)
        return [_portraits(exam, loop.bank, subject, seed=seed, job=job) for seed, (subject, job) in jobs.items()]
    finally:
        loop.close()


def _train(loop: TrainingLoop, steps: int) -> None:
    for step in range(1, steps + 1):
        progress = loop.step()
        if errors := [one.error for one in progress if one.error is not None]:
            raise errors[0]
        if step % 20 == 0:
            mean = sum(one.loss for one in progress) / len(progress)
            print(f"fine-tune: step {step} of {steps}, mean loss {mean:.4f}", file=sys.stderr, flush=True)


def _portraits(exam: Exam, bank: LoraBank, subject: Subject, *, seed: int | None, job: FineTune) -> Portraits:
    who, scale = f"{subject.identifier} {subject.class_noun}", job.recipe.alpha / job.recipe.rank
    plain, styled = portrait_prompts(who, exam.settings.portraits), style_prompts(who)
    orders = [exam.order(text, k, job.slot, scale=scale) for k, text in enumerate([*plain, *styled.values()])]
    pictures = exam.pictures(orders, bank)
    return Portraits(seed, pictures[: len(plain)], dict(zip(styled, pictures[len(plain) :], strict=True)))


def described(exam: Exam, pictures: Sequence[Pixels] | Pixels) -> Points:
    """Descriptors (N, 128) of pictures of the base's resolution; NaN where no face is found."""
    out = np.full((len(pictures), 128), np.nan)
    for row, picture in zip(out, pictures, strict=True):
        large, face = exam.face(picture)
        if face is not None:
            row[:] = descriptor(large, face)
    return out


def true_descriptors(exam: Exam, seed: int, count: int, *, stream: int) -> Points:
    """Of up to `count` true renders of a person in which a face is found, (n, 128); other scenes for each stream."""
    person, rng = sample_person(seed, exam.assets), np.random.default_rng([seed, stream])
    side, found = exam.base.family.resolution_px, []
    for _ in range(3 * count):
        picture = render(person, replace(sample_scene(rng, person), style="photo"), exam.assets, RENDER_PX)
        small = np.asarray(cv2.resize(picture.image, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
        point = described(exam, [small])[0]
        if not np.isnan(point).any():
            found.append(point)
        if len(found) == count:
            break
    return np.array(found).reshape(-1, 128)


def nearest(points: Points, gallery: Points) -> NDArray[np.int64]:
    """Index of the nearest gallery row (G, 128) for each point (N, 128); -1 for NaN."""
    distances = np.linalg.norm(points[:, None] - gallery[None], axis=-1)  # (N, G)
    known = ~np.isnan(points).any(1)
    return np.where(known, np.where(np.isnan(distances), np.inf, distances).argmin(1), -1)


def measure_likeness(exam: Exam, everybody: Sequence[Portraits]) -> Figures:
    """Whose mean of true renders is nearest, among 100 held-out people."""
    seeds = list(held_out_seeds()[:GALLERY_PEOPLE])
    own = [true_descriptors(exam, seed, GALLERY_RENDERS, stream=GALLERY_STREAM) for seed in seeds]
    gallery = np.stack([points.mean(0) if len(points) else np.full(128, np.inf) for points in own])
    virtual = [(one.seed, one.photos) for one in everybody if one.seed is not None]
    made = [nearest(described(exam, photos), gallery) == seeds.index(seed) for seed, photos in virtual]
    true = [
        nearest(true_descriptors(exam, seed, len(photos), stream=QUERY_STREAM), gallery) == seeds.index(seed)
        for seed, photos in virtual
    ]
    worst = min(float(right.mean()) for right in made)
    note = f"{len(virtual)} people, the worst of them {worst:.0%}; by chance {1 / len(seeds):.0%}; {exam.pace}"
    return {"likeness": _share(np.concatenate(made), note), "likeness of renders": _share(np.concatenate(true), "")}


def measure_styles(exam: Exam, everybody: Sequence[Portraits]) -> Figures:
    """Every style asked of every person's adapter."""
    right: list[bool] = []
    for one in everybody:
        seen = exam.judged(np.stack(list(one.styled.values())))
        right += [row["style"] == style for style, row in zip(one.styled, seen, strict=True)]
    return {"style after fine-tuning": _share(np.array(right), judge_note(exam, "style"))}


def measure_real(exam: Exam, everybody: Sequence[Portraits]) -> Figures:
    """Distances to a real person's photographs: of his or her portraits, of other people's, of the bare base's."""
    if exam.settings.photos is None:
        return {}
    usable = check(read_photos([exam.settings.photos]), is_person=True).usable
    truth = np.stack([descriptor(image, face) for _, image, face in usable if face is not None])
    texts = portrait_prompts(exam.settings.class_noun, exam.settings.portraits)
    bare = exam.pictures([exam.order(text, seed) for seed, text in enumerate(texts)])
    groups = {
        "real": [one.photos for one in everybody if one.seed is None],
        "stranger": [one.photos for one in everybody if one.seed is not None],
        "bare base": [bare],
    }
    figures: Figures = {}
    for name, pictures in groups.items():
        each = mean_distances(described(exam, np.concatenate(pictures)), truth)
        found = each[~np.isnan(each)]
        if len(found):
            note = f"a face was found in {len(found)} of {len(each)}"
            figures[f"{name} distance"] = Measured(float(found.mean()), len(found), note)
        figures[f"{name} share"] = _share(each < SAME_PERSON, "without a face: not nearer")
    pairs = np.linalg.norm(truth[:, None] - truth[None], axis=-1)[np.triu_indices(len(truth), 1)]
    return figures | {"real photographs": Measured(float(pairs.mean()), len(pairs), f"most {pairs.max():.2f}")}


def mean_distances(points: Points, truth: Points) -> Points:
    """Mean distance (N,) of each point (N, 128) to all of `truth` (M, 128); NaN stays NaN."""
    return np.asarray(np.linalg.norm(points[:, None] - truth[None], axis=-1).mean(1))


def _share(right: NDArray[np.bool_], note: str) -> Measured:
    return Measured(100 * float(right.mean()), len(right), note)
