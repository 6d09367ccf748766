"""One server with the built-in base, one worker and one browser for a module of tests.

Not for the session: an open Playwright runs its event loop in this thread, and tests of other modules start theirs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.browser import chromium, executable, film, process, serving


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    executable()
    home = tmp_path_factory.mktemp("home")
    with serving(home) as found, process(home, "work", "--no-score", "--id", "web"):
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, demo_photos: Path) -> Iterator[Any]:
    """Its camera shows the example person, who looks into it, then turns."""
    photos = [demo_photos / f"photo_{number:02d}.jpg" for number in (1, 4, 7, 9, 11)]
    camera = film(tmp_path_factory.mktemp("film") / "camera.mjpeg", photos, seconds=(8, 2, 2, 2, 2))
    with chromium(camera) as found:
        yield found
