"""The README's table of figures, from the newest result of every bench: python -m bench.readme"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- figures: python -m bench.readme -->", "<!-- end of figures -->"


def newest(folder: Path) -> list[dict[str, Any]]:
    """The latest document of each name, by the date that the file's name starts with."""
    documents = {}
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text())
        documents[document["name"]] = document
    return list(documents.values())


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
    """The README with `figures` between its markers. Raises ValueError where they are missing."""
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}"


def main() -> None:
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text(), table(newest(ROOT / "bench" / "results"))))


if __name__ == "__main__":
    main()
