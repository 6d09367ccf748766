"""The web app in Chromium against a real `likeness serve` over loopback.

python -m bench.web [--parts page coach upload gallery journey] [--images 1000] [--save]

page     the first page: bytes beside pictures, and when it is painted, without a cache.
coach    one client sends frames of a camera to /v1/coach, the next when it has the verdict on the last.
upload   12 photographs of 12 megapixels, one request each, one after the other, as the app sends them.
gallery  the studio with `--images` kept images: the first screen, then scrolled to the end.
journey  from the first page to a portrait of the example person, with the default recipe.

Needs Chromium and the extra `dev`.
"""

import argparse
import io
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import httpx2
import numpy as np
from PIL import Image

from fixtures.browser import Visit, chromium, serving
from likeness.config import Settings
from likeness.service import build, kept
from likeness.service.image_files import marked_png
from likeness.storage.catalog import LOCAL
from likeness.types import PNG
from recipes.measurement import Row

from .report import ROOT, Goal, finish, options

EXAMPLE = ROOT / "src/likeness/assets/demo"
FRAMES, FRAME_PX = 120, 480
PHOTOS, PHOTO_PX = 12, (4000, 3000)
JOURNEY_MS = 20 * 60_000
Found = tuple[Row, list[Goal]]

# Long tasks of the page; `buffered` also gives those from before the observer.
_WATCH = """window.longTasks = [];
new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map((one) => one.duration)))
  .observe({type: 'longtask', buffered: true});"""
_LOADED = """[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
  .filter((one) => !/thumbnail|[.](jpg|png|svg)|view=/.test(one.name))
  .map((one) => [one.name, one.decodedBodySize])"""
_PAINTED = "performance.getEntriesByType('paint').find((one) => one.name === 'first-contentful-paint')?.startTime"
_ON_SCREEN = """async () => {
  for (;;) {
    const every = [...document.querySelectorAll('.tile img')];
    const shown = every.filter((one) => one.getBoundingClientRect().top < innerHeight);
    if (shown.length > 0 && shown.every((one) => one.complete && one.naturalWidth)) return performance.now();
    await new Promise((next) => requestAnimationFrame(next));
  }
}"""
_SCROLL = """async (wanted) => {
  const seen = () => document.querySelectorAll('.tile').length;
  for (let quiet = 0; quiet < 120 && (seen() < wanted || scrollY + innerHeight < document.body.scrollHeight - 2);) {
    const before = [seen(), scrollY].join();
    scrollBy(0, innerHeight / 4);
    await new Promise((next) => setTimeout(next, 50));
    quiet = before === [seen(), scrollY].join() ? quiet + 1 : 0;
  }
  return seen();
}"""


def page(browser: Any, home: Path, asked: argparse.Namespace) -> Found:
    """The first page, five times without a cache."""
    painted = []
    with serving(home, threads=None) as url:
        for _ in range(5):
            visit = Visit(browser, url, "phone")
            opened = visit.open()
            opened.wait_for_load_state("networkidle")
            painted.append(opened.evaluate(_PAINTED) / 1000)
            loaded = opened.evaluate(_LOADED)
            visit.end()
    kilobytes = sum(size for _, size in loaded) / 1000
    row: Row = {"kB": kilobytes, "files": len(loaded), "painted s": median(painted)}
    return row, [
        Goal("kB beside pictures", kilobytes, 150, at_least=False),
        Goal("seconds until the page is painted", median(painted), 1.0, at_least=False),
    ]


def coach(browser: Any, home: Path, asked: argparse.Namespace) -> Found:
    """Frames as the live camera sends them: JPEG of 480 px."""
    frames = []
    for file in sorted(EXAMPLE.glob("*.jpg")):
        with Image.open(file) as picture:
            small = picture.convert("RGB").resize((FRAME_PX, FRAME_PX))
        frames.append(encoded(small, quality=80))
    seconds, hints = [], set()
    with serving(home, threads=None) as url, httpx2.Client(base_url=f"{url}/v1", timeout=60.0) as client:
        for frame in itertools.islice(itertools.cycle(frames), FRAMES + len(frames)):
            started_s = time.perf_counter()
            answer = client.post("/coach", content=frame, headers={"Content-Type": "image/jpeg"})
            seconds.append(time.perf_counter() - started_s)
            hints.add(answer.raise_for_status().json()["hint"])
    if "late" in hints:
        raise SystemExit("expected a verdict on every frame, got late ones")
    warm = seconds[len(frames) :]
    row: Row = {"frames": len(warm), "median ms": 1000 * median(warm), "p95 ms": 1000 * float(np.percentile(warm, 95))}
    return row, [
        Goal("verdicts per second", len(warm) / sum(warm), 5.0, at_least=True),
        Goal("ms to a verdict, p95", 1000 * float(np.percentile(warm, 95)), 250.0, at_least=False),
    ]


def upload(browser: Any, home: Path, asked: argparse.Namespace) -> Found:
    """Photographs of the example person, enlarged, each cut another way."""
    photos = []
    for file in sorted(EXAMPLE.glob("*.jpg"))[:PHOTOS]:
        with Image.open(file) as picture:
            side = picture.width
            cut = picture.convert("RGB").crop((0, 0, side, side * 3 // 4))
        photos.append(encoded(cut.resize(PHOTO_PX, Image.Resampling.BICUBIC), quality=92))
    consent = {"name": "large", "class_noun": "man", "consent": "A virtual person"}
    done, verdicts = [], []
    with serving(home, threads=None) as url, httpx2.Client(base_url=f"{url}/v1", timeout=600.0) as client:
        client.post("/subjects", json=consent).raise_for_status()
        started_s = time.perf_counter()
        for place, photo in enumerate(photos):
            answer = client.post("/subjects/large/photos", files={"photos": (f"{place}.jpg", photo)})
            done.append(time.perf_counter() - started_s)
            verdicts += [one["verdict"] for one in answer.raise_for_status().json()["photos"]]
    megabytes = sum(map(len, photos)) / 1e6
    row: Row = {"photographs": len(done), "MB": megabytes, "first s": done[0], "all s": done[-1],
                "refused": verdicts.count("refused")}  # fmt: skip
    return row, [
        Goal("seconds to the first verdict", done[0], 2.0, at_least=False),
        Goal(f"seconds to all {PHOTOS} verdicts", done[-1], 12.0, at_least=False),
    ]


def gallery(browser: Any, home: Path, asked: argparse.Namespace) -> Found:
    """Kept images of 128 px, the built-in base's size."""
    likeness = build(Settings(home=home))
    for number in range(asked.images):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        content = marked_png(Image.fromarray(pixels).resize((128, 128), Image.Resampling.BICUBIC))
        facts = json.dumps({"prompt": f"picture {number}", "seed": number, "steps": 30})
        kept.keep(likeness.library, LOCAL, (), content, PNG, facts=facts)
    likeness.close()
    with serving(home, threads=None) as url:
        visit = Visit(browser, url, "desktop")
        visit.context.add_init_script(_WATCH)
        opened = visit.open("studio")
        first_s = opened.evaluate(_ON_SCREEN) / 1000
        seen = opened.evaluate(_SCROLL, asked.images)
        tasks = opened.evaluate("window.longTasks")
        visit.end()
    longest = max(tasks, default=0.0)
    row: Row = {"images": seen, "first screen s": first_s, "long tasks": len(tasks), "longest ms": longest}
    if seen != asked.images:
        raise SystemExit(f"expected {asked.images} images at the end, got {seen}")
    return row, [
        Goal("seconds to the first screen", first_s, 1.0, at_least=False),
        Goal(f"longest task while {asked.images} images are scrolled, ms", longest, 50.0, at_least=False),
    ]


def journey(browser: Any, home: Path, asked: argparse.Namespace) -> Found:
    """As a person does it who accepts every default; one portrait."""
    with serving(home, workers=1, threads=None) as url:
        visit = Visit(browser, url, "desktop")
        visit.context.set_default_timeout(JOURNEY_MS)
        seconds: dict[str, float] = {}
        started_s = time.perf_counter()

        def mark(event: str) -> None:
            seconds[f"{event} s"] = time.perf_counter() - started_s

        opened = visit.open()
        mark("page")
        opened.get_by_role("button", name="Try it with our example person").click()
        opened.get_by_text("12 usable photographs").wait_for()
        mark("checked")
        opened.get_by_role("button", name="Start the training").click()
        opened.get_by_role("link", name="To the studio").click()
        mark("trained")
        opened.get_by_label("How many").fill("1")
        opened.get_by_role("button", name="Make portraits").click()
        opened.get_by_text("1 portrait made").wait_for()
        mark("portrait")
        visit.end()
    row: Row = dict(seconds)
    return row, [Goal("seconds from the first page to a portrait", seconds["portrait s"], 240, at_least=False)]


PARTS: Mapping[str, Callable[[Any, Path, argparse.Namespace], Found]] = {
    "page": page, "coach": coach, "upload": upload, "gallery": gallery, "journey": journey,
}  # fmt: skip


def encoded(picture: Image.Image, *, quality: int) -> bytes:
    """A JPEG."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--images", type=int, default=1000)
    asked = parser.parse_args()
    with chromium() as browser:
        for part in asked.parts:
            with tempfile.TemporaryDirectory() as home:
                row, goals = PARTS[part](browser, Path(home), asked)
            settings: Row = {"images": asked.images} if part == "gallery" else {}
            finish(f"web-{part}", {part: [row]}, goals=goals, settings=settings, save=asked.save)


if __name__ == "__main__":
    main()
