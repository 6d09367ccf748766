"""An engine whose adapters are files of this machine, as Triton's and SageMaker's models are, not rows of a catalog."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..config import Settings
from ..errors import WrongBase
from ..service.image_files import encode
from ..service.provenance import signer
from ..types import GeneratedImage

if TYPE_CHECKING:
    from ..engine.engine import Engine

Encode = Callable[[GeneratedImage, str], bytes]  # picture and media type -> a file


@contextmanager
def archive_engine(settings: Settings, *, base_sha256: str | None = None) -> Iterator[tuple["Engine", Encode]]:
    """The engine that the settings describe, and what makes files of its pictures; closed with the block.

    Args:
        base_sha256: the base that is asked for; another is refused.

    Raises:
        WrongBase: the settings name another base than the one that is asked for.
        NotFound, CorruptBase, SettingsError: as `load_base` and `signer`.
    """
    from ..diffusion.base import load_base
    from ..engine.cards import load
    from ..engine.engine import Engine

    base = load_base(settings.base, settings.revision)
    if base_sha256 not in (None, base.sha256):
        raise WrongBase("the engine's base is not the one that the adapter was trained on", hint="set LIKENESS_BASE")
    sign = signer(settings.c2pa_certificate, settings.c2pa_key)
    engine = Engine(
        base, load=load, slots=settings.slots, rank=settings.rank,
        max_batch=settings.max_batch, host_bytes=settings.host_mb << 20, queue_limit=settings.queue_limit,
    )  # fmt: skip
    with engine:
        yield engine, lambda image, media_type: sign(encode(image, media_type), media_type)
