"""The generated pages are up to date, and links lead to existing files."""

import re
import runpy
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_cli_page_is_what_the_commands_say() -> None:
    written = runpy.run_path(str(DOCS / "write_cli.py"))["page"]()
    assert (DOCS / "cli.md").read_text() == written, "run: python docs/write_cli.py"


def test_http_page_is_what_the_server_says() -> None:
    written = runpy.run_path(str(DOCS / "write_http.py"))["page"]()
    assert (DOCS / "http.md").read_text() == written, "run: python docs/write_http.py"


def test_every_linked_page_exists() -> None:

    for page in [*DOCS.glob("**/*.md"), DOCS.parent / "README.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
