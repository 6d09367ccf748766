"""Pixels -> the file that is kept of an uploaded photograph: nothing of what came beside the pixels is in it."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_QUALITY = 95  # with full chroma: 50 to 53 dB on twelve photographs, and the same verdicts on them


def clean_copy(image: NDArray[np.uint8]) -> bytes:
    """A photograph as a file without EXIF, XMP, IPTC, comment, preview or colour profile; equal pixels, equal bytes.

    Args:
        image: (H, W, 3) sRGB, upright, 0..255; what `decode` returns.

    Returns:
        a JPEG; a PNG would be three times as large.
    """
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=_QUALITY, subsampling=0)
    return stream.getvalue()
