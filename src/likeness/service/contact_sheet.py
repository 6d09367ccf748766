"""Contact sheets: images in rows with captions, as one image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

MARGIN_PX, GAP_PX = 32, 16
CELL_PX = 256
_PAPER, _INK, _FAINT = (250, 249, 246), (34, 34, 38), (110, 110, 116)
_TITLE_PX, _HEADING_PX, _CAPTION_PX = 28, 19, 15
_CAPTION_LINES = 3


@dataclass(frozen=True, eq=False)
class Tile:
    """One image with its caption."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB
    caption: str


def contact_sheet(
    portraits: Sequence[Tile], *, title: str, photos: Sequence[NDArray[np.uint8]] = (), columns: int = 4
) -> Image.Image:
    """A sheet: title, a strip of the photographs if there are any, then the portraits with their captions.

    Small portraits are enlarged to `CELL_PX` on the longer side (Lanczos), large ones reduced to it.
    """
    columns = max(1, min(columns, len(portraits)))
    width = max(columns, 3) * (CELL_PX + GAP_PX) - GAP_PX
    parts = [_line(title, width, size_px=_TITLE_PX, color=_INK)]
    if photos:
        strip = [square(photo, _strip_cell_px(len(photos), width)) for photo in photos]
        parts += [_line("Photographs", width, size_px=_HEADING_PX, color=_FAINT)]
        parts += _rows(strip, _strip_columns(len(photos)), width)
        parts += [_line("Portraits", width, size_px=_HEADING_PX, color=_FAINT)]
    captions = [wrapped(tile.caption, CELL_PX, _CAPTION_PX, most=_CAPTION_LINES) for tile in portraits]
    deepest = max((len(lines) for lines in captions), default=0)
    cards = [_captioned(tile.image, lines, deepest) for tile, lines in zip(portraits, captions, strict=True)]
    parts += _rows(cards, columns, width)
    height = sum(part.height for part in parts) + GAP_PX * (len(parts) - 1)
    sheet = Image.new("RGB", (width + 2 * MARGIN_PX, height + 2 * MARGIN_PX), _PAPER)
    top = MARGIN_PX
    for part in parts:
        sheet.paste(part, (MARGIN_PX, top))
        top += part.height + GAP_PX
    return sheet


def square(image: NDArray[np.uint8], side_px: int) -> Image.Image:
    """The central square of an image, shifted towards the top, where heads are."""
    method = Image.Resampling.LANCZOS
    return ImageOps.fit(Image.fromarray(image), (side_px, side_px), method=method, centering=(0.5, 0.3))


def wrapped(text: str, width_px: int, size_px: int, *, most: int) -> list[str]:
    """`text` in at most `most` lines of at most `width_px`; longer text ends in an ellipsis."""
    font = _font(size_px)
    lines: list[str] = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width_px or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    fits = len(lines) <= most
    lines = lines[:most]
    for number, line in enumerate(lines):
        short = line if fits or number < most - 1 else f"{line}…"
        while font.getlength(short) > width_px and len(short) > 1:
            short = f"{short[:-2].rstrip()}…"
        lines[number] = short
    return lines


def _captioned(image: NDArray[np.uint8], lines: Sequence[str], room: int) -> Image.Image:
    line_px = round(_CAPTION_PX * 1.35)
    card = Image.new("RGB", (CELL_PX, CELL_PX + 8 + line_px * room), _PAPER)
    whole = ImageOps.contain(Image.fromarray(image), (CELL_PX, CELL_PX), method=Image.Resampling.LANCZOS)
    card.paste(whole, ((CELL_PX - whole.width) // 2, (CELL_PX - whole.height) // 2))
    draw = ImageDraw.Draw(card)
    for number, line in enumerate(lines):
        draw.text((0, CELL_PX + 8 + number * line_px), line, fill=_INK, font=_font(_CAPTION_PX))
    return card


def _rows(cards: Sequence[Image.Image], columns: int, width_px: int) -> list[Image.Image]:
    rows = []
    for start in range(0, len(cards), columns):
        row = Image.new("RGB", (width_px, cards[start].height), _PAPER)
        for place, card in enumerate(cards[start : start + columns]):
            row.paste(card, (place * (card.width + GAP_PX), 0))
        rows.append(row)
    return rows


def _line(text: str, width_px: int, *, size_px: int, color: tuple[int, int, int]) -> Image.Image:
    line = Image.new("RGB", (width_px, round(size_px * 1.3)), _PAPER)
    ImageDraw.Draw(line).text((0, 0), wrapped(text, width_px, size_px, most=1)[0], fill=color, font=_font(size_px))
    return line


def _strip_columns(count: int) -> int:
    return count if count <= 6 else math.ceil(count / 2)


def _strip_cell_px(count: int, width_px: int) -> int:
    columns = max(_strip_columns(count), 4)
    return (width_px - GAP_PX * (columns - 1)) // columns


@cache
def _font(size_px: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size_px)
