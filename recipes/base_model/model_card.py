"""The two parts of the model card that no hand writes: python -m recipes.base_model.model_card CARD [--results FILE]

Between their markers: the figures that evaluate.py measured, and the words that the base's captions were made of.
A figure that was not measured this time keeps its line, with the date and machine that it has.
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .gates import GOALS
from .render.captions import STYLE_NOUNS, VIEWS, vocabulary
from .render.people import AGE_GROUPS, BEARDS, ETHNICITIES, EYE_COLORS, GENDERS, GLASSES, HAIR_CUTS, HAIR_RGB
from .render.places import PLACES
from .render.scene import CLOTHES_NAMES, CLOTHES_RGB, EXPRESSIONS

FIGURES = ("<!-- figures: written by recipes.base_model.evaluate -->", "<!-- end of figures -->")
WORDS = ("<!-- words: written by recipes.base_model.model_card -->", "<!-- end of words -->")
HEADING = ("| figure | goal | measured | samples | remarks | measured on |", "|---|---|---|---|---|---|")


def between(text: str, marks: tuple[str, str]) -> str:
    """What stands between two marks.

    Raises:
        ValueError: a mark is missing.
    """
    if not all(mark in text for mark in marks):
        raise ValueError(f"expected the marks {marks[0]} and {marks[1]} in the model card")
    return text.split(marks[0], 1)[1].split(marks[1], 1)[0]


def replaced(text: str, marks: tuple[str, str], new: str) -> str:
    """The text with `new` between the marks. Raises ValueError as `between`."""
    return text.replace(f"{marks[0]}{between(text, marks)}{marks[1]}", f"{marks[0]}\n{new}\n{marks[1]}")


def figures_table(earlier: str, results: Mapping[str, Any] | None) -> str:
    """A line for every goal: measured now, or as it was in `earlier`, or 'not measured'."""
    lines = {line.split("|")[1].strip(): line for line in earlier.splitlines() if line.startswith("| ")}
    found = {} if results is None else {row["figure"]: row for row in results["figures"]}
    rows = list(HEADING)
    for key, goal in GOALS.items():
        if results is not None and key in found:
            row = found[key]
            value = f"{row['value']:.3g} {goal.unit}".strip() + (" (goal missed)" if row["met"] is False else "")
            when = f"{results['date']}, {results['machine']}, commit {results['commit']}"
            cells = [goal.claim, goal.words, value, str(row["samples"]), row["note"], when]
            rows.append("| " + " | ".join(cells) + " |")
        else:
            rows.append(lines.get(goal.claim, f"| {goal.claim} | {goal.words} | not measured | | | |"))
    return "\n".join(rows)


def words_table() -> str:
    """What a prompt can say, from the tables that the training captions were made of."""
    nouns = dict.fromkeys(noun for nouns in STYLE_NOUNS.values() for noun in nouns)
    groups: dict[str, Iterable[str]] = {
        "styles": nouns,
        "people": ("person", *GENDERS, *AGE_GROUPS, *ETHNICITIES),
        "expressions": EXPRESSIONS,
        "hair": dict.fromkeys(cut[1] for cut in HAIR_CUTS),
        "hair colours": HAIR_RGB,
        "eyes": EYE_COLORS,
        "beards": BEARDS,
        "glasses": GLASSES,
        "clothes": dict.fromkeys(CLOTHES_NAMES.values()),
        "clothes' colours": CLOTHES_RGB,
        "places": (place.phrase for place in PLACES.values()),
        "views": ("close-up", *VIEWS.values()),
    }
    rows = [
        f"| {name} | {', '.join(w for w in words if w not in ('none', 'neutral'))} |" for name, words in groups.items()
    ]
    return "\n".join(["| | words |", "|---|---|", *rows, "", f"{len(vocabulary())} words in all."])


def write_card(path: Path, results: Mapping[str, Any] | None = None) -> None:
    """Renew both parts of the card at `path`; `results` is the document of evaluate.py."""
    text = path.read_text()
    text = replaced(text, FIGURES, figures_table(between(text, FIGURES), results))
    path.write_text(replaced(text, WORDS, words_table()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("card", type=Path)
    parser.add_argument("--results", type=Path, help="what evaluate.py wrote")
    options = parser.parse_args()
    write_card(options.card, None if options.results is None else json.loads(options.results.read_text()))


if __name__ == "__main__":
    main()
