"""A style adapter beside a person's: python -m recipes.base_model.style_transfer --assets PACK --renders DIR --work DIR

One style of the built-in base is held out of the styled copies of a virtual person's photographs. The style adapter is
trained on renders of other people in that style, by the service's own check, crops and captions. Then the same seeds
are drawn without adapters, with each of the two, and with both at several weights.

The judge names the style of each image and dlib's descriptor measures the distance to true renders of the person. Two
rows ask the base for the style in words: what it knows about the style without the style adapter.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from likeness.diffusion.base import BaseModel
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.sampling import AdapterSlot
from likeness.engine.prompts import worded
from likeness.photos import check, prepare_usable
from likeness.storage.objects import FileObjects
from likeness.training.data import build_training_set
from likeness.training.loop import TrainingLoop
from likeness.training.prior import class_latents
from likeness.training.recipe import FineTuneRecipe, recipe_named
from likeness.types import Photo, Subject
from recipes.measurement import commit, machine, print_table

from .data import load_attributes, shard_paths
from .exam import Exam, Pixels, Settings, pictures
from .likeness_gate import QUERY_STREAM, described, mean_distances, true_descriptors
from .render.captions import STYLE_NOUNS
from .render.people import sample_person
from .render.places import PLACES
from .tuning import virtual_sitter

SHARDS = 3  # of renders that the style's pictures are taken from
RENDERS = 8  # true renders of the person, for the distance
WEIGHTS = (0.3, 0.6, 1.0)  # of the style beside the person
PERSON, STYLE = 1, 2  # slots


@dataclass(frozen=True)
class Row:
    """One kind of image."""

    name: str
    prompt: str  # {} is a place
    adapters: tuple[tuple[int, float], ...] = ()  # slot and weight


@dataclass(frozen=True, eq=False)
class Transfer:
    """The experiment on one person and one style."""

    exam: Exam
    person: int  # seed
    style: str
    pictures: int  # of the style
    images: int  # of each kind
    person_steps: int
    style_steps: int

    @cached_property
    def base(self) -> BaseModel:
        """The base with a family that does not draw this style on the person's photographs."""
        base = self.exam.base
        styles = {text: name for text, name in base.family.styles.items() if name != self.style}
        return replace(base, family=replace(base.family, styles=styles))

    @property
    def subjects(self) -> dict[int, Subject]:
        noun = sample_person(self.person, self.exam.assets).gender
        return {PERSON: Subject("person", noun), STYLE: Subject("style", "")}

    def style_photos(self) -> list[Photo]:
        """Renders in the style, each of another person who is not held out."""
        assert self.exam.settings.renders is not None
        found: dict[int, Photo] = {}
        for path in shard_paths(self.exam.settings.renders)[:SHARDS]:
            with np.load(path) as shard:
                images, people = shard["images"], shard["person"]
            for image, person, told in zip(images, people, load_attributes([path]), strict=True):
                if told["style"] == self.style and int(person) not in found:
                    png = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
                    found[int(person)] = Photo(f"{person}.png", png)
        return list(found.values())[: self.pictures]

    def trained(self, slot: int, photos: Sequence[Photo], steps: int) -> Tensor:
        """The row of an adapter for a bank, trained alone."""
        subject, recipe, base = self.subjects[slot], self.recipe(steps), self.base
        checked = check(photos, subject.kind)
        checked.raise_if_refused()
        prepared = prepare_usable(checked, size_px=2 * base.family.resolution_px)
        objects = FileObjects(self.exam.settings.work)
        prior = class_latents(base, subject.prior_noun, recipe.class_images, objects=objects)
        data = build_training_set(base, subject, prepared, recipe=recipe, prior_latents=prior, seed=0)
        loop = TrainingLoop(base, capacity=1, rank=recipe.rank)
        try:
            loop.join(subject.name, recipe, data, seed=0)
            for step in range(1, steps + 1):
                (progress,) = loop.step()
                if progress.error is not None:
                    raise progress.error
                if step % 20 == 0:
                    told = f"{subject.name}: step {step} of {steps}, loss {progress.loss:.4f}"
                    print(told, file=sys.stderr, flush=True)
            return loop.bank.row_of(loop.leave(subject.name), scale=recipe.scale_of("unet"))
        finally:
            loop.close()

    @staticmethod
    def recipe(steps: int) -> FineTuneRecipe:
        return recipe_named("standard", steps=steps)

    def rows(self) -> list[Row]:
        noun, said = self.subjects[PERSON].class_noun, STYLE_NOUNS[self.style][0]
        me, someone = "{me} {}", f"a {noun} {{}}"
        return [
            Row("no adapter", someone),
            Row("no adapter, style in words", f"{said} of {noun} {{}}"),
            Row("style", someone, ((STYLE, 1.0),)),
            Row("person", me, ((PERSON, 1.0),)),
            Row("person, style in words", f"{said} of {me}", ((PERSON, 1.0),)),
            *(Row(f"person + style@{weight:g}", me, ((PERSON, 1.0), (STYLE, weight))) for weight in WEIGHTS),
        ]

    def drawn(self, row: Row, bank: LoraBank) -> Pixels:
        """Images (N, H, W, 3); seeds and places are the same for all rows."""
        places = [place.phrase for place in PLACES.values()]
        subjects = [self.subjects[slot] for slot, _ in row.adapters]
        requests = [
            worded(self.base, self.exam.request(row.prompt.replace("{}", places[k % len(places)]), k), subjects)
            for k in range(self.images)
        ]
        slots = [AdapterSlot(slot, weight, weight) for slot, weight in row.adapters]
        return pictures(self.base, requests, bank, slots)

    def run(self, sheet: Path | None) -> list[dict[str, object]]:
        """One line of figures for each kind of image."""
        rank = self.recipe(1).rank
        rows = {
            PERSON: self.trained(PERSON, virtual_sitter(self.exam, self.person).photos, self.person_steps),
            STYLE: self.trained(STYLE, self.style_photos(), self.style_steps),
        }
        truth = true_descriptors(self.exam, self.person, RENDERS, stream=QUERY_STREAM)
        bank, lines, shown = LoraBank(self.base.networks, self.base.family.trained, slots=3, rank=rank), [], []
        try:
            for slot, one in rows.items():
                bank.write(slot, one)
            for row in self.rows():
                drawn = self.drawn(row, bank)
                shown.append(np.concatenate(list(drawn[:8]), axis=1))
                styles = [one["style"] for one in self.exam.judged(drawn)]
                far = mean_distances(described(self.exam, drawn), truth)
                lines.append({
                    "images": row.name, "in the style %": 100 * float(np.mean([one == self.style for one in styles])),
                    "photos %": 100 * float(np.mean([one == "photo" for one in styles])),
                    "distance to the person": float(np.nanmean(far)) if not np.isnan(far).all() else None,
                    "faces": int((~np.isnan(far)).sum()),
                })  # fmt: skip
        finally:
            bank.close()
        if sheet is not None:
            cv2.imwrite(str(sheet), np.concatenate(shown)[..., ::-1])
        return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--base", default="built-in")
    parser.add_argument("--assets", type=Path, required=True, help="the MakeHuman pack")
    parser.add_argument("--renders", type=Path, required=True, help="shards of training images")
    parser.add_argument("--work", type=Path, required=True, help="folder for the judge, held-out renders, class images")
    parser.add_argument("--style", default="oil painting", choices=sorted(set(STYLE_NOUNS) - {"photo"}))
    parser.add_argument("--person", type=int, default=301, help="seed of a held-out person")
    parser.add_argument("--pictures", type=int, default=24, help="of the style")
    parser.add_argument("--images", type=int, default=12, help="of each kind")
    parser.add_argument("--person-steps", type=int, default=100)
    parser.add_argument("--style-steps", type=int, default=60)
    parser.add_argument("--sheet", type=Path, help="PNG: the first images, a line for each kind")
    parser.add_argument("--out", type=Path, help="JSON")
    args = parser.parse_args()
    started_s = time.perf_counter()
    exam = Exam(Settings(args.base, args.assets, None, args.work, renders=args.renders))
    transfer = Transfer(
        exam, args.person, args.style, args.pictures, args.images, args.person_steps, args.style_steps
    )  # fmt: skip
    lines = transfer.run(args.sheet)
    print_table(lines)
    document = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(), "machine": machine(),
        "threads": torch.get_num_threads(), "base_sha256": exam.base.sha256, "style": args.style,
        "person": args.person, "pictures": args.pictures, "images": args.images, "person_steps": args.person_steps,
        "style_steps": args.style_steps, "judge_accuracy_style": exam.judge.accuracy["style"], "rows": lines,
        "seconds": round(time.perf_counter() - started_s, 1),
    }  # fmt: skip
    print(json.dumps(document))
    if args.out is not None:
        args.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
