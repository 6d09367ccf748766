"""The contact sheet and the report page."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from likeness.commands.training_report import Report, loss_curve, running_mean, write_report
from likeness.photos import CheckResult, PhotoReport, Reason, SetReport, Usable
from likeness.service.contact_sheet import CELL_PX, Tile, contact_sheet, wrapped
from likeness.types import AdapterCard, Photo, PreparedPhoto

UNREADABLE = Reason("unreadable", "no photograph", "send another", "refused")
HOSTILE = '<script>alert("x")</script>.jpg'


def image(side_px: int, red: int = 200) -> np.ndarray:
    return np.full((side_px, side_px, 3), (red, 90, 40), dtype=np.uint8)


def test_sheet_grows_by_rows_and_shows_the_pictures() -> None:
    one = contact_sheet([Tile(image(128), "seed 1")] * 4, title="four")
    two = contact_sheet([Tile(image(128), "seed 1")] * 5, title="five")
    assert one.width == two.width
    assert two.height - one.height > CELL_PX
    assert (np.asarray(one) == (200, 90, 40)).all(-1).sum() == 4 * CELL_PX**2


@pytest.mark.parametrize("photos", [1, 5, 7, 12, 40])
def test_every_photo_stands_in_the_strip_within_the_sheet(photos: int) -> None:
    sheet = contact_sheet([Tile(image(64), "a")], title="t", photos=[image(300, red=10)] * photos)
    strip = (np.asarray(sheet) == (10, 90, 40)).all(-1)
    rows, columns = np.flatnonzero(strip.any(1)), np.flatnonzero(strip.any(0))
    assert columns[0] > 0
    assert columns[-1] < sheet.width - 1
    assert rows[-1] < sheet.height - CELL_PX
    starts = np.diff(strip.astype(int), axis=0, prepend=0).clip(min=0).sum()  # top edges, in pixels
    cell_px = int(np.flatnonzero(np.diff(strip[rows[0]].astype(int)) == -1)[0] - columns[0] + 1)
    assert starts == photos * cell_px


def test_long_captions_end_in_an_ellipsis() -> None:
    lines = wrapped("word " * 100, 200, 15, most=3)
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert wrapped("x" * 500, 100, 15, most=2)[0].endswith("…")
    assert wrapped("", 100, 15, most=2) == [""]


def test_running_mean() -> None:
    assert running_mean(np.array([2.0, 4.0, 6.0, 8.0]), 2).tolist() == [2.0, 3.0, 5.0, 7.0]


def test_curve_has_a_point_for_each_step_and_stays_inside() -> None:
    svg = loss_curve([3.0, 1.0, 2.0, 0.5])
    points = [tuple(map(float, pair.split(","))) for pair in re.findall(r'points="([^"]+)"', svg)[0].split()]
    assert len(points) == 4
    assert all(0 <= x <= 760 and 0 <= y <= 260 for x, y in points)
    assert min(points, key=lambda point: point[1]) == points[0]  # the largest loss is the highest
    assert "No training steps" in loss_curve([])


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for key, value in attrs if key in ("src", "href")]


def test_of_two_photographs_with_one_name_each_has_its_own_verdict(tmp_path: Path) -> None:
    refused = PhotoReport("IMG_1.jpg", (Reason("blurred", "too blurred", "hold still", "refused"),))
    usable = Usable(Photo("IMG_1.jpg", b"content"), image(64), None)
    checked = CheckResult((refused, PhotoReport("IMG_1.jpg")), SetReport(1, {}), (usable,))
    page = write_report(report(checked), tmp_path / "report.html").read_text().partition("<body>")[2]
    assert page.count("<img") == 1
    assert page.index("accepted") < page.index("<li>") < page.index("refused")


def report(checked: CheckResult, *, prepared: Sequence[PreparedPhoto] = (), portraits: Sequence[Tile] = ()) -> Report:
    card = AdapterCard(
        "demo", "person", "<<TOK>>", "built-in", "a" * 64, "likeness-128", {"name": "fast"}, 0, 1, 3, 1.0,
        "2026-01-01", {"likeness": "1"}, 8, 8.0, "b" * 64,
    )  # fmt: skip
    return Report(
        "Demo", card, checked, prepared, [1.0, 0.5], portraits, {"train": 1.25}, "cpu", 2**20, is_built_in=True
    )


def test_page_is_self_contained_and_escapes_names(tmp_path: Path) -> None:
    photo = Photo(HOSTILE, b"content")
    checked = CheckResult(
        (
            PhotoReport(HOSTILE, (Reason("dark", "too dark", "turn on a lamp"),)),
            PhotoReport("other.jpg", (UNREADABLE,)),
        ),
        SetReport(1, {}, (Reason("few", "few photos", "send more"),)),
        (Usable(photo, image(64), None),),
    )
    prepared = PreparedPhoto(image(64), image(64)[..., 0], image(64)[..., 0], "whole", photo.sha256)
    made = report(checked, prepared=[prepared], portraits=[Tile(image(32), "pencil sketch")])
    text = write_report(made, tmp_path / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert "script" not in page.tags
    assert len(page.sources) == 3
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "For better images use a large model" in " ".join(text.split())
    for fact in ("&lt;&lt;TOK&gt;&gt; person", "a" * 64, "1.2 s", "pencil sketch", "too dark", "1 MiB"):
        assert fact in text
