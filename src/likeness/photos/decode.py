"""Bytes -> pixels: JPEG, PNG, WebP and HEIC.

The result is a bare array, so no metadata (place, device, time) can travel any further. Knows neither faces
nor verdicts.

Sources: EXIF 2.32 section 4.6.4 (orientation); ICC.1:2022 (colour profiles); pillow and pillow-heif for the formats.
"""

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ..errors import UnreadablePhoto

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_ORIENTATION_TAG = 0x0112
_NEUTRAL_GREY = 128
MAX_PROFILE_BYTES = 4 << 20  # printers' profiles have 2 MB at most
MAX_PIXELS = 80_000_000
MAX_SIDE_PX = 2560  # five times the training size: faces keep their detail, twelve photos stay under 250 MB

# Orientation -> (transpose first, flip rows, flip columns); the eight cases of the EXIF standard.
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def looks_like_image(content: bytes) -> bool:
    """Whether the first bytes are those of a format that `decode` reads."""
    return _is_heif(content) or _reader(content) is not None


def decode(content: bytes) -> NDArray[np.uint8]:
    """Decode a photograph, upright, at most `MAX_SIDE_PX` on its longer side.

    Alpha is laid on neutral grey, grey and CMYK become RGB, colours of another profile become sRGB, 16-bit becomes
    8-bit; an animation's first frame stays.

    Returns:
        (H, W, 3) RGB, 0..255.

    Raises:
        UnreadablePhoto: no such format, truncated, broken, or more than `MAX_PIXELS`.
    """
    try:
        picture = _open(content)
        if picture.format == "JPEG":
            picture.draft(None, (MAX_SIDE_PX, MAX_SIDE_PX))  # decodes at half size where that is still large enough
        orientation = _orientation(picture)
        picture.load()
        profile = picture.info.get("icc_profile")
        rgb = _to_rgb(picture if picture.mode == "RGB" else _in_srgb(picture, profile))
        if max(rgb.size) > MAX_SIDE_PX:
            rgb.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
        if picture.mode not in ("L", "CMYK"):  # small by now
            rgb = _in_srgb(rgb, profile)
        return _upright(np.asarray(rgb, dtype=np.uint8), orientation)
    except UnreadablePhoto:
        raise
    except Exception as error:  # decoders meet hostile bytes here and raise whatever they like
        raise UnreadablePhoto(
            "expected a JPEG, PNG, WebP or HEIC photograph, got bytes that cannot be decoded",
            hint="open it in a photo program and save it again as JPEG",
        ) from error


def _is_heif(content: bytes) -> bool:
    return content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS


def _reader(content: bytes) -> type[ImageFile.ImageFile] | None:
    if content.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    return WebPImageFile if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else None


def _open(content: bytes) -> Image.Image:
    if _is_heif(content):
        import pillow_heif  # heavy, and only phones send it

        heif = pillow_heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=True)
        _check_pixels(*heif.size)
        heif_picture: Image.Image = heif.to_pillow()
        heif_picture.getexif().clear()  # libheif has turned the pixels already
        return heif_picture
    # Not Image.open: its own alarm at 89 megapixels is a warning on standard error, or an error without our words.
    reader = _reader(content)
    if reader is None:
        raise ValueError
    try:
        picture = reader(io.BytesIO(content))
    except Image.DecompressionBombError as error:  # WebP's reader knows the alarm too, and does not tell the size
        raise _too_many_pixels("far more") from error
    _check_pixels(*picture.size)
    return picture


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_many_pixels(f"{width * height / 1e6:.0f} ({width} x {height})")


def _too_many_pixels(got: str) -> UnreadablePhoto:
    limit = MAX_PIXELS // 1_000_000
    return UnreadablePhoto(f"expected at most {limit} megapixels, got {got}", hint="save a smaller copy")


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION_TAG, 1))
    except (ValueError, TypeError, LookupError, SyntaxError, OSError, struct.error, Warning):
        # Broken EXIF tells nothing about the way up; the pixels may be perfect.
        return 1


def _in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture's colours in sRGB, where its profile describes colours of its mode.

    A profile that is broken, or of other colours, tells nothing; the pixels may be perfect.
    """
    if not profile or len(profile) > MAX_PROFILE_BYTES:
        return picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if {"RGB": "RGB", "CMYK": "CMYK", "GRAY": "L"}.get(source.profile.xcolor_space.strip()) != picture.mode:
            return picture
        converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        return picture
    return picture if converted is None else converted


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")  # as pillow does for RGB
    if "A" in picture.getbands() or "a" in picture.getbands() or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (_NEUTRAL_GREY,) * 3 + (255,))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return picture.convert("RGB")


def _upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    transpose, flip_rows, flip_columns = _TURNS.get(orientation, (False, False, False))
    turned = image.transpose(1, 0, 2) if transpose else image
    turned = turned[::-1] if flip_rows else turned
    turned = turned[:, ::-1] if flip_columns else turned
    return np.ascontiguousarray(turned)
