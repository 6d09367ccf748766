"""Writes the generated parts of the model card: python -m recipes.base_model.model_card CARD [--results FILE]

Between their markers: the figures of evaluate.py, the training by train_unet.py's log (`--log`), and the vocabulary of
the base's captions. A figure that was not measured again keeps its line, date and machine if the weights beside the
card are those that it was measured on.
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from likeness.diffusion.base import weights_sha256

from .gates import GOALS, Goal
from .kept import file_sha256, key_of
from .render.captions import ENDINGS, STYLE_NOUNS, VIEWS, vocabulary
from .render.people import AGE_GROUPS, BEARDS, ETHNICITIES, EYE_COLORS, GENDERS, GLASSES, HAIR_CUTS, HAIR_RGB
from .render.places import PLACES
from .render.scene import CLOTHES_NAMES, CLOTHES_RGB, EXPRESSIONS

FIGURES = ("<!-- figures: written by recipes.base_model.evaluate -->", "<!-- end of figures -->")
WORDS = ("<!-- words: written by recipes.base_model.model_card -->", "<!-- end of words -->")
TRAINING = ("<!-- training: written by recipes.base_model.model_card -->", "<!-- end of training -->")
HEADING = (
    "| figure | goal | measured | samples | remarks | weights | measured on |",
    "|---|---|---|---|---|---|---|",
)
OF_THE_AUTOENCODER = tuple(
    name for name in GOALS if name.split()[0] in ("reconstruction", "identity", "band") or name == "period two"
)


@dataclass(frozen=True)
class Hashes:
    """First digits of the hashes of the measured weights."""

    base: str
    vae: str

    def of(self, figure: str) -> str:
        """For the table: figures of the autoencoder do not depend on the other networks."""
        return f"vae {self.vae}" if figure in OF_THE_AUTOENCODER else f"base {self.base}"


def hashes_of(folder: Path) -> Hashes:
    """The hashes of a base's folder. Raises CorruptBase as `weights_sha256`."""
    vae = [file_sha256(path) for path in sorted((folder / "vae").glob("*.safetensors"))]
    return Hashes(weights_sha256(folder)[:8], key_of(vae=vae)[:8])


def between(text: str, marks: tuple[str, str]) -> str:
    """The text between two marks.

    Raises:
        ValueError: a mark is missing.
    """
    if not all(mark in text for mark in marks):
        raise ValueError(f"expected the marks {marks[0]} and {marks[1]} in the model card")
    return text.split(marks[0], 1)[1].split(marks[1], 1)[0]


def replaced(text: str, marks: tuple[str, str], new: str) -> str:
    """The text with `new` between the marks. Raises ValueError as `between`."""
    return text.replace(f"{marks[0]}{between(text, marks)}{marks[1]}", f"{marks[0]}\n{new}\n{marks[1]}")


def figures_table(earlier: str, results: Mapping[str, Any] | None, hashes: Hashes) -> str:
    """A line for every goal: measured now, or as it was in `earlier` on the same weights, or 'not measured'.

    Raises:
        ValueError: the results are of other weights than `hashes`.
    """
    if results is not None and results["weights"] != asdict(hashes):
        raise ValueError("expected results of the weights beside the card, got those of others")
    kept = {}
    for line in earlier.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == HEADING[0].count("|") + 1:
            kept[cells[1], cells[6]] = cells[3:-1]
    found = {} if results is None else {row["figure"]: row for row in results["figures"]}
    rows = list(HEADING)
    for key, goal in GOALS.items():
        if results is not None and key in found:
            row = found[key]
            when = f"{results['date']}, {results['machine']}, commit {results['commit']}"
            cells = [_judged(goal, f"{row['value']:.3g}"), str(row["samples"]), row["note"], hashes.of(key), when]
        elif (goal.claim, hashes.of(key)) in kept:
            value, *others = kept[goal.claim, hashes.of(key)]
            cells = [_judged(goal, value.split()[0]), *others]
        else:
            rows.append(f"| {goal.claim} | {goal.words} | not measured | | | | |")
            continue
        rows.append("| " + " | ".join([goal.claim, goal.words, *cells]) + " |")
    return "\n".join(rows)


def _judged(goal: Goal, number: str) -> str:
    """A number with its unit, and whether it misses the current goal, also for figures of earlier runs."""
    missed = " (goal missed)" if goal.is_met(float(number)) is False else ""
    return f"{number} {goal.unit}".strip() + missed


def _rate(rate: float | None) -> str:
    return "not kept" if rate is None else f"{rate:g}"


def training_table(log: Iterable[str]) -> str:
    """The training by train_unet.py's log.jsonl: data, duration and machine.

    Raises:
        ValueError: the log has no line of a run, or none of a loss.
    """
    lines = [json.loads(line) for line in log if line.strip()]
    runs, losses = [line["run"] for line in lines if "run" in line], [line for line in lines if "loss" in line]
    if not runs or not losses:
        raise ValueError("expected a log with a line for each run and lines of the loss")
    last = losses[-1]
    machines = dict.fromkeys(f"{run['machine']}: {run['processes']} x {run['batch']} rows a step" for run in runs)
    rows = {
        "pictures": f"{last['images']:,} of {last['people']:,} people",
        "samples seen": f"{last['samples']:,} in {last['step']:,} steps",
        "minutes": f"{last['s'] / 60:.0f}",
        "machine": "; ".join(machines),
        "learning rate at its peak": ", ".join(dict.fromkeys(_rate(run["learning_rate"]) for run in runs)),
        "loss at the end": f"{last['loss']:.3f}",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def words_table() -> str:
    """The vocabulary of prompts, from the tables of the training captions."""
    nouns = dict.fromkeys(noun for nouns in STYLE_NOUNS.values() for noun in nouns)
    groups: dict[str, Iterable[str]] = {
        "styles": nouns,
        "styles at the end": (ending.format("oil painting") for ending in ENDINGS),
        "people": ("person", *GENDERS, *AGE_GROUPS, *ETHNICITIES),
        "expressions": EXPRESSIONS,
        "hair": dict.fromkeys(cut[1] for cut in HAIR_CUTS),
        "hair colours": HAIR_RGB,
        "eyes": EYE_COLORS,
        "beards": BEARDS,
        "lips": ("lipstick",),
        "glasses": ("glasses", *GLASSES),
        "clothes": dict.fromkeys(CLOTHES_NAMES.values()),
        "clothes' colours": CLOTHES_RGB,
        "places": (place.phrase for place in PLACES.values()),
        "views": ("close-up", *VIEWS.values()),
    }
    rows = [
        f"| {name} | {', '.join(w for w in words if w not in ('none', 'neutral'))} |" for name, words in groups.items()
    ]
    return "\n".join(["| | words |", "|---|---|", *rows, "", f"{len(vocabulary())} words in all."])


def write_card(
    path: Path,
    results: Mapping[str, Any] | None = None,
    *,
    log: Iterable[str] | None = None,
    hashes: Hashes | None = None,
) -> None:
    """Update the generated parts of the card at `path`.

    Args:
        results: the document of evaluate.py; without it, figures of the same weights stay.
        log: lines of train_unet.py's log; without it, what the card says of the training stays.
        hashes: of the weights that the card is about; those in its folder by default.
    """  # fmt: skip
    text, hashes = path.read_text(), hashes or hashes_of(path.parent)
    text = replaced(text, FIGURES, figures_table(between(text, FIGURES), results, hashes))
    if log is not None:
        text = replaced(text, TRAINING, training_table(log))
    path.write_text(replaced(text, WORDS, words_table()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("card", type=Path)
    parser.add_argument("--results", type=Path, help="what evaluate.py wrote")
    parser.add_argument("--log", type=Path, help="log.jsonl of the training")
    options = parser.parse_args()
    results = None if options.results is None else json.loads(options.results.read_text())
    log = None if options.log is None else options.log.read_text().splitlines()
    write_card(options.card, results, log=log)


if __name__ == "__main__":
    main()
