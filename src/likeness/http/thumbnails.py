"""Small pictures for pages: thumbnails of photographs and images, and the crops of a photograph side by side."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..types import PreparedPhoto

SIDE_PX = 320
_CROP_PX = 256
_QUALITY = 85


def thumbnail(content: bytes) -> bytes:
    """A file of our own store as a JPEG of at most `SIDE_PX`, without metadata."""
    with Image.open(io.BytesIO(content)) as picture:
        picture.draft("RGB", (SIDE_PX, SIDE_PX))  # a large JPEG is decoded at a fraction of its size
        small = picture.convert("RGB")
    small.thumbnail((SIDE_PX, SIDE_PX))
    return _jpeg(small)


def crops_sheet(prepared: Sequence[PreparedPhoto]) -> bytes:
    """The crops of one photograph in the upper row; below, each with its background dimmed by the matte."""
    sheet = Image.new("RGB", (_CROP_PX * len(prepared), 2 * _CROP_PX))
    for place, one in enumerate(prepared):
        share = 0.2 + 0.8 * one.matte[..., None].astype(np.float32) / 255
        dimmed = np.rint(one.image * share).astype(np.uint8)
        for row, pixels in enumerate((one.image, dimmed)):
            sheet.paste(Image.fromarray(pixels).resize((_CROP_PX, _CROP_PX)), (place * _CROP_PX, row * _CROP_PX))
    return _jpeg(sheet)


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
