"""The result of a measurement: tables, one JSON document as the last line, and a dated file."""

import argparse
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from likeness import __version__
from recipes.measurement import Row, commit, machine, print_table

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "diffusers", "transformers", "peft", "numpy")


@dataclass(frozen=True)
class Goal:
    """One claim with its number. `at_least`: the value must reach the target; else it must stay at or below it."""

    claim: str
    value: float
    target: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.value >= self.target if self.at_least else self.value <= self.target


def options(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options of all measurements."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n\n")[0])
    parser.add_argument("--save", action="store_true", help="also write bench/results/<ISO date>-<name>.json")
    return parser


def finish(name: str, tables: Mapping[str, Sequence[Row]], *, goals: Sequence[Goal], settings: Row, save: bool) -> None:
    """Print tables and goals, then the document as the last line; with `save`, also write the file."""
    for title, rows in tables.items():
        print(f"\n{title}")
        print_table(rows)
    print("\ngoals")
    print_table([_goal_row(goal) for goal in goals])
    now = datetime.now(UTC)
    document = {
        "name": name,
        "date": now.isoformat(timespec="seconds"),
        "machine": machine(),
        "commit": commit(),
        "versions": versions(),
        "settings": settings,
        "tables": tables,
        "goals": [{**asdict(goal), "met": goal.met} for goal in goals],
    }
    if save:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{now:%Y-%m-%dT%H%M%SZ}-{name}.json"
        path.write_text(json.dumps(document, indent=1, default=str) + "\n")
        print(f"\nsaved {path.relative_to(ROOT)}")
    print(json.dumps(document, default=str), flush=True)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect the results."""
    own = {"python": platform.python_version(), "likeness": __version__}
    return own | {name: metadata.version(name) for name in PACKAGES}


def _goal_row(goal: Goal) -> Row:
    target = f"{'>=' if goal.at_least else '<='} {goal.target:g}"
    return {"goal": goal.claim, "measured": goal.value, "target": target, "met": "yes" if goal.met else "NO"}
