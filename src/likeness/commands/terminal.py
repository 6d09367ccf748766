"""The terminal: progress on standard error, documents and tables on standard output, and the interrupt key."""

import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from ..errors import LikenessError
from ..types import Advance, ShouldStop, Watch

if TYPE_CHECKING:
    from ..photos import CheckResult

_COLORS = {"accepted": "green", "warned": "yellow", "refused": "red"}


class Terminal:
    """Output of one command.

    Args:
        as_json: write one JSON document to standard output, and nothing else.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.out = Console(highlight=False, soft_wrap=True)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)

    def document(self, content: object) -> None:
        """Print the document of --json; without --json, nothing."""
        if self.as_json:
            print(json.dumps(content, indent=2), flush=True)

    def say(self, text: str) -> None:
        """Print a line of the result; with --json, nothing."""
        if not self.as_json:
            self.out.print(Text(text))

    def serving(self, url: str) -> None:
        """The address of a server that is ready; with `--port 0` it is shown nowhere else."""
        self.document({"url": url})
        self.say(f"serving at {url}")

    def note(self, text: str) -> None:
        """Print a note to standard error."""
        self.err.print(Text(text))

    def table(self, table: Table) -> None:
        if not self.as_json:
            self.out.print(table)

    def fail(self, error: LikenessError) -> int:
        """Print an error; returns the exit code."""
        self.document({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
        if not self.as_json:
            self.note(f"error: {error.message}")
            if error.hint:
                self.note(f"hint: {error.hint}")
        return error.exit_code

    @contextmanager
    def progress(self) -> Iterator[Watch]:
        """Show a progress bar per stage; if standard error is a file or pipe, a line per tenth of a stage."""
        if not self.err.is_terminal:
            yield self._lines()
            return
        columns = (
            TextColumn("{task.description:<12}"), BarColumn(28), MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        tasks: dict[str, TaskID] = {}
        with Progress(*columns, console=self.err) as bars:

            def watch(advance: Advance) -> None:
                for earlier in tasks.keys() - {advance.stage}:  # a new stage means that the previous one has ended
                    bars.update(tasks[earlier], completed=bars.tasks[tasks[earlier]].total)
                if advance.stage not in tasks:
                    tasks[advance.stage] = bars.add_task(advance.stage, total=advance.total, facts="")
                bars.update(tasks[advance.stage], completed=advance.done, facts=_facts(advance))
                self._warn(advance)

            yield watch

    def _lines(self) -> Watch:
        told: set[tuple[str, int]] = set()

        def watch(advance: Advance) -> None:
            tenth = (advance.stage, 10 * advance.done // max(advance.total, 1))
            if tenth not in told:
                told.add(tenth)
                self.note(f"{advance.stage} {advance.done}/{advance.total} {_facts(advance)}".rstrip())
            self._warn(advance)

        return watch

    def _warn(self, advance: Advance) -> None:
        if advance.warning:
            self.note(f"warning: {advance.warning}")


def verdict_table(checked: "CheckResult") -> Table:
    """One row per photograph, then the advice for the set."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("photo", "verdict", "reasons", "hint"):
        table.add_column(heading, overflow="fold")
    for report in checked.reports:
        reasons = "; ".join(reason.message for reason in report.reasons)
        verdict = Text(report.verdict, style=_COLORS[report.verdict])
        table.add_row(Text(report.file), verdict, Text(reasons), Text(report.hint))
    return table


def rows_table(rows: Sequence[Mapping[str, object]]) -> Table:
    """Documents with equal keys as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in rows[0]:
        table.add_column(heading.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    return table


def set_lines(checked: "CheckResult") -> list[str]:
    """Coverage and advice of a set as lines of text."""
    summary = checked.set_report
    lines = [f"{summary.count} of {len(checked.reports)} photographs can be used"]
    for aspect, counts in summary.coverage.items():
        lines.append(f"  {aspect}: " + ", ".join(f"{value} {count}" for value, count in counts.items()))
    return lines + [f"  {advice.verdict}: {advice.message}; {advice.hint}" for advice in summary.advice]


@contextmanager
def interruptible() -> Iterator[ShouldStop]:
    """Within the block, the first SIGINT or SIGTERM requests a stop; a second SIGINT interrupts at once."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def _facts(advance: Advance) -> str:
    parts = [] if advance.loss is None else [f"loss {advance.loss:.4f}"]
    if advance.images_per_s is not None:
        parts.append(f"{advance.images_per_s:.1f} images/s")
    return ", ".join(parts)
