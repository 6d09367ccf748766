"""`likeness demo` in a process of its own: seconds by stage and peak memory of the whole process tree.

python -m bench.demo [--recipe standard] [--save]

Memory is sampled. Pages shared by two processes count twice, so the figure can be too high; peaks between samples are
missed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from recipes.measurement import Row

from .report import Goal, finish, options

SAMPLE_EVERY_S = 0.1
MOST_S, MOST_GB = 180.0, 3.0


@dataclass(frozen=True)
class Run:
    """One finished command."""

    output: str
    seconds: float
    peak_bytes: int


def watched(command: list[str], log: Path) -> Run:
    """Run a command, with standard error into `log`.

    Raises:
        subprocess.CalledProcessError: the command failed; contains the log.
    """
    started_s, peak_bytes = time.perf_counter(), 0
    out = log.with_suffix(".out")
    with out.open("w") as stdout, log.open("w") as stderr:
        process = psutil.Popen(command, stdout=stdout, stderr=stderr)
        try:
            while process.poll() is None:
                peak_bytes = max(peak_bytes, tree_bytes(process))
                time.sleep(SAMPLE_EVERY_S)
        finally:
            if process.poll() is None:  # this process was interrupted
                process.kill()
    seconds = time.perf_counter() - started_s
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, out.read_text(), log.read_text())
    return Run(out.read_text(), seconds, peak_bytes)


def tree_bytes(process: psutil.Process) -> int:
    """Resident memory of a process and its descendants; 0 for processes that have just ended."""
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            total += member.memory_info().rss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def demo_command(folder: Path, args: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "likeness.cli", "--json", "--home", str(folder / "home")]
    command += ["demo", "--out", str(folder / "out")]
    command += ["--recipe", args.recipe, "--base", args.base]
    return command + ([] if args.steps is None else ["--steps", str(args.steps)])


def rows_of(document: dict[str, Any], run: Run) -> list[Row]:
    stages: dict[str, float] = document["stage_seconds"]
    start = run.seconds - sum(stages.values())
    rows: list[Row] = [{"stage": stage, "seconds": seconds} for stage, seconds in stages.items()]
    return [*rows, {"stage": "start, end, between", "seconds": start}, {"stage": "in all", "seconds": run.seconds}]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--recipe", default="standard")
    parser.add_argument("--steps", type=int, help="instead of the recipe's")
    parser.add_argument("--base", default="built-in", help="built-in, or a folder")
    args: argparse.Namespace = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = watched(demo_command(Path(folder), args), Path(folder) / "log")
        except subprocess.CalledProcessError as error:
            sys.exit(f"the demo failed with exit code {error.returncode}:\n{error.stderr}")
    document = json.loads(run.output)
    memory = [
        {"peak memory": "process tree, sampled", "GB": run.peak_bytes / 1e9},
        {"peak memory": "demo's own figure", "GB": document["peak_memory_bytes"] / 1e9},
    ]
    goals = [
        Goal("seconds, start to end", run.seconds, MOST_S, at_least=False),
        Goal("GB at the peak", max(float(str(row["GB"])) for row in memory), MOST_GB, at_least=False),
    ]
    settings = {
        "recipe": args.recipe,
        "steps": args.steps,
        "base": Path(args.base).name,
        "portraits": len(document["images"]),
    }
    finish("demo", {"time": rows_of(document, run), "memory": memory}, goals=goals, settings=settings, save=args.save)


if __name__ == "__main__":
    main()
