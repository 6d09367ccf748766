"""Likeness of fine-tunes: virtual people not in the training data and, if photographs are given, a real person.

Identity is measured with dlib's face descriptor, which is independent of the base. A portrait without a detected face
counts as wrong. True renders are first reduced to the base's resolution, so that both have the same sharpness. The
baseline is the base without an adapter, prompted with a description of the person.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from likeness.diffusion.lora import LoraBank
from likeness.photos import SAME_PERSON, check, descriptor, read_photos

from .exam import Exam, Pixels
from .gates import Figures, Measured, judge_note
from .kept import key_of
from .prompts import portrait_prompts, style_prompts
from .render.captions import in_words
from .render.dataset import held_out_seeds
from .render.people import sample_person
from .render.picture import attributes, render
from .render.scene import sample_scene
from .tuning import GALLERY_PEOPLE, Sitter, adapters, sitters, tuning_recipe

GALLERY_RENDERS = 4
GALLERY_STREAM, QUERY_STREAM = 101, 102  # seeds of random scenes, other than the fine-tune's
RENDER_PX = 256
SLOT = 1
PAINTED = ("oil painting", "watercolor painting", "comic book", "anime", "black and white photo")  # faces have skin

Points = NDArray[np.float64]  # (N, 128)


@dataclass(frozen=True, eq=False)
class Portraits:
    """The images of one person's adapter."""

    seed: int | None  # of the virtual person; None: the real one
    photos: Pixels  # (M, H, W, 3)
    styled: dict[str, Pixels]  # style -> (H, W, 3)
    fast: Pixels | None = None  # the photos as fast images, if the base has settings for them


def tuned_portraits(exam: Exam) -> list[Portraits]:
    """Make the portraits of all adapters."""
    everybody, recipe = sitters(exam), tuning_recipe(exam)
    rows = adapters(exam, everybody, recipe)
    bank = LoraBank(exam.base.networks, exam.base.family.trained, slots=SLOT + 1, rank=recipe.rank)
    try:
        made = []
        for sitter, row in zip(everybody, rows, strict=True):
            bank.write(SLOT, row)
            made.append(_portraits(exam, bank, sitter))
        return made
    finally:
        bank.close()


def _portraits(exam: Exam, bank: LoraBank, sitter: Sitter) -> Portraits:
    who = f"{sitter.subject.identifier} {sitter.class_noun}"
    plain, styled = portrait_prompts(who, exam.settings.portraits), style_prompts(who)
    requests = [exam.request(text, k) for k, text in enumerate([*plain, *styled.values()])]
    pictures, fast = exam.pictures(requests, bank, SLOT), None
    if exam.is_fast:
        fast_requests = [exam.fast_request(text, k) for k, text in enumerate(plain)]
        fast = exam.pictures(fast_requests, bank, SLOT)
    return Portraits(sitter.seed, pictures[: len(plain)], dict(zip(styled, pictures[len(plain) :], strict=True)), fast)


def worded_portraits(exam: Exam, seed: int) -> Pixels:
    """Images (M, H, W, 3) of the base without an adapter, for the person's description and the same seeds."""
    person = sample_person(seed, exam.assets)
    told = attributes(person, sample_scene(np.random.default_rng(seed), person))
    texts = portrait_prompts(in_words(told), exam.settings.portraits)
    return exam.pictures([exam.request(text, k) for k, text in enumerate(texts)])


def described(exam: Exam, pictures: Sequence[Pixels] | Pixels) -> Points:
    """Descriptors (N, 128) of pictures of the base's resolution; NaN without a face."""
    out = np.full((len(pictures), 128), np.nan)
    for row, picture in zip(out, pictures, strict=True):
        large, face = exam.face(picture)
        if face is not None:
            row[:] = descriptor(large, face)
    return out


def true_descriptors(exam: Exam, seed: int, count: int, *, stream: int, styles: Sequence[str] = ("photo",)) -> Points:
    """Of up to `count` true renders of a person in which a face is found, (n, 128); other scenes for each stream."""
    person, rng = sample_person(seed, exam.assets), np.random.default_rng([seed, stream])
    side, found = exam.base.family.resolution_px, []
    for k in range(3 * count):
        scene = replace(sample_scene(rng, person), style=styles[k % len(styles)])
        picture = render(person, scene, exam.assets, RENDER_PX)
        small = np.asarray(cv2.resize(picture.image, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
        point = described(exam, [small])[0]
        if not np.isnan(point).any():
            found.append(point)
        if len(found) == count:
            break
    return np.array(found).reshape(-1, 128)


def kept_descriptors(
    exam: Exam, seeds: Sequence[int], count: int, *, stream: int, styles: Sequence[str] = ("photo",)
) -> list[Points]:
    """`true_descriptors` of these people, cached in the work folder."""
    side = exam.base.family.resolution_px
    facts = {"seeds": list(seeds), "count": count, "stream": stream, "size_px": [RENDER_PX, side], "styles": styles}
    key = key_of(pack=exam.pack_sha256, **facts)
    path = exam.settings.work / f"descriptors-{key}.npz"
    if not path.exists():
        found = {str(seed): true_descriptors(exam, seed, count, stream=stream, styles=styles) for seed in seeds}
        with path.with_suffix(".tmp").open("wb") as file:
            np.savez(file, allow_pickle=False, **found)
        path.with_suffix(".tmp").replace(path)
    with np.load(path) as kept:
        return [kept[str(seed)] for seed in seeds]


def ranks(points: Points, gallery: Points, right: int) -> NDArray[np.int64]:
    """Place (N,), from 1, of row `right` among the gallery's (G, 128) by distance to each point; G for NaN."""
    distances = np.linalg.norm(points[:, None] - gallery[None], axis=-1)  # (N, G)
    distances = np.where(np.isnan(distances), np.inf, distances)
    before = (distances < distances[:, [right]]).sum(1)
    return np.where(np.isnan(points).any(1), len(gallery), 1 + before)


def measure_likeness(exam: Exam, everybody: Sequence[Portraits]) -> Figures:
    """Identification among 100 held-out people: the closest mean of true renders."""
    seeds = list(held_out_seeds()[:GALLERY_PEOPLE])
    own = kept_descriptors(exam, seeds, GALLERY_RENDERS, stream=GALLERY_STREAM)
    gallery = np.stack([points.mean(0) if len(points) else np.full(128, np.inf) for points in own])
    virtual = [(one.seed, one.photos) for one in everybody if one.seed is not None]
    sat = [seed for seed, _ in virtual]
    renders = kept_descriptors(exam, sat, exam.settings.portraits, stream=QUERY_STREAM)
    painted = [np.stack([one.styled[style] for style in PAINTED]) for one in everybody if one.seed is not None]
    places = {
        "likeness in styles": [described(exam, pictures) for pictures in painted],
        "likeness of renders in styles": kept_descriptors(exam, sat, len(PAINTED), stream=QUERY_STREAM, styles=PAINTED),
        "likeness": [described(exam, photos) for _, photos in virtual],
        "likeness in words": [described(exam, worded_portraits(exam, seed)) for seed in sat],
        "likeness of renders": renders,
    }
    if fast := [one.fast for one in everybody if one.seed is not None and one.fast is not None]:
        places["fast, likeness"] = [described(exam, photos) for photos in fast]
    figures: Figures = {}
    for name, points in places.items():
        each = [ranks(many, gallery, seeds.index(seed)) for many, seed in zip(points, sat, strict=True)]
        worst, place = min(float((rank == 1).mean()) for rank in each), np.concatenate(each)
        note = f"{len(sat)} people, the worst of them {worst:.0%}; by chance {1 / len(seeds):.0%}"
        figures[name] = _share(place == 1, note if name.startswith("likeness of") else f"{note}; {exam.pace_of(name)}")
        note = "without a face: the last"
        figures[f"{name}, rank"] = Measured(float(np.median(place)), len(place), note)
    return figures


def measure_styles(exam: Exam, everybody: Sequence[Portraits]) -> Figures:
    """Styles of the images of each adapter."""
    right: list[bool] = []
    for one in everybody:
        seen = exam.judged(np.stack(list(one.styled.values())))
        right += [row["style"] == style for style, row in zip(one.styled, seen, strict=True)]
    return {"style after fine-tuning": _share(np.array(right), judge_note(exam, "style"))}


def measure_real(exam: Exam, everybody: Sequence[Portraits]) -> Figures:
    """Distances to a real person's photographs: of their portraits, of other people's, and of the bare base."""
    if exam.settings.photos is None:
        return {}
    usable = check(read_photos([exam.settings.photos]), kind="person").usable
    truth = np.stack([descriptor(one.image, one.face) for one in usable if one.face is not None])
    texts = portrait_prompts(exam.settings.class_noun, exam.settings.portraits)
    bare = exam.pictures([exam.request(text, seed) for seed, text in enumerate(texts)])
    groups = {
        "real": [one.photos for one in everybody if one.seed is None],
        "stranger": [one.photos for one in everybody if one.seed is not None],
        "bare base": [bare],
    }
    if fast := [one.fast for one in everybody if one.seed is None and one.fast is not None]:
        groups["fast, real"] = fast
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
