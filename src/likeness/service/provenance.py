"""Content credentials: a signed statement in each image that a trained algorithm made it.

They need a configured signing key; the plain metadata of `image_files.encode` is always written.
Source: C2PA specification 2.2, 'Actions' and 'Digital source type'; the package c2pa-python.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import MissingPart, SettingsError
from .image_files import AI_GENERATED

Sign = Callable[[bytes, str], bytes]  # file and media type -> the file with credentials


def unsigned(content: bytes, media_type: str) -> bytes:
    """Used without a signing key."""
    return content


def signer(certificate: str | None, key: str | None) -> Sign:
    """A function that signs images with this certificate chain and key (PEM files, ES256); `unsigned` without them.

    Raises:
        SettingsError: only one of the two, or files that cannot be read or used.
        MissingPart: the package is not installed.
    """
    if certificate is None and key is None:
        return unsigned
    if certificate is None or key is None:
        raise SettingsError("expected both c2pa_certificate and c2pa_key, got one")
    try:
        import c2pa
    except ImportError as error:
        raise MissingPart(
            "expected the package c2pa-python for content credentials, which is not installed",
            hint="pip install 'likeness[c2pa]'",
        ) from error
    try:
        chain, secret = Path(certificate).read_text("utf-8"), Path(key).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise SettingsError(f"expected two PEM files for content credentials, got {type(error).__name__}") from error

    def sign(content: bytes, media_type: str) -> bytes:
        # The library's objects belong to one thread; creating them costs little compared with signing.
        info = c2pa.C2paSignerInfo(b"es256", chain.encode(), secret.encode(), None)
        signed = io.BytesIO()
        with c2pa.Signer.from_info(info) as seal, c2pa.Builder(json.dumps(_manifest(media_type))) as builder:
            builder.sign(seal, media_type, io.BytesIO(content), signed)
        return signed.getvalue()

    try:
        sign(_blank_png(), "image/png")  # so that a wrong key is found when the server starts
    except c2pa.C2paError as error:
        raise SettingsError(
            "expected a certificate chain and key that can sign content credentials",
            hint="use an ES256 key, and a certificate with the extended key usage emailProtection or documentSigning",
        ) from error
    return sign


def _manifest(media_type: str) -> dict[str, Any]:
    action = {"action": "c2pa.created", "digitalSourceType": AI_GENERATED}
    return {
        "claim_generator_info": [{"name": "Likeness", "version": __version__}],
        "format": media_type,
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
    }


def _blank_png() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()
