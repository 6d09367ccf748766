"""The report of a fine-tune: one self-contained HTML file without scripts.

All foreign text is escaped.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..photos import CheckResult
from ..types import AdapterCard, PreparedPhoto
from .contact_sheet import Tile, square

_BUILT_IN_NOTE = (
    "The images are made by the small built-in base model: 128 x 128 pixels, meant for a first try, for tests "
    "and for machines without a GPU. It knows virtual people, a dozen styles and a dozen places. For better images use "
    "a large model such as Stable Diffusion, with the same commands."
)
_STYLE = """
:root { color-scheme: light }
body { font: 16px/1.55 system-ui, sans-serif; color: #222226; background: #faf9f6; margin: 0 }
main { max-width: 1100px; margin: 0 auto; padding: 32px 24px 64px }
h1 { font-size: 30px; margin: 0 0 8px } h2 { font-size: 20px; margin: 40px 0 12px }
p.note { background: #f0ede4; border-left: 4px solid #b79b5b; padding: 10px 16px; max-width: 75ch }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(var(--cell), 1fr)) }
figure { margin: 0 } figcaption { font-size: 14px; margin-top: 6px; overflow-wrap: anywhere }
img { width: 100%; display: block; border-radius: 4px } figcaption small { color: #6e6e74; display: block }
.accepted { color: #1c6b3c } .warned { color: #8a5a00 } .refused { color: #a32020 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { text-align: left; padding: 4px 24px 4px 0; border-bottom: 1px solid #e3e0d8; vertical-align: top }
td { overflow-wrap: anywhere } svg { width: 100%; max-width: 760px; height: auto }
"""


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
    sections = [
        f"<h1>{escape(report.title)}</h1>",
        f'<p class="note">{_BUILT_IN_NOTE}</p>' if report.is_built_in else "",
        _portraits(report.portraits),
        _photos(report.checked),
        _prepared(report.prepared),
        f"<h2>Training loss</h2>{loss_curve(report.losses)}",
        _table("Time of each stage", _time_rows(report.stage_seconds)),
        _table("Facts", _fact_rows(report)),
    ]
    head = f'<meta charset="utf-8"><title>{escape(report.title)}</title><style>{_STYLE}</style>'
    page = f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n'
    path.write_text(page + "\n".join(sections) + "\n</main></body></html>\n", encoding="utf-8")
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


def _portraits(tiles: Sequence[Tile]) -> str:
    figures = [_figure(_png(tile.image), escape(tile.caption)) for tile in tiles]
    return f"<h2>Portraits</h2><p>All of them AI-generated.</p>{_grid(figures, '240px')}"


def _photos(checked: CheckResult) -> str:
    images = iter(checked.usable)  # the photographs that are not refused, in the same order; names can repeat
    figures, unusable = [], []
    for report in checked.reports:
        reasons = "; ".join(escape(reason.message) for reason in report.reasons)
        verdict = (
            f'<span class="{report.verdict}">{report.verdict}</span> {escape(report.file)}<small>{reasons}</small>'
        )
        if report.verdict == "refused":
            unusable.append(f"<li>{verdict}</li>")
        else:
            figures.append(_figure(_jpeg(next(images).image, 200), verdict))
    advice = [f"<li>{escape(one.message)}; {escape(one.hint)}</li>" for one in checked.set_report.advice]
    return f"<h2>Photographs</h2>{_grid(figures, '150px')}<ul>{''.join(unusable + advice)}</ul>"


def _prepared(prepared: Sequence[PreparedPhoto]) -> str:
    figures = [_figure(_jpeg(photo.image, 160), escape(photo.framing)) for photo in prepared]
    return f"<h2>Prepared for training</h2>{_grid(figures, '110px')}"


def _time_rows(stage_seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    rows = [(stage, f"{seconds:.1f} s") for stage, seconds in stage_seconds.items()]
    return [*rows, ("total", f"{sum(stage_seconds.values()):.1f} s")]


def _fact_rows(report: Report) -> list[tuple[str, str]]:
    card = report.card
    return [
        ("adapter", f"{card.name}: {card.identifier} {card.class_noun}"),
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


def _table(heading: str, rows: Sequence[tuple[str, str]]) -> str:
    body = "".join(f'<tr><th scope="row">{escape(key)}</th><td>{escape(value)}</td></tr>' for key, value in rows)
    return f"<h2>{heading}</h2><table>{body}</table>"


def _grid(figures: Sequence[str], cell: str) -> str:
    return f'<div class="grid" style="--cell: {cell}">{"".join(figures)}</div>'


def _figure(source: str, caption_html: str) -> str:
    return f'<figure><img src="{source}" alt="" loading="lazy"><figcaption>{caption_html}</figcaption></figure>'


def _png(image: NDArray[np.uint8]) -> str:
    return _encoded(Image.fromarray(image), "PNG")


def _jpeg(image: NDArray[np.uint8], side_px: int) -> str:
    return _encoded(square(image, side_px), "JPEG")


def _encoded(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
