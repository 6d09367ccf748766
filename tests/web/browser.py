"""Chromium for tests of the web app: contexts on a phone's and a desktop's size that record what must not happen."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fixtures.waiting import HANG_S

SRC = str(Path(__file__).parents[2] / "src")
FORMS: dict[str, dict[str, Any]] = {
    "phone": {
        "viewport": {"width": 360, "height": 780},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
    "desktop": {"viewport": {"width": 1280, "height": 860}},
}
WAIT_MS = HANG_S * 1000


def executable() -> str:
    """The system's Chromium. Skips the test where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    return found


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """A browser. Skips the test where it or Playwright is not installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make test installs it")
    path = executable()
    with sync_api.sync_playwright() as playwright:
        # Without its sandbox, which needs privileges that containers lack: it opens our own pages only.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *arguments])
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A tab that records requests to other origins, errors of scripts and violations of the policy."""

    def __init__(self, browser: Any, url: str, form: str, *, scheme: str = "light", **options: Any) -> None:
        self.url = url
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        self.allowed: tuple[str, ...] = ()  # words of errors that the test provokes
        self.context = browser.new_context(
            **FORMS[form], color_scheme=scheme, reduced_motion="reduce", accept_downloads=True, **options
        )
        self.context.set_default_timeout(WAIT_MS)
        self.page = self.context.new_page()
        self.page.on("request", self._asked)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, place: str = "") -> Any:
        self.page.goto(f"{self.url}/#/{place}")
        self.page.wait_for_selector("main h1")
        return self.page

    def end(self) -> None:
        """Close the tab. AssertionError: a request left the origin, or the console has an error."""
        self.context.close()
        assert self.elsewhere == []
        assert [text for text in self.errors if not any(word in text for word in self.allowed)] == []

    def refuse_overflow(self) -> None:
        """AssertionError: the page is wider than the window."""
        inner, outer = self.page.evaluate("((root) => [root.scrollWidth, root.clientWidth])(document.documentElement)")
        assert inner <= outer, f"{self.page.url} is {inner} px wide in a window of {outer} px"

    def refuse_small_targets(self) -> None:
        """AssertionError: a button, link or field that is smaller than 44 px in both directions is shown."""
        assert self.page.evaluate(_SMALL) == []

    def refuse_barriers(self) -> None:
        """AssertionError: axe-core finds something that keeps people out."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page)
        assert found.violations_count == 0, f"{self.page.url}\n{found.generate_report()}"

    def _said(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _asked(self, request: Any) -> None:
        asked, ours = urlsplit(request.url), urlsplit(self.url)
        if asked.scheme != "blob" and (asked.scheme, asked.netloc) != (ours.scheme, ours.netloc):
            self.elsewhere.append(request.url)


_SMALL = """[...document.querySelectorAll('button, a[href], select, input, textarea, summary')]
  .filter((one) => !one.matches('[type=checkbox], [type=radio]'))  /* their labels are the targets */
  .filter((one) => one.checkVisibility() && !one.closest('.skip, [hidden]') && one.getBoundingClientRect().width > 0)
  .filter((one) => one.getBoundingClientRect().height < 43.5)
  .map((one) => `${one.tagName} ${one.textContent.trim().slice(0, 40)} ${one.getBoundingClientRect().height}`)"""


@contextmanager
def process(home: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A command of Likeness on a home, with its log there; killed in the end if it still runs."""
    environment = os.environ | {"LIKENESS_HOME": str(home), "PYTHONPATH": SRC, "OMP_NUM_THREADS": "1"}
    with (home / f"{words[0]}.log").open("a") as log:
        call = [sys.executable, "-m", "likeness.cli", *words]
        running = subprocess.Popen(call, env=environment, stderr=log, stdout=subprocess.PIPE, text=True)
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(30)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


@contextmanager
def serving(home: Path, *words: str, port: int = 0) -> Iterator[str]:
    """`likeness serve` without a worker; gives its address."""
    with process(home, "serve", "--workers", "0", "--port", str(port), *words) as running:
        assert running.stdout is not None
        said = running.stdout.readline()
        assert said.startswith("serving at "), (home / "serve.log").read_text()
        yield said.removeprefix("serving at ").strip()
