"""The report of a fine-tune: one self-contained HTML file without scripts, from `assets/training_report.html`.

The template escapes all text.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from jinja2 import Template
from numpy.typing import NDArray
from PIL import Image

from ..photos import CheckResult
from ..service.contact_sheet import Tile, square
from ..types import AdapterCard, PreparedPhoto

TEMPLATE = "training_report.html"


@dataclass(frozen=True, eq=False)
class Report:
    """The content of the page."""

    title: str
    card: AdapterCard
    checked: CheckResult
    prepared: Sequence[PreparedPhoto]
    losses: Sequence[float]  # one per step
    portraits: Sequence[Tile]
    stage_seconds: Mapping[str, float]
    machine: str
    peak_memory_bytes: int
    is_built_in: bool  # whether the base is the built-in one


def write_report(report: Report, path: Path) -> Path:
    """Write the page."""
    photos = report.checked.reports
    shown = [photo for photo in photos if photo.verdict != "refused"]
    template = Template((resources.files("likeness") / "assets" / TEMPLATE).read_text("utf-8"), autoescape=True)
    page = template.render(
        report=report, png=_png, jpeg=_jpeg, curve=loss_curve(report.losses),
        accepted=zip(shown, report.checked.usable, strict=True),  # in the same order; names can repeat
        refused_ones=[photo for photo in photos if photo.verdict == "refused"],
        times=_time_rows(report.stage_seconds), facts=_fact_rows(report),
    )  # fmt: skip
    path.write_text(page, encoding="utf-8")
    return path


def loss_curve(losses: Sequence[float], *, width_px: int = 760, height_px: int = 260) -> str:
    """The losses as inline SVG: each step thin, the running mean over a tenth of the run thick."""
    if not losses:
        return "<p>No training steps.</p>"
    left, right, top, bottom = 56, width_px - 12, 12, height_px - 34
    values = np.asarray(losses, dtype=np.float64)
    high = float(values.max()) or 1.0

    def line(series: NDArray[np.float64], color: str, stroke_px: float) -> str:
        x = np.linspace(left, right, len(series))
        y = bottom - series / high * (bottom - top)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        return f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="{stroke_px}"/>'

    def text(x: float, y: float, words: str, anchor: str) -> str:
        return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{words}</text>'

    parts = [
        f'<svg viewBox="0 0 {width_px} {height_px}" font-size="13" fill="#6e6e74"><title>training loss</title>',
        f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#c9c5b9"/>',
        *(text(left - 8, bottom - k * (bottom - top) + 4, f"{high * k:.3g}", "end") for k in (0.0, 0.5, 1.0)),
        text(left, bottom + 22, "1", "start"),
        text((left + right) / 2, bottom + 22, "step", "middle"),
        text(right, bottom + 22, str(len(losses)), "end"),
        line(values, "#c9c5b9", 1),
        line(running_mean(values, max(1, len(values) // 10)), "#2b5fa8", 2.5),
        "</svg>",
    ]
    return "".join(parts)


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean of the last `window` values at each position; of fewer at the start."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def _time_rows(stage_seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    rows = [(stage, f"{seconds:.1f} s") for stage, seconds in stage_seconds.items()]
    return [*rows, ("total", f"{sum(stage_seconds.values()):.1f} s")]


def _fact_rows(report: Report) -> list[tuple[str, str]]:
    card = report.card
    return [
        ("adapter", f"{card.name}: {card.subject.words}"),
        (
            "recipe",
            f"{card.recipe.get('name')}, {card.steps} steps, rank {card.rank}, alpha {card.alpha:g}, seed {card.seed}",
        ),
        ("photographs", str(card.photos)),
        ("base", f"{card.base_id} ({card.family})"),
        ("base SHA-256", card.base_sha256),
        ("adapter SHA-256", card.content_sha256),
        ("versions", ", ".join(f"{name} {version}" for name, version in card.versions.items())),
        ("machine", report.machine),
        ("peak memory", f"{report.peak_memory_bytes / 2**20:.0f} MiB"),
        ("made", card.created),
    ]


def _png(image: NDArray[np.uint8]) -> str:
    return _encoded(Image.fromarray(image), "PNG")


def _jpeg(image: NDArray[np.uint8], side_px: int) -> str:
    return _encoded(square(image, side_px), "JPEG")


def _encoded(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
