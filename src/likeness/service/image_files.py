"""A generated image as a PNG or JPEG file whose metadata has its provenance and settings.

Sources: IPTC Photo Metadata Standard 2023.1, 'Digital Source Type'; PNG specification, tEXt and iTXt chunks; XMP
Specification Part 3, for the position of the XMP packet in each kind of file.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .. import __version__
from ..errors import UsageError
from ..types import JPEG, PNG, GeneratedImage

JPEG_QUALITY = 95
ToPng = Callable[[GeneratedImage], bytes]
AI_GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_EXIF_SOFTWARE = 0x0131
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    "Iptc4xmpExt:DigitalSourceType={source}/></rdf:RDF></x:xmpmeta>"
)


def facts(image: GeneratedImage) -> dict[str, object]:
    """Everything that is needed to make the image again, as plain JSON types."""
    return {
        **image.request.to_json(),
        "adapter_sha256": image.adapter_sha256,
        "base_sha256": image.base_sha256,
        "seconds": round(image.seconds, 3),
    }


def file_name(image: GeneratedImage) -> str:
    """Seed and a hash of request, base and adapter: equal requests have equal names."""
    document = json.dumps([image.request.to_json(), image.base_sha256, image.adapter_sha256], sort_keys=True)
    return f"{image.request.seed}-{hashlib.sha256(document.encode()).hexdigest()[:8]}.png"


def encode(image: GeneratedImage, media_type: str = PNG, *, quality: int = JPEG_QUALITY) -> bytes:
    """The image as a file marked as made by a trained algorithm; a PNG holds its `facts` too.

    Args:
        quality: of a JPEG, 1 to 100; PNG is lossless.

    Raises:
        UsageError: another media type than image/png and image/jpeg.
    """
    picture, buffer = Image.fromarray(image.image), io.BytesIO()
    if media_type == JPEG:
        xmp = _XMP.format(source=quoteattr(AI_GENERATED))
        exif = Image.Exif()
        exif[_EXIF_SOFTWARE] = f"Likeness {__version__}"
        picture.save(
            buffer, "JPEG", quality=quality, subsampling=0, xmp=xmp.encode(), exif=exif, comment="AI-generated"
        )
    elif media_type == PNG:
        said = {key: value for key, value in facts(image).items() if value not in (None, "") and key != "seconds"}
        return marked_png(picture, said)  # without the seconds, equal requests give equal files
    else:
        raise UsageError(f"expected a media type of {PNG} and {JPEG}")
    return buffer.getvalue()


def marked_png(picture: Image.Image, said: Mapping[str, object] | None = None) -> bytes:
    """A PNG marked as made by a trained algorithm, with `said` in text chunks."""
    info, buffer = PngInfo(), io.BytesIO()
    for key, value in (said or {}).items():
        info.add_text(key, str(value))
    info.add_text("Software", f"Likeness {__version__}")
    info.add_text("Comment", "AI-generated")
    info.add_text("DigitalSourceType", AI_GENERATED)
    info.add_itxt("XML:com.adobe.xmp", _XMP.format(source=quoteattr(AI_GENERATED)))
    picture.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def save_png(image: GeneratedImage, path: Path, to_png: ToPng) -> Path:
    """Write the image as `to_png` encodes it: `encode`, or an installation's `encode`, which also signs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_png(image))
    return path


def save_all(images: Sequence[GeneratedImage], folder: Path, to_png: ToPng) -> Mapping[Path, GeneratedImage]:
    """Write every image under its own name; path -> image."""
    return {save_png(image, folder / file_name(image), to_png): image for image in images}
