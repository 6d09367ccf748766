"""The tables of figures, from the newest result of every bench: python -m bench.readme

docs/figures.md gets all of them, the README those of `FIRST_SCREEN` and how many are met.
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# bench -> how many of its goals the README tells; what is missed anywhere is named below its table
FIRST_SCREEN = {
    "demo": 2, "fresh-clone": 1, "suite": 1, "adapter-size": 1, "generate": 1, "train-together": 2, "serve": 2,
}  # fmt: skip
BEGIN, END = "<!-- figures: python -m bench.readme -->", "<!-- end of figures -->"


def newest(folder: Path) -> list[dict[str, Any]]:
    """The latest document of each name, by the date that the file's name starts with."""
    documents = {}
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text())
        documents[document["name"]] = document
    return list(documents.values())


def summary(documents: list[dict[str, Any]]) -> str:
    """How many goals there are, and which benches missed some."""
    goals = [goal for document in documents for goal in document["goals"]]
    missed = [f"`{document['name']}`" for document in documents if not all(goal["met"] for goal in document["goals"])]
    met = sum(goal["met"] for goal in goals)
    where = f" Some were missed in {', '.join(missed)}." if missed else ""
    return (
        f"{met} of {len(goals)} goals are met: [docs/figures.md](docs/figures.md) has all, with their machine.{where}"
    )


def table(documents: list[dict[str, Any]]) -> str:
    """One line for every goal of every document."""
    lines = ["| claim | goal | measured | met | bench, date, commit, cores |", "|---|---|---|---|---|"]
    for document in documents:
        cores = document["machine"]["cores"]
        source = f"`{document['name']}`, {document['date'][:10]}, {document['commit']}, {cores}"
        for goal in document["goals"]:
            bound = f"{'at least' if goal['at_least'] else 'at most'} {goal['target']:.3g}"
            met = "yes" if goal["met"] else "**no**"
            lines.append(f"| {goal['claim']} | {bound} | {goal['value']:.3g} | {met} | {source} |")
    machines = sorted({d["machine"]["cpu"] for d in documents})
    return "\n".join([*lines, "", f"Measured on: {'; '.join(machines)}. GPU: not measured."])


def with_table(text: str, figures: str) -> str:
    """A page with `figures` between its markers. Raises ValueError where they are missing."""
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}"


def main() -> None:
    documents = newest(ROOT / "bench" / "results")
    named = {document["name"]: document for document in documents}
    first = [
        named[name] | {"goals": named[name]["goals"][:count]} for name, count in FIRST_SCREEN.items() if name in named
    ]
    figures = {"README.md": f"{table(first)}\n\n{summary(documents)}", "docs/figures.md": table(documents)}
    for name, text in figures.items():
        (ROOT / name).write_text(with_table((ROOT / name).read_text(), text))


if __name__ == "__main__":
    main()
