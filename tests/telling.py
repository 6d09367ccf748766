"""A photograph on its side, with all metadata that cameras and photo programs write."""

import io

from PIL import Image, ImageCms

SECRETS = (b"secret", b"Exif", b"xpacket", b"acsp", b"Zeiss", b"8BIM")


def telling(upright: Image.Image) -> bytes:
    """A JPEG with place, device, maker's note, XMP, IPTC, comment and colour profile; stored turned (orientation 6)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E], exif[0x0110] = "a secret description", "Zeiss Ikon"
    exif.get_ifd(0x8769).update({0x927C: b"secret maker's note"})
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})  # GPS
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    stream = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(
        stream, "JPEG", quality=95, exif=exif, xmp=b'<?xpacket begin=""?><x>secret</x>', icc_profile=profile,
        comment=b"secret",
    )  # fmt: skip
    caption = b"\x1c\x02\x78\x00\x06secret"  # IPTC IIM 2:120
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00" + len(caption).to_bytes(4, "big") + caption + b"\0"
    whole = stream.getvalue()
    return whole[:2] + b"\xff\xed" + (len(iptc) + 2).to_bytes(2, "big") + iptc + whole[2:]


def segments(jpeg: bytes) -> list[int]:
    """The markers of a JPEG up to its pixels."""
    found: list[int] = []
    place = 2
    while not found or found[-1] != 0xDA:
        found.append(jpeg[place + 1])
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    return found


def only_pixels(jpeg: bytes) -> bool:
    """Whether a JPEG has tables and pixels alone (JFIF's header of 16 bytes says that it is one)."""
    needed = {0xE0, 0xDB, 0xC0, 0xC4, 0xDA}
    return set(segments(jpeg)) == needed and not any(secret in jpeg for secret in SECRETS)
