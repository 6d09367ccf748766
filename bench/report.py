"""The result of a measurement: tables, one JSON document as the last line, and a dated file."""

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from likeness import __version__

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
MEASURED = ("src", "recipes", "bench/*.py")
PACKAGES = ("torch", "diffusers", "transformers", "peft", "numpy")

Row = Mapping[str, object]


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


def print_table(rows: Sequence[Row]) -> None:
    """Print rows as aligned columns, numbers to the right."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(head, "")) for head in heads] for row in rows]
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]
    is_text = [any(isinstance(row.get(head), str) for row in rows) for head in heads]
    for line in [heads, ["-" * width for width in widths], *cells]:
        places = zip(line, widths, is_text, strict=True)
        print("  ".join(cell.ljust(width) if text else cell.rjust(width) for cell, width, text in places).rstrip())


def machine() -> Row:
    """Processor, cores, memory and load; nothing that identifies the machine."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "load_average_1_5_15_min": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
    }


def commit() -> str:
    """Short hash of the commit, with `-changed` if measured or measuring code differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("-changed" if git("status", "--short", *MEASURED) else "")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect the results."""
    own = {"python": platform.python_version(), "likeness": __version__}
    return own | {name: metadata.version(name) for name in PACKAGES}


def _goal_row(goal: Goal) -> Row:
    target = f"{'>=' if goal.at_least else '<='} {goal.target:g}"
    return {"goal": goal.claim, "measured": goal.value, "target": target, "met": "yes" if goal.met else "NO"}


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cpu_model() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
