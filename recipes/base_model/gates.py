"""The goals of the base as one table, and the measurements of prompts, words, speed and size."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from likeness.diffusion.base import locate
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.sampling import AdapterSlot, denoise_all

from .classifier import HEADS
from .exam import Exam
from .face_shape import FAR
from .prompts import says_glasses

WORDS_OF = "photo of a man with brown hair"
CHANGES = (  # of one or two words of the prompt
    ("man", "woman"), ("man", "old man"), ("man", "smiling man"), ("brown", "red"), ("man", "<<abc>> man"),
    ("hair", "hair and a beard"), ("hair", "hair wearing glasses"),
)  # fmt: skip
SPEED_IMAGES, SPEED_ROUNDS, SPEED_RANK = 8, 3, 8


@dataclass(frozen=True)
class Goal:
    """One line of the table; without bounds it is reported without a goal."""

    claim: str
    unit: str = ""
    least: float | None = None
    most: float | None = None

    def is_met(self, value: float) -> bool | None:
        if self.least is None and self.most is None:
            return None
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    @property
    def words(self) -> str:
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g} {self.unit}".strip()
        if self.least is not None:
            return f">= {self.least:g} {self.unit}".strip()
        return "-" if self.most is None else f"<= {self.most:g} {self.unit}".strip()


@dataclass(frozen=True)
class Measured:
    """A figure, its number of samples, and a remark."""

    value: float
    samples: int
    note: str = ""


GOALS: Mapping[str, Goal] = {
    "broken faces": Goal(f"sampled photos: mesh further than {FAR} from true renders', or no face", "%", most=8),
    "broken faces, glasses": Goal("likewise, of those with glasses", "%"),
    "yaw": Goal("sampled photos: mean turn of the head, difference from true renders'", "degrees", most=3),
    "eye contrast": Goal("sampled photos: contrast of the eyes over true renders'", least=0.9),
    "jitter": Goal("sampled photos: movement of the mesh when the picture is turned, in distances of the eyes"),
    "faces": Goal("sampled photos: a face is found", "%"),
    "fast, broken faces": Goal("fast images, likewise: broken", "%"),
    "fast, yaw": Goal("fast images: mean turn of the head, difference from true renders'", "degrees"),
    "fast, eye contrast": Goal("fast images: contrast of the eyes over true renders'"),
    "band 8-16": Goal("autoencoder, photo renders: power at 8 to 16 cycles per 64 px over the renders'", "", 0.7, 1.15),
    "band 16-24": Goal("autoencoder, photo renders: power at 16 to 24 cycles", "", 0.7, 1.15),
    "band 24-33": Goal("autoencoder, photo renders: power at 24 to 33 cycles", "", 0.7, 1.15),
    "period two": Goal("autoencoder, photo renders: power at period two over the renders'", most=1),
    "identity of renders": Goal(
        "autoencoder, photo renders: a face to its own reconstruction, mean distance", most=0.22
    ),
    "identity of photos": Goal("autoencoder, real photographs: likewise", most=0.22),
    "reconstruction of renders": Goal("autoencoder, renders of held-out people, mean PSNR", "dB"),
    "reconstruction of photos": Goal("autoencoder, real photographs, mean PSNR", "dB"),
    "words": Goal("least share of the text states' norm that a word of the face changes", "%"),
    "style": Goal("the picture has the prompt's style", "%", 97),
    "place": Goal("the picture has the prompt's place", "%", 95),
    "glasses": Goal("the picture has the prompt's glasses", "%", 90),
    "no glasses": Goal("no glasses where none are asked", "%"),
    "hair colour": Goal("the picture has the prompt's hair colour", "%", 92),
    "clothes colour": Goal("the picture has the prompt's clothes' colour", "%", 85),
    "likeness": Goal("fine-tuned portraits: the right one of 100 people is nearest", "%", 90),
    "likeness, rank": Goal("fine-tuned portraits: place of the right one by distance, median"),
    "fast, likeness": Goal("fast fine-tuned portraits: the right one of 100 people is nearest", "%"),
    "fast, likeness, rank": Goal("fast fine-tuned portraits: place of the right one, median"),
    "likeness in words": Goal("bare base, told their looks in words: the right one of 100 is nearest", "%"),
    "likeness in words, rank": Goal("bare base, told their looks in words: place of the right one, median"),
    "likeness of renders": Goal("true renders of the same people: the right one of 100 is nearest", "%"),
    "likeness of renders, rank": Goal("true renders of the same people: place of the right one, median"),
    "likeness in styles": Goal("fine-tuned pictures in five painted styles: the right one of 100 is nearest", "%"),
    "likeness in styles, rank": Goal("fine-tuned pictures in these styles: place of the right one, median"),
    "likeness of renders in styles": Goal("true renders in these styles: the right one of 100 is nearest", "%"),
    "likeness of renders in styles, rank": Goal("true renders in these styles: place of the right one, median"),
    "style after fine-tuning": Goal("fine-tuned pictures have the prompt's style", "%", 95),
    "real distance": Goal("real person: portraits to the photographs, mean distance", most=0.58),
    "real share": Goal("real person: portraits nearer than 0.6", "%", 50),
    "fast, real distance": Goal("real person, fast images: portraits to the photographs, mean distance"),
    "fast, real share": Goal("real person, fast images: portraits nearer than 0.6", "%"),
    "stranger distance": Goal("other people's portraits to those photographs, mean distance"),
    "stranger share": Goal("other people's portraits nearer than 0.6", "%"),
    "bare base distance": Goal("portraits without fine-tuning to those photographs, mean distance"),
    "bare base share": Goal("portraits without fine-tuning nearer than 0.6", "%"),
    "real photographs": Goal("those photographs to each other, mean distance"),
    "speed": Goal("8 images with 8 adapters, guided", "s", most=4),
    "fast, speed": Goal("8 fast images with 8 adapters", "s", most=1),
    "size": Goal("size on disk", "MB", most=34),
}

Figures = dict[str, Measured]


def measure_prompts(exam: Exam) -> Figures:
    """The share of the prompts' attributes that the judge recognises in the images."""
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
    """The judge's own accuracy, for the remarks."""
    return f"the judge itself, on held-out renders: {exam.judge.accuracy[head]:.1%}; {exam.pace}"


def measure_speed(exam: Exam) -> Figures:
    """Wall seconds from prompts to pixels on the host; median of some rounds after one to warm up."""
    base, text = exam.base, "photo of a woman on a beach"
    bank = LoraBank(base.networks, base.family.trained, slots=1 + SPEED_IMAGES, rank=SPEED_RANK)
    generator = torch.Generator().manual_seed(0)
    for slot in range(1, bank.slots):  # tiny, so that the images stay images
        bank.write(slot, torch.randn(bank.columns, generator=generator) / 1000)
    slots = [[AdapterSlot(slot)] for slot in range(1, bank.slots)]
    guided = [exam.request(text, seed) for seed in range(SPEED_IMAGES)]
    figures = {"speed": _timed(exam, lambda: denoise_all(base, bank, guided, slots), exam.pace)}
    if exam.is_fast:
        fast = [exam.fast_request(text, seed) for seed in range(SPEED_IMAGES)]
        figures["fast, speed"] = _timed(exam, lambda: denoise_all(base, bank, fast, slots), exam.pace_of("fast"))
    bank.close()
    return figures


def _timed(exam: Exam, latents: Callable[[], Tensor], pace: str) -> Measured:
    seconds = []
    for _ in range(SPEED_ROUNDS + 1):
        started = time.perf_counter()
        exam.base.decode(latents()).cpu()
        seconds.append(time.perf_counter() - started)
    return Measured(median(seconds[1:]), SPEED_ROUNDS, f"on {exam.base.device.type}; {pace}")


def measure_words(exam: Exam) -> Figures:
    """How far a word moves the text encoder's states, as a share of their norm: near 0, it has no effect."""
    changed = [WORDS_OF.replace(*change) for change in CHANGES]
    states = exam.base.encode_prompt(exam.base.tokenize([WORDS_OF, *changed])).states.flatten(1)  # (1 + W, N * d)
    shares = (states[1:] - states[0]).norm(dim=1) / states[0].norm()
    word, other = CHANGES[int(shares.argmin())]
    return {"words": Measured(100 * shares.min().item(), len(changed), f"the least: '{other}' for '{word}'")}


def measure_size(exam: Exam) -> Figures:
    """All files of the base's folder."""
    files = [path for path in locate(exam.settings.base).rglob("*") if path.is_file()]
    return {"size": Measured(sum(path.stat().st_size for path in files) / 1e6, len(files), "files")}
