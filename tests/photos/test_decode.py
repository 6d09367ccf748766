"""Every format becomes upright RGB without metadata; what cannot be read says so."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.JpegImagePlugin import JpegImageFile

from likeness.errors import InputRefused
from likeness.photos import decode, looks_like_image
from likeness.photos.decode import MAX_SIDE_PX, is_video

QUADRANTS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30))  # clockwise from the upper left


def quadrants(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    picture = np.empty((height, width, 3), np.uint8)
    middle_y, middle_x = height // 2, width // 2
    picture[:middle_y, :middle_x], picture[:middle_y, middle_x:] = QUADRANTS[0], QUADRANTS[1]
    picture[middle_y:, middle_x:], picture[middle_y:, :middle_x] = QUADRANTS[2], QUADRANTS[3]
    return picture


def saved(picture: Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, file_format, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("HEIF", {}),
        ("AVIF", {"quality": 95}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg", "quality": 95}),
        ("TIFF", {"big_tiff": True}),
    ],
)
def test_formats(file_format: str, options: dict[str, object]) -> None:
    picture = Image.fromarray(quadrants())
    if file_format == "HEIF":
        stream = io.BytesIO()
        pillow_heif.from_pillow(picture).save(stream, quality=95)
        content = stream.getvalue()
    else:
        content = saved(picture, file_format, **options)
    assert looks_like_image(content)
    image = decode(content)
    assert type(image) is np.ndarray and image.dtype == np.uint8 and image.shape == (48, 64, 3)
    assert np.abs(image[8:16, 8:16].astype(int) - QUADRANTS[0]).max() < 25
    assert np.abs(image[32:40, 48:56].astype(int) - QUADRANTS[2]).max() < 25


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, file_format: str) -> None:
    """What was stored turned comes out as it was; the inverse of each turn is pillow's own."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = Image.fromarray(quadrants())
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(saved(stored, file_format, exif=exif, quality=100))
    assert image.shape == quadrants().shape
    differs = np.abs(image.astype(int) - quadrants()) > (12 if file_format == "AVIF" else 0)
    assert differs.mean() <= (0.1 if file_format == "AVIF" else 0)  # AVIF halves the colour's resolution


def test_colour_modes() -> None:
    grey = decode(saved(Image.new("L", (9, 7), 77), "PNG"))
    assert grey.shape == (7, 9, 3) and np.unique(grey).tolist() == [77]
    cmyk = decode(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    assert cmyk[8, 8, 0] > 200 and cmyk[8, 8, 1:].max() < 60
    wide = decode(saved(Image.fromarray(np.full((8, 8), 0x8080, np.uint16)), "PNG"))
    assert np.unique(wide).tolist() == [0x80]
    palette = decode(saved(Image.fromarray(quadrants()).quantize(8), "PNG"))
    assert np.abs(palette[8, 8].astype(int) - QUADRANTS[0]).max() < 10


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (200, 0), (255, 0), (256, 1), (0xFFFF, 255)])
def test_a_dark_16_bit_picture_stays_dark(value: int, expected: int) -> None:
    wide = np.full((8, 8), value, np.uint16)
    assert np.unique(decode(saved(Image.fromarray(wide), "PNG"))).tolist() == [expected]


def test_alpha_is_laid_on_grey() -> None:
    assert decode(saved(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "PNG"))[0, 0].tolist() == [128, 128, 128]
    assert decode(saved(Image.new("LA", (8, 8), (255, 0)), "PNG"))[0, 0].tolist() == [128, 128, 128]


def test_modes_of_gif_bmp_and_tiff() -> None:
    clear = Image.new("P", (9, 7), 0)
    assert decode(saved(clear, "GIF", transparency=0))[0, 0].tolist() == [128, 128, 128]
    ink = decode(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "TIFF"))
    assert ink[8, 8, 0] > 200 and ink[8, 8, 1:].max() < 60
    wide = decode(saved(Image.fromarray(np.full((8, 8), 0x8080, np.uint16)), "TIFF"))
    assert np.unique(wide).tolist() == [0x80]
    bits = decode(saved(Image.new("1", (9, 7), 1), "BMP"))
    assert np.unique(bits).tolist() == [255]
    frames = [Image.fromarray(quadrants()), Image.new("RGB", (64, 48))]
    for file_format in ("GIF", "TIFF", "AVIF", "WEBP"):
        moving = saved(frames[0], file_format, save_all=True, append_images=frames[1:])
        assert np.abs(decode(moving)[8:16, 8:16].astype(int) - QUADRANTS[0]).max() < 25


@pytest.mark.parametrize("mode", ["F", "I"])
def test_numbers_without_a_white_are_refused(mode: str) -> None:
    with pytest.raises(InputRefused):
        decode(saved(Image.new(mode, (8, 8), 1), "TIFF"))


def test_a_cameras_raw_file_is_not_its_preview() -> None:
    """DNG, NEF and their like are TIFFs whose first image is small."""
    preview = saved(Image.fromarray(quadrants()), "TIFF", tiffinfo={0x00FE: 1})
    with pytest.raises(InputRefused, match="raw file") as refusal:
        decode(preview)
    assert refusal.value.hint == "export it as JPEG from an image editor"


@pytest.mark.parametrize(("first", "is_film"), [
    (b"\0\0\0\x18ftypisom", True), (b"\0\0\0\x14ftypqt  ", True), (b"\0\0\0\x08wide\0\0", True),
    (b"RIFF\0\0\0\0AVI LIST", True), (b"\x1a\x45\xdf\xa3\1\0\0\0", True), (b"\0\0\0\x1cftypheic", False),
    (b"\0\0\0\x1cftypavif", False), (b"\0\0\0\x20ftypmif1\0\0\0\0mif1avif", False), (b"", False), (b"words", False),
])  # fmt: skip
def test_films_are_known(first: bytes, is_film: bool) -> None:
    assert is_video(first) == is_film


@pytest.mark.parametrize("size", [(11_000, 8_000), (44_000, 2_000)])
def test_large_jpegs_are_reduced_while_they_are_decoded(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """88 megapixels; none of them is held, also of a panorama whose shorter side is small."""
    loaded: list[tuple[int, int]] = []
    load = JpegImageFile.load

    def watched(self: JpegImageFile) -> Any:
        loaded.append(self.size)
        return load(self)

    monkeypatch.setattr(JpegImageFile, "load", watched)
    content = saved(Image.new("L", size, 99), "JPEG")
    image = decode(content)
    assert max(image.shape) == MAX_SIDE_PX and image.shape[1] / image.shape[0] == pytest.approx(size[0] / size[1], 0.01)
    assert np.unique(image).tolist() == [99]
    assert loaded and max(loaded[0]) <= 2.5 * MAX_SIDE_PX


@pytest.mark.parametrize(("marker", "size", "limit"), [
    (0xC0, (40_000, 12_000), 400), (0xC2, (12_000, 8_000), 80)
])  # fmt: skip
def test_too_many_pixels_of_jpeg(marker: int, size: tuple[int, int], limit: int) -> None:
    """A progressive file is decoded whole, so the limit of the others holds for it."""
    content = bytearray(saved(Image.new("L", (8, 8)), "JPEG", progressive=marker == 0xC2))
    place = content.index(bytes([0xFF, marker]))
    content[place + 5 : place + 9] = struct.pack(">HH", size[1], size[0])
    with pytest.raises(InputRefused, match=f"at most {limit} megapixels"):
        decode(bytes(content))


def test_large_photos_shrink() -> None:
    content = saved(Image.new("RGB", (4000, 1000), (9, 99, 199)), "JPEG")
    assert max(decode(content).shape) <= MAX_SIDE_PX
    assert decode(saved(Image.new("RGB", (3000, 30)), "PNG")).shape[1] == MAX_SIDE_PX


@pytest.mark.parametrize(
    ("size", "megapixels"), [((10_000, 8_500), 85), ((12_000, 10_000), 120), ((40_000, 40_000), 1600)]
)
def test_too_many_pixels(size: tuple[int, int], megapixels: int) -> None:
    """Pillow's own alarm stays silent: a warning of it would be an error here."""
    content = bytearray(saved(Image.new("1", (8, 8)), "PNG"))
    content[16:24] = struct.pack(">II", *size)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(InputRefused, match=f"at most 80 megapixels, got {megapixels} ") as refusal:
        decode(bytes(content))
    assert refusal.value.hint == "save a smaller copy"


def test_too_many_pixels_of_webp() -> None:
    """Pillow's reader raises before it tells the size."""
    content = bytearray(saved(Image.new("RGB", (8, 8)), "WEBP", lossless=True))
    content[21:25] = struct.pack("<I", 0x0FFFFFFF)  # VP8L: twice 14 bits, sides less one
    with pytest.raises(InputRefused, match="at most 80 megapixels, got far more"):
        decode(bytes(content))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_truncated(file_format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = saved(Image.fromarray(noise), file_format)
    with pytest.raises(InputRefused) as refusal:
        decode(content[: len(content) // 2])
    assert refusal.value.hint


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"BMW is no bitmap" * 9, b"II is a name" * 9, b"%PDF-1.7", b"\0\0\0\x18ftypisom"]
)
def test_other_files(content: bytes) -> None:
    assert not looks_like_image(content)
    with pytest.raises(InputRefused):
        decode(content)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # pillow says so itself, and reads on
def test_broken_exif_does_not_spoil_a_photo() -> None:
    content = saved(Image.fromarray(quadrants()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    assert decode(content).shape == (48, 64, 3)


def swapped_profile() -> bytes:
    """sRGB with its red and green primaries exchanged: what such a file calls red is our green."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    table = slice(132, 132 + 12 * int.from_bytes(profile[128:132], "big"))  # ICC.1:2022, section 7.3
    profile[table] = profile[table].replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    return bytes(profile)


NEARLY_LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {}, "JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True},
}  # fmt: skip


@pytest.mark.parametrize("file_format", NEARLY_LOSSLESS)
def test_colours_of_another_profile_become_srgb(file_format: str) -> None:
    options = NEARLY_LOSSLESS[file_format]
    picture = Image.fromarray(quadrants())
    image = decode(saved(picture, file_format, icc_profile=swapped_profile(), **options))
    assert np.abs(image[8:16, 8:16].astype(int) - (30, 200, 30)).max() < 25
    plain = decode(saved(picture, file_format, **options))
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = decode(saved(picture, file_format, icc_profile=own, **options))
    assert np.abs(same.astype(int) - plain).max() <= 2


def test_a_profile_counts_under_alpha_too() -> None:
    picture = Image.fromarray(quadrants()).convert("RGBA")
    image = decode(saved(picture, "PNG", icc_profile=swapped_profile()))
    assert np.abs(image[8:16, 8:16].astype(int) - (30, 200, 30)).max() < 25


@pytest.mark.parametrize("profile", [b"no profile", swapped_profile()[:200], bytes(5 << 20)])
def test_a_broken_profile_tells_nothing(profile: bytes) -> None:
    image = decode(saved(Image.fromarray(quadrants()), "WEBP", lossless=True, icc_profile=profile))
    assert np.array_equal(image, quadrants())


def test_a_profile_of_other_colours_tells_nothing() -> None:
    grey = Image.fromarray(quadrants()).convert("L")
    assert np.array_equal(decode(saved(grey, "PNG", icc_profile=swapped_profile()))[..., 0], np.asarray(grey))
