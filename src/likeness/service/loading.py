"""Loads the base and starts the engine; slow, so done at first use."""

from typing import TYPE_CHECKING

from ..config import Settings
from ..storage.library import AdapterLibrary

if TYPE_CHECKING:  # these import torch
    from ..diffusion.base import BaseModel
    from ..engine.engine import Engine


def loaded_base(settings: Settings) -> "BaseModel":
    """Raises NotFound, CorruptBase."""
    from diffusers.utils import logging as diffusers_log
    from transformers.utils import logging as transformers_log

    from ..diffusion.base import load_base

    diffusers_log.set_verbosity_error()  # both would write to standard error, between our progress bars
    transformers_log.set_verbosity_error()
    transformers_log.disable_progress_bar()
    return load_base(settings.base, settings.revision)


def started_engine(settings: Settings, base: "BaseModel", library: AdapterLibrary) -> "Engine":
    """The slots have the largest rank that the settings allow."""
    from ..engine.engine import Engine

    return Engine(
        base, slots=settings.slots, rank=settings.rank, max_batch=settings.max_batch,
        host_bytes=settings.host_mb << 20, queue_limit=settings.queue_limit, load=library.load,
    )  # fmt: skip
