"""What surrounds a portrait: limits of a request, the words that mean the subject, and the file with its origin.

Sources: IPTC Photo Metadata Standard 2023.1, 'Digital Source Type'; PNG specification, tEXt and iTXt chunks; XMP
Specification Part 3, for where each kind of file has its packet.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from xml.sax.saxutils import quoteattr

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from . import __version__
from .errors import UsageError
from .types import MAX_SEED, AdapterCard, GeneratedImage, ImageRequest

MAX_PROMPT_CHARACTERS = 2000
MAX_IMAGES = 64
PNG, JPEG = "image/png", "image/jpeg"
JPEG_QUALITY = 95
ToPng = Callable[[GeneratedImage], bytes]
Says = Callable[[str, str], bool]
AI_GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_ME = re.compile(r"\{\s*me\s*\}", re.IGNORECASE)
_EXIF_SOFTWARE = 0x0131
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    "Iptc4xmpExt:DigitalSourceType={source}/></rdf:RDF></x:xmpmeta>"
)


def check_request(request: ImageRequest) -> ImageRequest:
    """The same request, if every value is in its range.

    Raises:
        UsageError: names the value, its range and, for numbers, what was got.
    """
    ranges: dict[str, tuple[str, float, float, float]] = {
        "steps": ("steps", 1, request.steps, 200),
        "guidance_scale": ("guidance", 1, request.guidance_scale, 30),
        "seed": ("seed", 0, request.seed, MAX_SEED),
        "adapter_scale": ("scale", 0, request.adapter_scale, 2),
        "negative_scale": ("negative scale", 0, request.negative_scale or 0, 2),
    }
    for param, (name, low, got, high) in ranges.items():
        if not low <= got <= high:
            raise UsageError(f"expected {name} from {low} to {high}, got {got}", param=param)
    for name, text in {"prompt": request.prompt, "negative prompt": request.negative_prompt}.items():
        param = name.replace(" ", "_")
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise UsageError(
                f"expected a {name} of at most {MAX_PROMPT_CHARACTERS} characters, got {len(text)}", param=param
            )
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UsageError(f"expected a {name} of whole characters, without NUL", param=param)
    return request


def numbered(request: ImageRequest, count: int) -> list[ImageRequest]:
    """`count` requests that differ in their seeds: seed, seed + 1, ...

    Raises:
        UsageError: a count out of 1..64, or as `check_request`.
    """
    if not 1 <= count <= MAX_IMAGES:
        raise UsageError(f"expected 1 to {MAX_IMAGES} images, got {count}", param="n")
    return [check_request(replace(request, seed=request.seed + k)) for k in range(count)]


def prompt_of(text: str, card: AdapterCard | None, says: Says) -> str:
    """The prompt as the base reads it.

    `{me}` becomes the identifier and the class noun. A prompt that has neither `{me}` nor the identifier gets
    'photo of <identifier> <class noun>, ' in front: a portrait of somebody is what was asked for. On the bare base
    (no card) `{me}` is a person.

    Args:
        says: whether a text has certain words as words of its own, as the base reads them.
    """
    named = with_subject(text, card)
    if card is None or named != text or says(text, card.identifier):
        return named
    me = f"{card.identifier} {card.class_noun}"
    return f"photo of {me}, {text}" if text.strip() else f"photo of {me}"


def with_subject(text: str, card: AdapterCard | None) -> str:
    """The text with the subject's words for `{me}`, however it is spaced and in any case."""
    me = "a person" if card is None else f"{card.identifier} {card.class_noun}"
    return _ME.sub(lambda _: me, text)


def facts(image: GeneratedImage) -> dict[str, object]:
    """Everything that would make the image again, as plain JSON types."""
    return {
        **asdict(image.request),
        "adapter_sha256": image.adapter_sha256,
        "base_sha256": image.base_sha256,
        "seconds": round(image.seconds, 3),
    }


def file_name(image: GeneratedImage) -> str:
    """Seed and a hash of what was asked of whom: the same order gives the same name, another order another."""
    document = json.dumps([asdict(image.request), image.base_sha256, image.adapter_sha256], sort_keys=True)
    return f"{image.request.seed}-{hashlib.sha256(document.encode()).hexdigest()[:8]}.png"


def encode(image: GeneratedImage, media_type: str = PNG, *, quality: int = JPEG_QUALITY) -> bytes:
    """The picture as a file that says what made it ('a trained algorithm'); a PNG holds its whole recipe too.

    Args:
        quality: of a JPEG, 1 to 100; a PNG loses nothing.

    Raises:
        UsageError: another media type than image/png and image/jpeg.
    """
    picture, buffer = Image.fromarray(image.image), io.BytesIO()
    xmp = _XMP.format(source=quoteattr(AI_GENERATED))
    if media_type == JPEG:
        exif = Image.Exif()
        exif[_EXIF_SOFTWARE] = f"Likeness {__version__}"
        picture.save(
            buffer, "JPEG", quality=quality, subsampling=0, xmp=xmp.encode(), exif=exif, comment="AI-generated"
        )
    elif media_type == PNG:
        info = PngInfo()
        for key, value in facts(image).items():
            if value not in (None, "") and key != "seconds":  # equal orders give equal files
                info.add_text(key, str(value))
        info.add_text("Software", f"Likeness {__version__}")
        info.add_text("Comment", "AI-generated")
        info.add_text("DigitalSourceType", AI_GENERATED)
        info.add_itxt("XML:com.adobe.xmp", xmp)
        picture.save(buffer, "PNG", pnginfo=info)
    else:
        raise UsageError(f"expected a media type of {PNG} and {JPEG}")
    return buffer.getvalue()


def save_png(image: GeneratedImage, path: Path, to_png: ToPng) -> Path:
    """Write the image as `to_png` has it: an installation's `encode`, which signs where it is told to, or ours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_png(image))
    return path


def save_all(images: Sequence[GeneratedImage], folder: Path, to_png: ToPng) -> Mapping[Path, GeneratedImage]:
    """Write every image under its own name; path -> image."""
    return {save_png(image, folder / file_name(image), to_png): image for image in images}
