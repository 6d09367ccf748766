"""An engine whose adapters are files of this machine, as in the model folders of Triton and SageMaker.

The engine's key of an adapter is the hash of its weights and its absolute path: SHA256/folder/adapter.safetensors.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifacts import bundle, tensors
from ..artifacts.adapter import strength_on
from ..config import Settings
from ..engine.prompts import unread_of, worded
from ..errors import Mismatch, UsageError
from ..service.image_files import encode
from ..service.loading import engine_of, loaded_base
from ..service.provenance import signer
from ..types import Adapter, AdapterCard, GeneratedImage, ImageRequest, WeightedAdapter

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..engine.ticket import Ticket

Encode = Callable[[GeneratedImage, str], bytes]  # image and media type -> a file
MAX_CARDS = 4096


class FileEngine:
    """An engine and the encoder of its images. Thread-safe; `admit` and `submit` may read a file."""

    def __init__(self, engine: "Engine", encode: Encode) -> None:
        self.engine, self.encode = engine, encode
        self._card = lru_cache(MAX_CARDS)(_checked_card)

    def admit(self, key: str) -> None:
        """Check an adapter's file before its first request. Raises CorruptAdapter, Mismatch."""
        strength_on(self._card(key), self.engine.base.sha256)

    def submit(self, request: ImageRequest, key: str | None, deadline_s: float) -> tuple["Ticket", tuple[str, ...]]:
        """Submit a request for an adapter, or for the bare base; the ticket, and remarks on words that are not read.

        Raises:
            UsageError: further adapters: a folder of models has no names for them.
            as `admit` and `Engine.submit`.
        """
        if request.adapters:
            raise UsageError(
                "expected the model's own adapter only, got others: this engine cannot find adapters by name",
                hint="leave out `also`; `likeness serve` combines adapters",
                param="also",
            )
        card = None if key is None else self._card(key)
        asked = worded(self.engine.base, request, [] if card is None else [card.subject])
        ticket = self.engine.submit(
            asked, adapters=() if key is None else (WeightedAdapter(key),), tenant=key or "", deadline_s=deadline_s
        )
        return ticket, unread_of(self.engine.base, asked).remarks

    def release(self, key: str) -> None:
        """Drop an adapter. Files of other adapters are also read again, at their next request."""
        self._card.cache_clear()
        self.engine.forget(key)


@contextmanager
def file_engine(settings: Settings, *, base_sha256: str | None = None) -> Iterator[FileEngine]:
    """The engine that the settings describe; closed with the block.

    Args:
        base_sha256: the base that must be loaded; None: any.

    Raises:
        Mismatch: the settings name another base.
        NotFound, CorruptBase, SettingsError: as `loaded_base` and `signer`.
    """
    base = loaded_base(settings)
    if base_sha256 not in (None, base.sha256):
        raise Mismatch(
            "expected the engine to have the base that the adapter was trained on, got another",
            hint="set LIKENESS_BASE to that base",
            code="WrongBase",
        )
    sign = signer(settings.c2pa_certificate, settings.c2pa_key)
    with engine_of(settings, base, load) as engine:
        yield FileEngine(engine, lambda image, media_type: sign(encode(image, media_type), media_type))


def load(key: str) -> Adapter:
    """The adapter of a key. Raises CorruptAdapter: not a regular file, damaged, or with other weights."""
    sha256, content = _read(key)
    return bundle.reopen(content, sha256)


def _checked_card(key: str) -> AdapterCard:
    sha256, content = _read(key)
    bundle.decode(content)
    return bundle.reopen(content, sha256).card


def _read(key: str) -> tuple[str, bytes]:
    sha256, _, path = key.partition("/")
    return sha256, tensors.read_bytes(Path(f"/{path}"), limit=tensors.MAX_FILE_BYTES)
