"""Computes an adapter's score card: makes portraits with and without the adapter, and measures them.

`score_adapter` is the entry point. It takes the base, the adapter and the prepared photographs, and does not depend on
storage or requests. It uses its own bank, so no other code may run a forward pass of the base at the same time.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from ..artifacts.adapter import strength_on
from ..diffusion.base import BaseModel
from ..diffusion.lora import BASE_SLOT, LoraBank
from ..diffusion.pixels import to_images, to_pixels
from ..diffusion.sampling import AdapterSlot, denoise_all
from ..photos import FaceDetector, MediaPipeFaces
from ..types import Adapter, Advance, ImageRequest, PreparedPhoto, Subject, Watch, unwatched
from .likeness import Image, Reference, identity_of, portraits_of, threshold_of
from .overfitting import copied_backgrounds, copies
from .prompt import denoising_losses, most_likely_prompts
from .score_card import LikenessScore, OverfittingScore, PromptScore, ScoreCard, middle

# Places, where faces can be compared, and styles, where only the prompt can be classified.
PLACES = ("photo of {} in the mountains", "photo of {} on a beach", "photo of {} in a library", "photo of {} in space")
STYLES = ("a pencil sketch of {}", "a watercolor painting of {}", "a bronze statue of {}", "pop art portrait of {}")
STEPS = 20  # or the family's own number, if that is smaller
_SLOT = 1


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """The images of all prompts: places first, then styles."""

    latents: Tensor  # (B, C, h, w)
    images: list[Image]
    repeats: int  # images of each prompt

    @property
    def in_places(self) -> list[Image]:
        return self.images[: self.repeats * len(PLACES)]


def score_adapter(
    base: BaseModel, adapter: Adapter, prepared: Sequence[PreparedPhoto], *,
    seed: int = 0, repeats: int = 1, held_out: Sequence[PreparedPhoto] = (),
    watch: Watch = unwatched, detector: FaceDetector | None = None,
) -> ScoreCard:  # fmt: skip
    """Make `repeats` images for each of eight prompts, with and without the adapter, and measure them.

    A style is scored on the four prompts of places: other styles in its prompts would contradict it. It has no
    similarity to a person; the match with the style is not measured.

    Args:
        prepared: the photographs that the adapter was trained on.
        held_out: photographs of the subject that were not trained on, for the loss gap.
        watch: called with the stage 'score' after every prompt; an exception from it ends the scoring.

    Raises:
        Mismatch: the adapter is for another base.
        CorruptAdapter: the adapter has layers that the base does not have.
        InputRefused: fewer than three photographs with a face, of a person.
        MissingPart: LiteRT, dlib or a model is not installed.
    """

    card, subject = adapter.card, adapter.card.subject
    prompts, mine_said, bare_said = prompts_of(subject)
    parts = 2 * len(prompts) + 2  # each prompt with and without the adapter, then the measurements

    def tell(done: int) -> None:
        watch(Advance("score", done, parts))

    started_s = time.perf_counter()
    scale = strength_on(card, base.sha256) * card.alpha / card.rank
    bank = LoraBank(base.networks, base.family.targets, slots=2, rank=card.rank)
    try:
        bank.write(_SLOT, bank.row_of(adapter.weights, scale=scale))
        tell(0)
        mine = _generate(base, bank, mine_said, slot=_SLOT, seed=seed, repeats=repeats, drawn=tell)
        bare = _generate(
            base, bank, bare_said, slot=BASE_SLOT, seed=seed, repeats=repeats,
            drawn=lambda count: tell(len(prompts) + count),
        )  # fmt: skip
        gap = _loss_gap(base, bank, adapter, prepared, held_out=held_out, seed=seed) if held_out else None
    finally:
        bank.close()
    prompt = PromptScore(
        len(prompts),
        _recognised(base, mine, bare_said, seed=seed),
        _recognised(base, bare, bare_said, seed=seed),
    )
    tell(parts - 1)
    likeness = None
    if subject.is_person:
        likeness = _likeness(base, prepared, mine, bare, detector=detector or MediaPipeFaces())
    overfitting = OverfittingScore(copies(mine.images, prepared), copied_backgrounds(mine.in_places, prepared), gap)
    tell(parts)
    return ScoreCard(
        card.name, card.content_sha256, base.sha256, seed, likeness, prompt, overfitting,
        round(time.perf_counter() - started_s, 3),
    )  # fmt: skip


def prompts_of(subject: Subject) -> tuple[tuple[str, ...], list[str], list[str]]:
    """The templates of a subject's score, and their prompts with and without the adapter's words."""
    if subject.kind == "style":
        bare = [prompt.format(subject.prior_noun) for prompt in PLACES]
        return PLACES, [subject.added_to(text) for text in bare], bare
    prompts = PLACES + STYLES
    mine, bare = ([prompt.format(words) for prompt in prompts] for words in (subject.words, subject.class_noun))
    return prompts, mine, bare


def _generate(
    base: BaseModel, bank: LoraBank, prompts: Sequence[str], *,
    slot: int, seed: int, repeats: int, drawn: Callable[[int], None],
) -> ScoredImages:  # fmt: skip
    """`repeats` images of every prompt; `drawn` is called with the number of finished prompts."""
    latents, steps = [], min(STEPS, base.family.steps)
    for k, prompt in enumerate(prompts):
        requests = [ImageRequest(prompt, seed=seed + k * repeats + i, steps=steps) for i in range(repeats)]
        latents.append(denoise_all(base, bank, requests, [[AdapterSlot(slot)]] * repeats))
        drawn(k + 1)
    together = torch.cat(latents)
    return ScoredImages(together, _images(base, together), repeats)


def _images(base: BaseModel, latents: Tensor) -> list[Image]:
    pixels = torch.cat([base.decode(part) for part in latents.split(8)])
    return to_images(pixels)


def _recognised(base: BaseModel, made: ScoredImages, prompts: Sequence[str], *, seed: int) -> float:
    found = most_likely_prompts(base, made.latents, prompts, seed=seed)
    return sum(place == k // made.repeats for k, place in enumerate(found)) / len(found)


def _likeness(
    base: BaseModel,
    prepared: Sequence[PreparedPhoto],
    mine: ScoredImages,
    bare: ScoredImages,
    *,
    detector: FaceDetector,
) -> LikenessScore:
    reference = Reference.of(prepared, detector=detector)
    faces = [photo for photo in portraits_of(prepared) if identity_of(photo.image, detector) is not None]
    shown = [identity_of(image, detector) for image in _as_base_shows(base, faces)]
    own = [reference.left_out(k, one) for k, one in enumerate(shown) if one is not None]
    own = own or [reference.left_out(k) for k in range(len(reference.photos))]
    threshold = threshold_of(own)
    found = {
        name: [None if one is None else reference.distance_of(one) for one in identities]
        for name, identities in {
            "mine": [identity_of(image, detector) for image in mine.in_places],
            "bare": [identity_of(image, detector) for image in bare.in_places],
        }.items()
    }
    distances = [far for far in found["mine"] if far is not None]
    return LikenessScore(
        photos=len(reference.photos), photo_distance=median(own), threshold=threshold,
        portraits=len(mine.in_places), faces=len(distances), distance=middle(distances),
        base_distance=middle(found["bare"]), alike=sum(far <= threshold for far in distances) / len(mine.in_places),
    )  # fmt: skip


def _as_base_shows(base: BaseModel, photos: Sequence[PreparedPhoto]) -> list[Image]:
    """The photographs after the base's encoder and decoder, the upper limit of a portrait's quality."""
    pixels = to_pixels([photo.image for photo in photos], base.family.resolution_px)
    return _images(base, torch.cat([base.encode_photo(part) for part in pixels.split(8)]))


def _loss_gap(
    base: BaseModel, bank: LoraBank, adapter: Adapter, prepared: Sequence[PreparedPhoto], *,
    held_out: Sequence[PreparedPhoto], seed: int,
) -> float:  # fmt: skip
    """The relative loss reduction on the training photographs minus that on held-out ones."""
    learnt: Mapping[str, float] = {
        name: _learnt(base, bank, adapter, portraits_of(photos), seed=seed)
        for name, photos in {"own": prepared, "held out": held_out}.items()
    }
    return learnt["own"] - learnt["held out"]


@torch.no_grad()
def _learnt(base: BaseModel, bank: LoraBank, adapter: Adapter, photos: Sequence[PreparedPhoto], *, seed: int) -> float:
    """1 - loss with the adapter / loss without it, over the photographs with the subject's caption."""
    pixels = to_pixels([photo.image for photo in photos], base.family.resolution_px)
    latents = torch.cat([base.encode_photo(part) for part in pixels.split(8)])
    subject = adapter.card.subject
    text = subject.added_to("") if subject.kind == "style" else f"photo of {subject.words}"
    ids = base.tokenize([text] * len(latents))
    losses = {}
    for slot in (BASE_SLOT, _SLOT):
        parts = []
        for rows, texts in zip(latents.split(8), ids.split(8), strict=True):
            with bank.route(torch.full((len(rows),), slot)):
                parts.append(denoising_losses(base, rows, base.encode_prompt(texts), seed=seed))
        losses[slot] = torch.cat(parts).mean().item()
    return 1 - losses[_SLOT] / losses[BASE_SLOT]
