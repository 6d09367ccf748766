"""The demo on shipped photographs of a virtual person: check, prepare, train, generate, report."""

import platform
import resource
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from ..config import Settings
from ..diffusion.base import BUILT_IN
from ..errors import Interrupted, Mismatch
from ..photos import read_photos
from ..service import FineTuned, Likeness
from ..service.contact_sheet import Tile, contact_sheet
from ..service.example import CLASS_NOUN, example_photos
from ..service.image_files import facts, save_png
from ..training.recipe import FineTuneOrder, FineTuneRecipe
from ..types import (
    Advance,
    GeneratedImage,
    ImageRequest,
    ShouldStop,
    Stopwatch,
    Subject,
    Watch,
    blend_of,
    never,
    unwatched,
)
from .training_report import Report, write_report

NAME = "demo"

# caption -> prompt; {me} is the subject
PORTRAITS: Mapping[str, str] = MappingProxyType(
    {
        "in the mountains": "photo of {me} in the mountains",
        "smiling on a beach": "photo of a smiling {me} on a beach",
        "in a library": "portrait photo of {me} in a library",
        "in space": "photo of {me} in space",
        "pencil sketch": "a pencil sketch of {me}",
        "oil painting, in a garden": "an oil painting of {me} in a garden with flowers",
        "watercolor painting": "a watercolor painting of {me}",
        "comic book, at sunset": "a comic book portrait of {me} at sunset",
        "pop art": "pop art portrait of {me}",
        "bronze statue": "a bronze statue of {me}",
        "marble statue": "a marble statue of {me}",
        "neon cyberpunk, in a city at night": "neon cyberpunk portrait of {me} in a city at night",
    }
)


@dataclass(frozen=True)
class DemoResult:
    """The demo's files, times and memory."""

    out: Path
    home: Path  # with the adapter
    contact_sheet: Path
    report: Path
    images: Mapping[Path, GeneratedImage]
    tuned: FineTuned
    stage_seconds: Mapping[str, float]
    peak_memory_bytes: int

    def to_json(self) -> dict[str, object]:
        """The document of `likeness demo --json`."""
        return {
            "out": str(self.out),
            "home": str(self.home),
            "contact_sheet": str(self.contact_sheet),
            "report": str(self.report),
            "images": [{"file": str(path), **facts(image)} for path, image in self.images.items()],
            **self.tuned.checked.to_json(),
            "losses": self.tuned.losses,
            "stage_seconds": {stage: round(seconds, 3) for stage, seconds in self.stage_seconds.items()},
            "total_seconds": round(sum(self.stage_seconds.values()), 3),
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def demo_settings(settings: Settings, out: Path) -> Settings:
    """Settings with a separate home folder in `out`, so that the demo does not touch the user's adapters."""
    return replace(settings, home=out / "home", objects=None, catalog=None, jobs=None)


def run_demo(
    likeness: Likeness, out: Path, *, recipe: FineTuneRecipe, seed: int = 0, photos: Sequence[Path] = (),
    watch: Watch = unwatched, should_stop: ShouldStop = never,
) -> DemoResult:  # fmt: skip
    """Train the adapter `demo` and write `out`: prepared/, portraits/, contact-sheet.png, report.html.

    An interrupted demo is resumed if its settings are the same, and started again otherwise.

    Args:
        likeness: of `demo_settings`; its adapter `demo` is replaced.
        photos: instead of the shipped ones.

    Raises:
        as `Likeness.train` and `Likeness.generate`; Interrupted also between two portraits.
    """
    read = read_photos(photos or [example_photos()])
    order = FineTuneOrder(Subject(NAME, CLASS_NOUN), recipe, seed=seed, replace=True)
    try:
        tuned = likeness.train(read, order, watch=watch, should_stop=should_stop)
    except Mismatch:  # an interrupted demo with another seed, recipe or base
        tuned = likeness.train(read, replace(order, restart=True), watch=watch, should_stop=should_stop)

    def made(advance: Advance) -> None:
        watch(advance)
        if should_stop():
            raise Interrupted("interrupted while making portraits", hint="run the same command again to continue")

    clock = Stopwatch()
    with clock.stage("generate"):
        images = likeness.generate(_requests(seed), watch=made)
    with clock.stage("write"):
        shutil.copytree(likeness.home.photos_folder(NAME), out / "prepared", dirs_exist_ok=True)
        saved = {
            save_png(image, out / "portraits" / f"{number:02d}.png", likeness.encode): image
            for number, image in enumerate(images, 1)
        }
        tiles = [Tile(image.image, caption) for caption, image in zip(PORTRAITS, images, strict=True)]
        originals = [one.image for one in tuned.checked.usable]
        sheet = out / "contact-sheet.png"
        contact_sheet(
            tiles, title=f"Likeness: {len(originals)} photographs in, {len(tiles)} portraits out", photos=originals
        ).save(sheet)
    stages = {**tuned.stage_seconds, **clock.seconds}
    report = Report(
        title="Likeness demo", card=tuned.card, checked=tuned.checked, prepared=tuned.prepared, losses=tuned.losses,
        portraits=tiles, stage_seconds=stages, machine=machine(likeness), peak_memory_bytes=peak_memory_bytes(),
        is_built_in=likeness.settings.base == BUILT_IN,
    )  # fmt: skip
    page = write_report(report, out / "report.html")
    return DemoResult(out, likeness.home.root, sheet, page, saved, tuned, stages, report.peak_memory_bytes)


def peak_memory_bytes() -> int:
    """The peak memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2) uses bytes on macOS and KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine(likeness: Likeness) -> str:
    """Device and platform, for the report."""
    return f"{likeness.base.device.type}, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def _requests(seed: int) -> list[ImageRequest]:
    return [ImageRequest(prompt, blend_of(NAME), seed=seed + k) for k, prompt in enumerate(PORTRAITS.values())]
