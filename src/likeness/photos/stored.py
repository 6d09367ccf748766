"""Prepared photographs as one object: a zip of lossless PNGs, so that who takes a job over need not prepare again."""

import io
import json
import zipfile
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..types import PreparedPhoto

INDEX = "index.json"
_PLANES = ("image", "matte", "face")


def pack_prepared(photos: Sequence[PreparedPhoto]) -> bytes:
    """(H, W, 3), (H, W), (H, W) uint8 each, framing and source."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
        facts = [{"framing": photo.framing, "source_sha256": photo.source_sha256} for photo in photos]
        archive.writestr(INDEX, json.dumps(facts))
        for i, photo in enumerate(photos):
            for plane in _PLANES:
                png = io.BytesIO()
                Image.fromarray(getattr(photo, plane)).save(png, "PNG", compress_level=1)
                archive.writestr(f"{i}-{plane}.png", png.getvalue())
    return packed.getvalue()


def unpack_prepared(content: bytes) -> tuple[PreparedPhoto, ...]:
    """The inverse of `pack_prepared`, of our own objects only."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        facts = json.loads(archive.read(INDEX))

        def plane(i: int, name: str) -> np.ndarray:
            with archive.open(f"{i}-{name}.png") as file, Image.open(file) as image:
                return np.asarray(image)

        return tuple(
            PreparedPhoto(
                plane(i, "image"), plane(i, "matte"), plane(i, "face"), fact["framing"], fact["source_sha256"]
            )
            for i, fact in enumerate(facts)
        )
