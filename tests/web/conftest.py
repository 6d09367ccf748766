"""One server with the built-in base, one worker and one browser for a module of tests.

Not for the session: an open Playwright runs its event loop in this thread, and tests of other modules start theirs.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.browser import chromium, executable, process, serving

FRONT_S, TURNED_S, FRAMES_PER_S = 8, 2, 30  # of the film for the camera; Chromium plays Motion JPEG at this rate


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    executable()
    home = tmp_path_factory.mktemp("home")
    with serving(home) as found, process(home, "work", "--no-score", "--id", "web"):
        yield found


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, demo_photos: Path) -> Path:
    """A film for the fake camera: the example person, who looks into it, then turns. Motion JPEG: pictures in a row."""
    from PIL import Image

    file: Path = tmp_path_factory.mktemp("clip") / "camera.mjpeg"
    with file.open("wb") as film:
        for number in (1, 4, 7, 9, 11):
            with Image.open(demo_photos / f"photo_{number:02d}.jpg") as picture:
                frame = Image.new("RGB", (640, 480), (90, 90, 90))
                frame.paste(picture.convert("RGB").resize((480, 480)), (80, 0))
            encoded = io.BytesIO()
            frame.save(encoded, "JPEG", quality=90)
            film.write(encoded.getvalue() * (FRAMES_PER_S * (FRONT_S if number == 1 else TURNED_S)))
    return file


@pytest.fixture(scope="module")
def browser(clip: Path) -> Iterator[Any]:
    with chromium(
        "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={clip}",
    ) as found:  # fmt: skip
        yield found
