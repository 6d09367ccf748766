"""Write the figures of README.md and docs/figures.md from the newest result of every bench: python -m bench.readme

The README gets one sentence for each entry of `SENTENCES`, docs/figures.md all goals, grouped by subject. The claims in
the result files are stable labels; bench/figure_words.py puts them in plain words.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .figure_words import SENTENCES, SUBJECTS, WORDING

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- figures: python -m bench.readme -->", "<!-- end of figures -->"
BUSY = 2.0  # load average per core, above which figures of time say little

Document = Mapping[str, Any]


def newest(folder: Path) -> list[Document]:
    """The latest document of each name, by the date that the file's name starts with."""
    documents = {}
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text())
        documents[document["name"]] = document
    return list(documents.values())


def in_words(claim: str) -> str:
    """A claim's plain wording, or the claim itself where it has none."""
    for pattern, words in WORDING:
        if found := re.fullmatch(pattern, claim):
            return found.expand(words)
    return claim


def sentences(documents: Sequence[Document]) -> list[str]:
    """The README's lines: one figure each, with its baseline, for the results that exist."""
    named = {document["name"]: document for document in documents}
    lines = []
    for bench, pattern, sentence in SENTENCES:
        goals = named[bench]["goals"] if bench in named else ()
        matches = [(re.fullmatch(pattern, goal["claim"]), goal["value"]) for goal in goals]
        lines += [sentence.format(found[0], *found.groups(), value=value) for found, value in matches if found]
    return lines


def summary(documents: Sequence[Document]) -> str:
    """Where the figures were measured, how many goals there are, and which benches missed some."""
    goals = [goal for document in documents for goal in document["goals"]]
    missed = [f"`{document['name']}`" for document in documents if not all(goal["met"] for goal in document["goals"])]
    met = sum(goal["met"] for goal in goals)
    some = f"\nSome were missed in {', '.join(missed)}." if missed else ""
    return (
        f"{machines(documents)}\n[docs/figures.md](docs/figures.md) has all figures, dates and commits.\n"
        f"The project's own goals: {met} of {len(goals)} are met.{some}"
    )


def machines(documents: Sequence[Document]) -> str:
    """The dates and processors of the measurements."""
    cores: dict[str, set[int]] = {}
    for document in documents:
        cores.setdefault(document["machine"]["cpu"], set()).add(document["machine"]["cores"])
    each = [f"{' or '.join(map(str, sorted(counts)))} cores of {cpu}" for cpu, counts in sorted(cores.items())]
    days = sorted({document["date"][:10] for document in documents})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"Measured {when} on {', and on '.join(each)}, without a GPU."


def tables(documents: Sequence[Document]) -> str:
    """Every goal of every document: by subject, then by bench. Raises KeyError for a bench that has no subject."""
    named = {document["name"]: document for document in documents}
    known = {bench for benches in SUBJECTS.values() for bench in benches}
    if unknown := sorted(set(named) - known):
        raise KeyError(f"expected every bench in SUBJECTS, got also {', '.join(unknown)}")
    parts = []
    for subject, benches in SUBJECTS.items():
        measured = {bench: explained for bench, explained in benches.items() if bench in named}
        if measured:
            parts.append(f"## {subject}")
            parts += [table(named[bench], explained) for bench, explained in measured.items()]
    return "\n\n".join(parts)


def table(document: Document, explained: str) -> str:
    """One bench: what it does, where and when it ran, and a line for each goal."""
    machine = document["machine"]
    ran = f"{document['date'][:10]}, commit {document['commit']}, cores: {machine['cores']}, {machine['cpu']}"
    load = machine["load_average_1_5_15_min"][-1]
    if load > BUSY * machine["cores"]:
        ran += f", on a busy machine: load average {load:.0f}"
    lines = [
        f"**`{document['name']}`**: {explained} ({ran})", "", "| measurement | measured | goal | met |",
        "|---|---|---|---|",
    ]  # fmt: skip
    for goal in document["goals"]:
        bound = f"{'at least' if goal['at_least'] else 'at most'} {goal['target']:.3g}"
        met = "yes" if goal["met"] else "**no**"
        lines.append(f"| {in_words(goal['claim'])} | {goal['value']:.3g} | {bound} | {met} |")
    return "\n".join(lines)


def with_figures(text: str, figures: str) -> str:
    """A page with `figures` between its markers. Raises ValueError where they are missing."""
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}"


def pages(documents: Sequence[Document]) -> dict[str, str]:
    """The text of both pages, by path below the project's root."""
    listed = "\n".join(f"* {line}" for line in sentences(documents))
    figures = {"README.md": f"{listed}\n\n{summary(documents)}", "docs/figures.md": tables(documents)}
    return {name: with_figures((ROOT / name).read_text(), text) for name, text in figures.items()}


def main() -> None:
    for name, text in pages(newest(ROOT / "bench" / "results")).items():
        (ROOT / name).write_text(text)


if __name__ == "__main__":
    main()
