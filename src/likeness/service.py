"""The verbs over one installation. `build` is the composition root.

Nothing here draws on a screen or speaks HTTP: the command line and the server are translations of this object.
Importing it loads no network and no torch; the base is loaded by the first verb that needs it, once.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from .config import Settings
from .errors import AdapterExists, PhotosRefused, UsageError
from .portraits import check_request, prompt_of
from .progress import Advance, ShouldStop, Stopwatch, Watch, never, unwatched
from .storage.home import Home, Receipt
from .types import PERSON_NOUNS, Adapter, AdapterCard, GeneratedImage, ImageRequest, Photo, PreparedPhoto, checked_name

if TYPE_CHECKING:  # these import torch, mediapipe's package or both
    from .diffusion.base import BaseModel
    from .engine.engine import Engine
    from .fine_tuning import FineTuneOrder
    from .photos import CheckResult

BARE_BASE = "base"  # instead of an adapter's name: none
Checked = Callable[["CheckResult"], None]


@dataclass(frozen=True, eq=False)
class FineTuned:
    """A published adapter and how it came about."""

    card: AdapterCard
    checked: CheckResult
    prepared: tuple[PreparedPhoto, ...]
    losses: tuple[float, ...]  # of every step
    stage_seconds: dict[str, float]


def build(settings: Settings) -> Likeness:
    """Wire one installation from its settings."""
    return Likeness(settings, Home(settings.home.expanduser()))


@dataclass(frozen=True, eq=False)
class Likeness:
    """One installation: a home, a base, an engine."""

    settings: Settings
    home: Home

    @cached_property
    def base(self) -> BaseModel:
        """The one base, loaded at first use. Raises BaseNotFound, CorruptBase."""
        from diffusers.utils import logging as diffusers_log
        from transformers.utils import logging as transformers_log

        from .diffusion.base import load_base

        diffusers_log.set_verbosity_error()  # both speak on standard error, where our progress is
        transformers_log.set_verbosity_error()
        transformers_log.disable_progress_bar()
        return load_base(self.settings.base, self.settings.revision)

    def check(self, photos: Sequence[Photo], class_noun: str = "person") -> CheckResult:
        """Judge photographs one by one and as a set."""
        from .photos import check

        return check(photos, class_noun in PERSON_NOUNS)

    def prepare(self, checked: CheckResult, *, watch: Watch = unwatched) -> tuple[PreparedPhoto, ...]:
        """Training images (512 px) of every usable photograph, in order."""
        from .photos import prepare

        prepared: list[PreparedPhoto] = []
        for done, (photo, image, face) in enumerate(checked.usable, start=1):
            prepared += prepare(image, face, photo.sha256)
            watch(Advance("prepare", done, len(checked.usable)))
        return tuple(prepared)

    def train(
        self, photos: Sequence[Photo], order: FineTuneOrder, *,
        watch: Watch = unwatched, should_stop: ShouldStop = never, on_checked: Checked = lambda checked: None,
    ) -> FineTuned:  # fmt: skip
        """From photographs to a published adapter; a job that fails or is stopped publishes nothing.

        Args:
            on_checked: told the verdicts before anything else happens, whatever they are.

        Raises:
            AdapterExists: the name is taken and the order does not say to replace it.
            AdapterBusy: another process trains or deletes this name.
            PhotosRefused: too few usable photographs.
            Interrupted: stopped; the same order goes on from where it was.
            NonFiniteLoss, CheckpointMismatch, BaseNotFound, CorruptBase: see errors.
        """
        from .fine_tuning import fine_tune, stop_if

        name, clock = adapter_name(order.subject.name), Stopwatch()
        with self.home.lock(name):
            if self.home.adapter_folder(name).exists() and not order.replace:
                hint = "choose another name, or say --replace"
                raise AdapterExists("an adapter of this name exists already", hint=hint)
            watch(Advance("check", 0, len(photos)))
            with clock.stage("check"):
                checked = self.check(photos, order.subject.class_noun)
            on_checked(checked)
            refuse(checked)
            stop_if(should_stop)
            with clock.stage("prepare"):
                prepared = self.prepare(checked, watch=watch)
                save_prepared(prepared, emptied(self.home.photos_folder(name)))
            stop_if(should_stop)
            watch(Advance("load base", 0, 1))
            with clock.stage("load base"):
                base = self.base
            folder = self.home.checkpoint_folder(name)
            adapter, losses = fine_tune(
                base, order, prepared, class_images=self.home.class_images_folder(), checkpoint_folder=folder,
                watch=watch, should_stop=should_stop, clock=clock,
            )  # fmt: skip
            with clock.stage("publish"):
                card = self._publish(adapter, replace_existing=order.replace)
                shutil.rmtree(folder)
        return FineTuned(card, checked, prepared, losses, clock.seconds)

    def admit(self, requests: Sequence[ImageRequest]) -> None:
        """Refuse what can be refused before the base is loaded. Raises UsageError, AdapterNotFound."""
        from .diffusion.samplers import sampler_named

        for request in requests:
            check_request(request)
            sampler_named(request.sampler)
            if request.adapter is not None:
                self.home.find(request.adapter)

    def generate(self, requests: Sequence[ImageRequest], *, watch: Watch = unwatched) -> list[GeneratedImage]:
        """Make every picture, people mixed, in the order of `requests`; prompts are completed by `prompt_of`.

        Raises:
            UsageError: a value out of its range.
            AdapterNotFound, CorruptAdapter: an adapter that is not here, or damaged.
            WrongBase: an adapter of another base.
        """
        self.admit(requests)
        adapters = {name: self.adapter(name) for name in {request.adapter for request in requests} if name is not None}
        worded = [
            replace(
                request, prompt=prompt_of(request.prompt, adapters[request.adapter].card if request.adapter else None)
            )
            for request in requests
        ]
        watch(Advance("generate", 0, len(requests)))
        engine = self._engine(max((adapter.card.rank for adapter in adapters.values()), default=1))
        try:
            return engine.generate(
                worded, adapters.__getitem__, progress=lambda done: watch(Advance("generate", done, len(requests)))
            )
        finally:
            engine.close()

    def adapter(self, name: str) -> Adapter:
        """Read a published adapter. Raises AdapterNotFound, CorruptAdapter."""
        from .artifacts import adapter as folders

        return folders.read(self.home.find(name))

    def forget(self, name: str) -> Receipt:
        """Delete all of one name: adapter, prepared photographs, checkpoints, portraits."""
        return self.home.forget(checked_name(name))

    def export(self, name: str, format: str, path: Path) -> Path:
        """Write an adapter in another program's layout. Raises UsageError, AdapterNotFound, AdapterExists."""
        layout = _layout(format)
        layout.export(self.adapter(name), path)
        return path

    def import_adapter(self, path: Path, name: str, format: str, *, class_noun: str, identifier: str) -> AdapterCard:
        """Publish an adapter from a file or folder of another program, or of another Likeness.

        Args:
            class_noun, identifier: for files without a Likeness card; a card in the file goes before them.

        Raises:
            AdapterExists, CorruptAdapter: the name is taken; the file is damaged or no plain LoRA.
            WrongBase: layers that this base lacks, or a card of another base.
        """
        from .artifacts.adapter import check_base
        from .artifacts.foreign import foreign_card
        from .diffusion.lora import target_modules

        adapter_name(name)
        layout, base = _layout(format), self.base
        if self.home.adapter_folder(name).exists():
            raise AdapterExists("an adapter of this name exists already", hint="choose another name or forget it first")
        names = {
            network: tuple(target_modules(module, base.family.targets[network]))
            for network, module in base.networks.items()
        }
        said = foreign_card(
            name, class_noun, identifier, base_id=base.id, base_sha256=base.sha256, family=base.family.name
        )
        found = layout.load(path, names, said)
        check_base(found.card, base.sha256)
        with self.home.lock(name):
            return self._publish(Adapter(replace(found.card, name=name), found.weights), replace_existing=False)

    def _publish(self, adapter: Adapter, *, replace_existing: bool) -> AdapterCard:
        from .artifacts import adapter as folders

        name = adapter.card.name
        staged = self.home.new_staged_folder(name)
        try:
            kept = folders.write(adapter, staged)
            self.home.publish(name, staged, replace=replace_existing)
        finally:
            shutil.rmtree(staged.parent, ignore_errors=True)
        return kept.card

    def _engine(self, rank: int) -> Engine:
        from .engine.engine import Engine

        return Engine(self.base, slots=self.settings.slots, rank=rank, max_batch=self.settings.max_batch)


def adapter_name(name: str) -> str:
    """The name, if an adapter may have it. Raises UsageError."""
    if checked_name(name) == BARE_BASE:
        raise UsageError(f"the name {BARE_BASE} means no adapter", hint="choose another name")
    return name


def refuse(checked: CheckResult) -> None:
    """Raises PhotosRefused, with the first reason, when the set cannot be trained on."""
    if checked.set_report.verdict == "refused":
        reason = next(advice for advice in checked.set_report.advice if advice.verdict == "refused")
        raise PhotosRefused(reason.message, hint=reason.hint)


def save_prepared(prepared: Sequence[PreparedPhoto], folder: Path) -> list[Path]:
    """Write images and mattes as PNG without metadata, numbered by photograph: 01-portrait.png, 01-portrait-matte.png.

    Returns the images' paths, in order; a matte lies beside each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, int] = {}
    paths = []
    for photo in prepared:
        number = numbers.setdefault(photo.source_sha256, len(numbers) + 1)
        path = folder / f"{number:02d}-{photo.framing}.png"
        Image.fromarray(photo.image).save(path, compress_level=1)  # a tenth larger, four times quicker
        Image.fromarray(photo.matte).save(matte_path(path), compress_level=1)
        paths.append(path)
    return paths


def matte_path(image_path: Path) -> Path:
    """Where the matte of a prepared image lies."""
    return image_path.with_name(f"{image_path.stem}-matte.png")


def emptied(folder: Path) -> Path:
    """The folder without what an earlier job left in it."""
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


def _layout(format: str):  # type: ignore[no-untyped-def]
    from .artifacts.formats import FORMATS

    if format not in FORMATS:
        raise UsageError(f"expected a format of {', '.join(FORMATS)}")
    return FORMATS[format]
