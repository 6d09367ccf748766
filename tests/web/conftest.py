"""One server with the built-in base and one worker for all of these tests, one browser for each module.

No browser for the session: an open Playwright runs its event loop in this thread, and tests of other modules start
theirs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fixtures.browser import Visit, chromium, executable, film, process, serving
from fixtures.waiting import HANG_S
from tests.web.steps import SCHEMES, ordered, wait_for


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    executable()
    home = tmp_path_factory.mktemp("home")
    with serving(home) as found, process(home, "work", "--no-score", "--id", "web"):
        yield found


@pytest.fixture(scope="session")
def camera(tmp_path_factory: pytest.TempPathFactory, demo_photos: Path) -> Path:
    """A film of the example person, who looks into the camera, then turns."""
    photos = [demo_photos / f"photo_{number:02d}.jpg" for number in (1, 4, 7, 9, 11)]
    return film(tmp_path_factory.mktemp("film") / "camera.mjpeg", photos, seconds=(8, 2, 2, 2, 2))


@pytest.fixture(scope="module")
def browser(camera: Path) -> Iterator[Any]:
    with chromium(camera) as found:
        yield found


@pytest.fixture(params=list(SCHEMES))
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def visit(browser: Any, url: str, form: str) -> Iterator[Visit]:
    visit = Visit(browser, url, form, scheme=SCHEMES[form], permissions=["camera"])
    yield visit
    visit.end()


@pytest.fixture
def trained(url: str) -> str:
    """A subject with four photographs and an adapter of few steps."""
    with httpx2.Client(base_url=f"{url}/v1", timeout=HANG_S) as client:
        if client.get("/adapters/eric").status_code == 404:
            wait_for(client, ordered(client, "eric"), "succeeded")
    return "eric"
