"""Measure a base: python -m recipes.base_model.evaluate --base DIR --assets PACK --out result.json

Nine measurements, which can be selected (`--only likeness,styles`); gates.py has the goals. Renders, class images and
the judge are cached in `--work`. Runs on CPU or GPU.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from likeness.diffusion.base import BUILT_IN, locate
from recipes.measurement import commit, print_table

from .autoencoder_gate import measure_reconstruction
from .exam import Exam, Settings
from .faces_gate import measure_faces
from .gates import (
    GOALS,
    Figures,
    measure_prompts,
    measure_size,
    measure_speed,
    measure_words,
)
from .likeness_gate import Portraits, measure_likeness, measure_real, measure_styles, tuned_portraits
from .machine import machine_words
from .model_card import hashes_of, write_card

PLAIN: Mapping[str, Callable[[Exam], Figures]] = {
    "size": measure_size,
    "speed": measure_speed,
    "words": measure_words,
    "reconstruction": measure_reconstruction,
    "faces": measure_faces,
    "prompts": measure_prompts,
}
TUNED: Mapping[str, Callable[[Exam, Sequence[Portraits]], Figures]] = {  # measurements on the same fine-tunes
    "likeness": measure_likeness,
    "styles": measure_styles,
    "real": measure_real,
}
NAMES = (*PLAIN, *TUNED)


def evaluate(exam: Exam, only: Sequence[str], note: Callable[[str, Figures], None]) -> None:
    """Make the named measurements; `note` is called with each result."""
    for name in [name for name in PLAIN if name in only]:
        note(name, PLAIN[name](exam))
    if wanted := [name for name in TUNED if name in only]:
        everybody = tuned_portraits(exam)
        for name in wanted:
            note(name, TUNED[name](exam, everybody))


def rows_of(figures: Figures) -> list[dict[str, object]]:
    """The document's rows as JSON types."""
    return [
        {
            "figure": key, "claim": GOALS[key].claim, "goal": GOALS[key].words, "value": round(one.value, 4),
            "unit": GOALS[key].unit, "met": GOALS[key].is_met(one.value), "samples": one.samples, "note": one.note,
        }
        for key, one in figures.items()
    ]  # fmt: skip


def table(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """The rows for printing."""
    words = {True: "yes", False: "NO", None: "-"}
    return [
        {
            "figure": row["claim"], "goal": row["goal"], "measured": f"{row['value']:.4g} {row['unit']}".strip(),
            "met": words[row["met"]], "samples": row["samples"], "remarks": row["note"],  # type: ignore[index]
        }
        for row in rows
    ]  # fmt: skip


def changed(text: str) -> tuple[str, object]:
    """`steps=250` as a recipe's field and its value, which is JSON. Raises ValueError for other text."""
    field, _, value = text.partition("=")
    return field, json.loads(value)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default=BUILT_IN, help="built-in, or a folder")
    parser.add_argument("--assets", type=Path, required=True, help="the MakeHuman pack")
    parser.add_argument("--photos", type=Path, help="photographs of one real person")
    parser.add_argument("--class-noun", default="person", help="of that person")
    parser.add_argument("--work", type=Path, help="folder for renders and the judge; by default one that is deleted")
    parser.add_argument("--renders", type=Path, help="finished training shards for the judge, instead of new renders")
    parser.add_argument("--people", type=int, default=10, help="virtual people to fine-tune")
    parser.add_argument("--portraits", type=int, default=12, help="of each of them")
    parser.add_argument(
        "--tune", nargs="+", type=changed, default=[], metavar="FIELD=VALUE", help="other values of the recipe"
    )
    parser.add_argument("--images", type=int, default=500, help="pictures of composed prompts")
    parser.add_argument("--judge-renders", type=int, default=6000, help="that the judge is trained on")
    parser.add_argument("--steps", type=int, help="instead of the family's own")
    parser.add_argument("--guidance", type=float, help="instead of the family's own")
    parser.add_argument("--only", default=",".join(NAMES), help=f"some of {','.join(NAMES)}")
    parser.add_argument("--out", type=Path, help="where the result goes as JSON, renewed after each measurement")
    parser.add_argument("--card", type=Path, help="the model card whose table is to be renewed")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    if not set(options.only) <= set(NAMES):
        parser.error(f"expected --only of {', '.join(NAMES)}")
    if options.people < 1 or options.portraits < 1 or options.images < 1:
        parser.error("expected at least one person, portrait and image")
    options.tune = dict(options.tune)
    if options.card is not None and options.tune:
        parser.error("expected no --tune together with --card, which tells of the recipe as it is")
    if options.card is not None and hashes_of(options.card.parent) != hashes_of(locate(options.base)):
        parser.error("expected --card of the base that is measured, got one beside other weights")
    return options


def settings_of(options: argparse.Namespace, work: Path) -> Settings:
    work.mkdir(parents=True, exist_ok=True)
    return Settings(
        base=options.base, assets=options.assets, photos=options.photos, work=work, renders=options.renders,
        people=options.people, images=options.images, portraits=options.portraits, steps=options.steps,
        guidance=options.guidance, judge_renders=options.judge_renders, tune=options.tune,
        class_noun=options.class_noun,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    told = ("steps", "guidance", "people", "portraits", "images", "judge_renders", "tune", "class_noun")
    document: dict[str, object] = {
        "name": "evaluate-base",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine_words(),
        "commit": commit(),  # first, so that a run of an hour does not fail on it
        "base": Path(options.base).name,
        "weights": asdict(hashes_of(locate(options.base))),
        "settings": {name: getattr(options, name) for name in told}
        | {"photos": None if options.photos is None else options.photos.resolve().name},
    }
    rows: list[dict[str, object]] = []
    started = time.perf_counter()

    def note(name: str, figures: Figures) -> None:
        rows.extend(rows_of(figures))
        document["figures"] = rows
        print(f"{name} measured after {time.perf_counter() - started:.0f} s", flush=True)
        if options.out is not None:
            options.out.write_text(json.dumps(document, indent=1) + "\n")
        if options.card is not None:
            write_card(options.card, document)

    with tempfile.TemporaryDirectory() as scratch:
        exam = Exam(settings_of(options, options.work or Path(scratch)))
        evaluate(exam, options.only, note)
    print_table(table(rows))
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    main()
