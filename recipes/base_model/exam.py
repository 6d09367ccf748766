"""Shared inputs of the gates, computed once at first use: base, renders, judge, images.

Renders, class images and the judge are cached in the work folder, each under a hash of its inputs.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from likeness.diffusion.base import BaseModel, load_base
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.pixels import to_images
from likeness.diffusion.sampling import AdapterSlot, denoise_all
from likeness.photos import Face, MediaPipeFaces
from likeness.types import ImageRequest

from . import classifier
from .data import load_attributes, load_images, shard_paths
from .kept import file_sha256, key_of
from .prompts import Prompt, composed_prompts, photo_prompts
from .render.assets import Assets, load_assets
from .render.dataset import SHARD_IMAGES, Plan, training_people, write_dataset

BATCH = 32
VIEWS = 4
HELD_OUT_PEOPLE = 250
RENDER_SEED = 2  # differs from the training data's seed
SAMPLES_PER_RENDER = 10  # training samples of the judge

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Settings:
    """Settings of an evaluation."""

    base: str
    assets: Path  # the MakeHuman pack
    photos: Path | None  # real photographs of one person
    work: Path
    renders: Path | None = None  # existing training shards for the judge, instead of new ones
    people: int = 10
    images: int = 500
    portraits: int = 12  # per person
    steps: int | None = None  # None: the family's default
    guidance: float | None = None  # None: the family's default
    judge_renders: int = 6000
    tune: Mapping[str, object] = field(default_factory=dict)  # fields of the recipe with other values
    class_noun: str = "person"  # of the real person


@dataclass(frozen=True, eq=False)
class Exam:
    """One evaluation of one base."""

    settings: Settings

    @cached_property
    def base(self) -> BaseModel:
        return load_base(self.settings.base)

    @cached_property
    def tuned_sha256(self) -> str:
        """Hash of the weights that a fine-tune depends on: all but the decoder's, which it never runs."""
        found = hashlib.sha256(repr(self.base.family).encode())
        for part, network in sorted(self.base.parts.items()):
            for name, tensor in sorted(network.state_dict().items()):
                if not name.startswith("decoder."):
                    found.update(f"{part} {name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                    found.update(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    @cached_property
    def assets(self) -> Assets:
        return load_assets(self.settings.assets)

    @cached_property
    def faces(self) -> MediaPipeFaces:
        return MediaPipeFaces()

    @cached_property
    def pack_sha256(self) -> str:
        """Hash of the pack's shapes, which determine the person of a seed."""
        return file_sha256(self.settings.assets / "assets.npz")

    @cached_property
    def held_out(self) -> tuple[Tensor, list[dict]]:
        """Renders of held-out people: images (N, 3, 128, 128) uint8 and their attributes."""
        shards = self._renders("held-out", training_people(HELD_OUT_PEOPLE, held_out=True))
        return load_images(shards), load_attributes(shards)

    @cached_property
    def judge(self) -> classifier.Judge:
        """The judge, trained on renders of training people and measured on held-out ones."""
        count = self.settings.judge_renders
        if self.settings.renders is None:
            shards = self._renders("judge", training_people(-(-count // VIEWS)))
        else:
            shards = shard_paths(self.settings.renders)[: -(-count // SHARD_IMAGES)]
        facts = {"count": count, "samples": SAMPLES_PER_RENDER, "shards": [file_sha256(path) for path in shards]}
        path = self.settings.work / f"judge-{key_of(**facts, network=classifier.FACTS)}.safetensors"
        if path.exists():
            net = classifier.load(path, self.base.device)
        else:
            labels = [classifier.visible_labels(row) for row in load_attributes(shards)[:count]]
            samples = SAMPLES_PER_RENDER * len(labels)
            net = classifier.train(load_images(shards)[:count], labels, samples=samples, device=self.base.device)
            classifier.save(net, path)
        images, told = self.held_out
        return classifier.Judge.measured(net, images, [classifier.visible_labels(row) for row in told])

    @cached_property
    def prompted(self) -> tuple[list[Prompt], Pixels]:
        """Prompts with known content, and the base's images of them (N, H, W, 3)."""
        prompts = composed_prompts(self.settings.images, self.assets)
        return prompts, self.pictures([self.request(prompt.text, seed) for seed, prompt in enumerate(prompts)])

    @cached_property
    def photographed(self) -> tuple[list[Prompt], Pixels]:
        """Prompts of photos of people like those of the renders, and the base's images of them (N, H, W, 3)."""
        prompts = photo_prompts(self.settings.images, self.assets)
        return prompts, self.pictures([self.request(prompt.text, seed) for seed, prompt in enumerate(prompts)])

    @cached_property
    def photographed_fast(self) -> Pixels:
        """The fast images of `photographed`'s prompts and seeds (N, H, W, 3)."""
        return self.pictures([self.fast_request(one.text, seed) for seed, one in enumerate(self.photographed[0])])

    @property
    def is_fast(self) -> bool:
        """Whether the base has settings for fast images."""
        return self.base.family.fast_steps is not None

    @property
    def guidance(self) -> float:
        asked = self.settings.guidance
        return self.base.family.guidance_scale if asked is None else asked

    @property
    def pace(self) -> str:
        """Sampling settings, for the remarks."""
        negative = self.base.family.negative_scale
        steps = self.settings.steps or self.base.family.steps
        words = f"{steps} {self.base.family.sampler} steps, guidance {self.guidance:g}"
        return words if negative is None else f"{words}, negative scale {negative:g}"

    def pace_of(self, figure: str) -> str:
        """`pace`, or that of fast images if the figure's name begins with it."""
        return f"{self.base.family.fast_steps} steps" if figure.startswith("fast") else self.pace

    def request(self, prompt: str, seed: int) -> ImageRequest:
        return ImageRequest(prompt, seed=seed, steps=self.settings.steps, guidance_scale=self.guidance)

    def fast_request(self, prompt: str, seed: int) -> ImageRequest:
        return ImageRequest(prompt, seed=seed, guidance_scale=self.guidance, fast=True)

    def pictures(self, requests: Sequence[ImageRequest], bank: LoraBank | None = None, *slots: int) -> Pixels:
        """(N, H, W, 3) RGB, in the order of `requests`, with the adapters in `slots`."""
        return pictures(self.base, requests, bank, [AdapterSlot(slot) for slot in slots])

    def face(self, picture: Pixels) -> tuple[Pixels, Face | None]:
        """The image (H, W, 3), enlarged twice, and its most important face."""
        large = enlarged(picture)
        return large, next(iter(self.faces.detect(large)), None)

    def judged(self, pictures: Pixels) -> list[dict[str, str]]:
        """The judge's classes for pictures (N, H, W, 3)."""
        return self.judge.names(torch.from_numpy(pictures).permute(0, 3, 1, 2))

    def _renders(self, name: str, people: range) -> list[Path]:
        """Shards of these people, rendered unless cached."""
        side = self.base.family.resolution_px
        facts = {"people": [people.start, people.stop], "views": VIEWS, "seed": RENDER_SEED, "size_px": side}
        folder = self.settings.work / f"{name}-{key_of(pack=self.pack_sha256, **facts)}"
        plan = Plan(self.settings.assets, folder, people, VIEWS, RENDER_SEED, side)
        if not all(plan.shard_path(shard).exists() for shard in range(plan.shard_count)):
            write_dataset(plan, os.cpu_count() or 1)
        return shard_paths(folder)


def pictures(
    base: BaseModel, requests: Sequence[ImageRequest], bank: LoraBank | None, slots: Sequence[AdapterSlot]
) -> Pixels:
    """(N, H, W, 3) RGB, in the order of `requests`, each with the adapters in `slots`."""
    made: list[Pixels] = []
    for start in range(0, len(requests), BATCH):
        part = requests[start : start + BATCH]
        made += to_images(base.decode(denoise_all(base, bank, part, [slots] * len(part))))
    return np.stack(made)


def enlarged(picture: Pixels) -> Pixels:
    """Twice the size, by bicubic interpolation: face detectors are trained on larger images."""
    size = (2 * picture.shape[1], 2 * picture.shape[0])
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), np.uint8)
