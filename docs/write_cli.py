"""Write docs/cli.md from the commands' own help: python docs/write_cli.py"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from likeness.cli import app

PAGE = Path(__file__).parent / "cli.md"
WIDTH = "100"


def page() -> str:
    """The whole page; tests/test_docs.py compares it with the file."""
    parts = ["# Commands\n\nWritten by `python docs/write_cli.py`; a test compares it with the commands.\n"]
    for words in every(get_command(app)):
        shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": WIDTH, "TERM": "dumb", "NO_COLOR": "1"})
        text = re.sub(r"[ \t]+$", "", shown.output, flags=re.MULTILINE).strip("\n")
        parts.append(f"## likeness {' '.join(words)}".rstrip() + f"\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def every(command: Any, *words: str) -> Iterator[list[str]]:
    """The words that call a command and, where it is a group, each of its own."""
    yield [*words]
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        yield from every(inner, *words, name)


if __name__ == "__main__":
    PAGE.write_text(page())
