"""Bytes -> pixels: JPEG, PNG, WebP and HEIC.

The result is a bare array, so no metadata (place, device, time) can travel any further. Knows neither faces
nor verdicts.

Sources: EXIF 2.32 section 4.6.4 (orientation); ICC.1:2022 (colour profiles); pillow and pillow-heif for the formats.
"""

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from ..errors import UnreadablePhoto

_FORMATS = ("JPEG", "PNG", "WEBP")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_ORIENTATION_TAG = 0x0112
_NEUTRAL_GREY = 128
MAX_PROFILE_BYTES = 4 << 20  # printers' profiles have 2 MB at most
MAX_PIXELS = 80_000_000  # below pillow's own alarm at 89 million
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
    return (
        content.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))
        or (content[:4] == b"RIFF" and content[8:12] == b"WEBP")
        or _is_heif(content)
    )


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
        if picture.width * picture.height > MAX_PIXELS:
            raise UnreadablePhoto(
                f"expected at most {MAX_PIXELS // 1_000_000} megapixels, got {picture.width} x {picture.height}",
                hint="save a smaller copy",
            )
        if picture.format in ("JPEG", "MPO"):
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


def _open(content: bytes) -> Image.Image:
    if _is_heif(content):
        import pillow_heif  # heavy, and only phones send it

        heif = pillow_heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=True)
        if heif.size[0] * heif.size[1] > MAX_PIXELS:
            raise UnreadablePhoto(f"expected at most {MAX_PIXELS // 1_000_000} megapixels", hint="save a smaller copy")
        picture: Image.Image = heif.to_pillow()
        picture.getexif().clear()  # libheif has turned the pixels already
        return picture
    return Image.open(io.BytesIO(content), formats=_FORMATS)


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
    if picture.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        wide = np.asarray(picture, dtype=np.float64)
        scale = 257.0 if wide.max() > 255 else 1.0  # 65535 / 255
        return Image.fromarray((wide / scale).clip(0, 255).astype(np.uint8)).convert("RGB")
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
