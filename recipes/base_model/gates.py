"""What the base must reach, as one table, and the measurements that need no fine-tune."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median

import cv2
import numpy as np
import torch
from torch import Tensor

from likeness.diffusion.base import locate
from likeness.diffusion.sampling import denoise_all
from likeness.photos import check, read_photos

from .classifier import HEADS
from .data import psnr_db, to_float
from .exam import Exam
from .prompts import says_glasses

WORDS_OF = "photo of a man with brown hair"
CHANGES = (  # of a word or two in it
    ("man", "woman"), ("man", "old man"), ("man", "smiling man"), ("brown", "red"), ("man", "<<abc>> man"),
    ("hair", "hair and a beard"), ("hair", "hair wearing glasses"),
)  # fmt: skip
SPEED_IMAGES, SPEED_STEPS, SPEED_ROUNDS = 8, 30, 3


@dataclass(frozen=True)
class Goal:
    """One line of the table; without `reach` it is told, not judged."""

    claim: str
    unit: str
    reach: float | None = None
    at_least: bool = True

    def is_met(self, value: float) -> bool | None:
        if self.reach is None:
            return None
        return value >= self.reach if self.at_least else value <= self.reach

    @property
    def words(self) -> str:
        return "-" if self.reach is None else f"{'>=' if self.at_least else '<='} {self.reach:g} {self.unit}".strip()


@dataclass(frozen=True)
class Measured:
    """A figure, how many samples it rests on, and what to know about it."""

    value: float
    samples: int
    note: str = ""


GOALS: Mapping[str, Goal] = {
    "reconstruction of renders": Goal("autoencoder, renders of held-out people, mean PSNR", "dB", 33),
    "reconstruction of photos": Goal("autoencoder, real photographs, mean PSNR", "dB", 31.5),
    "faces": Goal("a face is found in a 'photo'", "%", 95),
    "words": Goal("least share of the text states' norm that a word of the face changes", "%"),
    "style": Goal("the picture has the prompt's style", "%", 95),
    "place": Goal("the picture has the prompt's place", "%", 90),
    "glasses": Goal("the picture has the prompt's glasses", "%", 90),
    "no glasses": Goal("no glasses where none are asked", "%"),
    "hair colour": Goal("the picture has the prompt's hair colour", "%", 85),
    "clothes colour": Goal("the picture has the prompt's clothes' colour", "%"),
    "likeness": Goal("fine-tuned portraits: the right one of 100 people is nearest", "%", 85),
    "likeness, rank": Goal("fine-tuned portraits: place of the right one by distance, median", ""),
    "likeness in words": Goal("bare base, told their looks in words: the right one of 100 is nearest", "%"),
    "likeness in words, rank": Goal("bare base, told their looks in words: place of the right one, median", ""),
    "likeness of renders": Goal("true renders of the same people: the right one of 100 is nearest", "%"),
    "likeness of renders, rank": Goal("true renders of the same people: place of the right one, median", ""),
    "style after fine-tuning": Goal("fine-tuned pictures have the prompt's style", "%", 85),
    "real distance": Goal("real person: portraits to the photographs, mean distance", ""),
    "real share": Goal("real person: portraits nearer than 0.6", "%"),
    "stranger distance": Goal("other people's portraits to those photographs, mean distance", ""),
    "stranger share": Goal("other people's portraits nearer than 0.6", "%"),
    "bare base distance": Goal("portraits without fine-tuning to those photographs, mean distance", ""),
    "bare base share": Goal("portraits without fine-tuning nearer than 0.6", "%"),
    "real photographs": Goal("those photographs to each other, mean distance", ""),
    "speed": Goal("8 images, 30 steps, guided", "s", 4, at_least=False),
    "size": Goal("size on disk", "MB", 32, at_least=False),
}

Figures = dict[str, Measured]


def measure_reconstruction(exam: Exam) -> Figures:
    """Through the stock autoencoder class and back, PSNR of every image, averaged."""
    figures = {"reconstruction of renders": _psnr(exam, exam.held_out[0])}
    if exam.settings.photos is not None:
        size = exam.base.family.resolution_px
        checked = check(read_photos([exam.settings.photos]), is_person=False)
        small = np.stack([_square(one.image, size) for one in checked.usable])
        figures["reconstruction of photos"] = _psnr(exam, torch.from_numpy(small).permute(0, 3, 1, 2))
    return figures


def _psnr(exam: Exam, images: Tensor) -> Measured:
    """images (N, 3, H, W) uint8."""
    parts = [to_float(part) for part in images.split(32)]
    each = torch.cat([psnr_db(exam.base.decode(exam.base.encode_photo(part)).cpu(), part) for part in parts])
    return Measured(each.mean().item(), len(each), f"worst image {each.min().item():.1f} dB")


def _square(image: np.ndarray, size_px: int) -> np.ndarray:
    """The middle square (size_px, size_px, 3)."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    window = image[top : top + side, left : left + side]
    return np.asarray(cv2.resize(window, (size_px, size_px), interpolation=cv2.INTER_AREA))


def measure_faces(exam: Exam) -> Figures:
    """Of the composed prompts' pictures, those that are asked to be photos; true renders for comparison."""
    prompts, pictures = exam.prompted
    photos = [picture for prompt, picture in zip(prompts, pictures, strict=True) if prompt.asked["style"] == "photo"]
    images, told = exam.held_out
    renders = [
        image.permute(1, 2, 0).numpy() for image, row in zip(images, told, strict=True) if row["style"] == "photo"
    ]
    renders = [np.ascontiguousarray(image) for image in renders[: len(photos)]]
    shares = [sum(exam.face(image)[1] is not None for image in many) / len(many) for many in (photos, renders)]
    return {
        "faces": Measured(100 * shares[0], len(photos), f"in {len(renders)} true renders {shares[1]:.1%}; {exam.pace}")
    }


def measure_prompts(exam: Exam) -> Figures:
    """Of what the prompts ask for, how much the judge sees in the pictures."""
    prompts, pictures = exam.prompted
    seen = exam.judged(pictures)
    figures = {}
    for head in HEADS:
        right = [
            row[head] == prompt.asked[head] for prompt, row in zip(prompts, seen, strict=True) if head in prompt.asked
        ]
        if right:
            figures[head] = Measured(100 * sum(right) / len(right), len(right), judge_note(exam, head))
    bare = [
        row["glasses"] == "none" for prompt, row in zip(prompts, seen, strict=True) if not says_glasses(prompt.text)
    ]
    if bare:
        wrong = f"the judge sees some in {exam.judge.false_glasses:.1%} of held-out renders without; {exam.pace}"
        figures["no glasses"] = Measured(100 * sum(bare) / len(bare), len(bare), wrong)
    return figures


def judge_note(exam: Exam, head: str) -> str:
    """How far the judge can be trusted."""
    return f"the judge itself, on held-out renders: {exam.judge.accuracy[head]:.1%}; {exam.pace}"


def measure_speed(exam: Exam) -> Figures:
    """Wall seconds from prompts to pixels on the host; median of some rounds after one to warm up."""
    orders = [exam.order("photo of a woman on a beach", seed) for seed in range(SPEED_IMAGES)]
    orders = [replace(order, steps=SPEED_STEPS) for order in orders]
    seconds = []
    for _ in range(SPEED_ROUNDS + 1):
        started = time.perf_counter()
        exam.base.decode(denoise_all(exam.base, None, orders)).cpu()
        seconds.append(time.perf_counter() - started)
    return {"speed": Measured(median(seconds[1:]), SPEED_ROUNDS, f"on {exam.base.device.type}")}


def measure_words(exam: Exam) -> Figures:
    """How far a word moves the text encoder's states, as a share of their norm: what is near 0 cannot be asked for."""
    changed = [WORDS_OF.replace(*change) for change in CHANGES]
    states = exam.base.encode_prompt(exam.base.tokenize([WORDS_OF, *changed])).flatten(1)  # (1 + W, N * d)
    shares = (states[1:] - states[0]).norm(dim=1) / states[0].norm()
    word, other = CHANGES[int(shares.argmin())]
    return {"words": Measured(100 * shares.min().item(), len(changed), f"the least: '{other}' for '{word}'")}


def measure_size(exam: Exam) -> Figures:
    """All files of the base's folder."""
    files = [path for path in locate(exam.settings.base).rglob("*") if path.is_file()]
    return {"size": Measured(sum(path.stat().st_size for path in files) / 1e6, len(files), "files")}
