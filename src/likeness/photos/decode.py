"""Bytes -> pixels: JPEG, PNG, WebP, HEIC, AVIF, GIF, BMP and TIFF.

The result is a plain array, so metadata (place, device, time) is dropped here.

Sources: EXIF 2.32 section 4.6.4 (orientation); ICC.1:2022 (colour profiles); pillow and pillow-heif for the formats.
"""

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ..errors import InputRefused

FORMATS = "JPEG, PNG, WebP, HEIC, AVIF, GIF, BMP or TIFF"

_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BMP_HEADERS = {12, 40, 52, 56, 64, 108, 124}  # their lengths
_VIDEO_HEADS = (b"\x1a\x45\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3")  # Matroska and WebM, MPEG
_ORIENTATION_TAG = 0x0112
_SUBFILE_TAG, _REDUCED = 0x00FE, 1  # TIFF 6.0: the image is a preview of another one in the file
_NEUTRAL_GREY = 128
MAX_PROFILE_BYTES = 4 << 20  # profiles of printers have at most 2 MB
MAX_PIXELS = 80_000_000
MAX_REDUCED_PIXELS = 400_000_000  # for a format that is reduced during decoding, in strips
MAX_SIDE_PX = 2560  # five times the training size: faces keep their detail, twelve photos stay under 250 MB

# EXIF orientation -> what makes the image upright
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def looks_like_image(content: bytes) -> bool:
    """Whether the first bytes are those of a format that `decode` reads."""
    return _is_heif(content) or _reader(content) is not None


def is_video(head: bytes) -> bool:
    """Whether a file's first bytes are those of a common video format: MP4, QuickTime, AVI, Matroska, WebM, MPEG."""
    if head[4:8] in (b"moov", b"mdat", b"wide") or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return True
    return head.startswith(_VIDEO_HEADS) or (head[4:8] == b"ftyp" and not looks_like_image(head))


def decode(content: bytes) -> NDArray[np.uint8]:
    """Decode a photograph, upright, at most `MAX_SIDE_PX` on its longer side.

    Alpha is composited on neutral grey; grey and CMYK become RGB; other colour profiles become sRGB; 16 bits become 8.
    Of an animation or several pages, the first is used. A JPEG is reduced during decoding.

    Returns:
        (H, W, 3) RGB, 0..255.

    Raises:
        InputRefused: unknown format, truncated, damaged, a camera's raw file, or too many pixels.
    """
    try:
        picture = _open(content)
        # Pillow applies a TIFF's orientation itself.
        orientation = 1 if picture.format == "TIFF" else _orientation(picture)
        picture.load()
        profile = picture.info.get("icc_profile")
        rgb = _to_rgb(picture if picture.mode == "RGB" else _in_srgb(picture, profile))
        if max(rgb.size) > MAX_SIDE_PX:
            rgb.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
        if picture.mode not in ("L", "CMYK"):  # already reduced
            rgb = _in_srgb(rgb, profile)
        if orientation in _TURNS:
            rgb = rgb.transpose(_TURNS[orientation])
        return np.asarray(rgb, dtype=np.uint8)
    except InputRefused:
        raise
    except Exception as error:  # with malicious bytes, decoders raise any exception
        raise InputRefused(
            f"expected a photograph as {FORMATS}, got bytes that cannot be decoded",
            hint="open it in an image editor and save it as JPEG",
            code="UnreadablePhoto",
        ) from error


def _is_heif(content: bytes) -> bool:
    return content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS and not _is_avif(content)


def _is_avif(content: bytes) -> bool:
    """By the file's main brand, or by its compatible brands if the main brand fits both formats."""
    if content[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(content[:4], "big"), 256)
    brands = {content[place : place + 4] for place in range(16, end, 4)}
    own = content[8:12]
    return own in _AVIF_BRANDS or (own in (b"mif1", b"msf1") and not _AVIF_BRANDS.isdisjoint(brands))


def _reader(content: bytes) -> type[ImageFile.ImageFile] | None:
    if content.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return WebPImageFile
    if _is_avif(content):
        return AvifImageFile
    if content.startswith((b"GIF87a", b"GIF89a")):
        return GifImageFile
    if content.startswith(_TIFF_HEADS):
        return TiffImageFile
    # Two letters are not specific enough: the reserved zeros and the length of the next header are checked too.
    is_bmp = content[:2] == b"BM" and content[6:10] == b"\0\0\0\0"
    return BmpImageFile if is_bmp and int.from_bytes(content[14:18], "little") in _BMP_HEADERS else None


def _open(content: bytes) -> Image.Image:
    if _is_heif(content):
        import pillow_heif  # slow to import, and needed for HEIC only

        heif = pillow_heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=True)
        _check_pixels(*heif.size)
        heif_picture: Image.Image = heif.to_pillow()
        heif_picture.getexif().clear()  # libheif has applied the orientation already
        return heif_picture
    # Not Image.open: its limit of 89 megapixels gives a warning on standard error, or an error without a hint.
    reader = _reader(content)
    if reader is None:
        raise ValueError
    try:
        picture = reader(io.BytesIO(content))
    except Image.DecompressionBombError as error:  # WebP's reader has the same limit and does not report the size
        raise _too_many_pixels("far more") from error
    if isinstance(picture, TiffImageFile) and int(picture.tag_v2.get(_SUBFILE_TAG, 0)) & _REDUCED:
        message = "expected a developed photograph, got a camera's raw file"
        raise InputRefused(message, hint="export it as JPEG from an image editor", code="UnreadablePhoto")
    if isinstance(picture, JpegImageFile):
        _reduce(picture)
    _check_pixels(*picture.size)
    return picture


def _reduce(picture: JpegImageFile) -> None:
    """Let the decoder scale to a half, a quarter or an eighth of each side if that is still large enough."""
    width, height = picture.size
    # A progressive JPEG is buffered at full size before decoding, however small the result.
    _check_pixels(width, height, MAX_PIXELS if picture.info.get("progressive") else MAX_REDUCED_PIXELS)
    share = min(MAX_SIDE_PX / max(width, height), 1.0)
    picture.draft(None, (max(round(width * share), 1), max(round(height * share), 1)))


def _check_pixels(width: int, height: int, limit: int = MAX_PIXELS) -> None:
    if width * height > limit:
        raise _too_many_pixels(f"{width * height / 1e6:.0f} ({width} x {height})", limit)


def _too_many_pixels(got: str, limit: int = MAX_PIXELS) -> InputRefused:
    message = f"expected at most {limit // 1_000_000} megapixels, got {got}"
    return InputRefused(message, hint="save a smaller copy", code="UnreadablePhoto")


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION_TAG, 1))
    except (ValueError, TypeError, LookupError, SyntaxError, OSError, struct.error, Warning):
        # With damaged EXIF the orientation is unknown; the pixels may still be good.
        return 1


def _in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """The image in sRGB, if its colour profile is valid for its mode.

    A damaged or unsuitable profile is ignored; the pixels may still be good.
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
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")  # as Pillow does for RGB
    if picture.mode in ("I", "F"):  # 32 bits: the file does not define which value is white
        raise ValueError
    if "A" in picture.getbands() or "a" in picture.getbands() or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (_NEUTRAL_GREY,) * 3 + (255,))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")  # which copies
