"""Loads the base and starts the engine; slow, so done at first use."""

from typing import TYPE_CHECKING

from ..config import Settings
from ..storage.library import AdapterLibrary

if TYPE_CHECKING:  # these import torch
    from ..diffusion.base import BaseModel
    from ..engine.engine import Engine


def loaded_base(settings: Settings) -> "BaseModel":
    """Raises NotFound, CorruptBase."""
    from ..diffusion.base import load_base, silence_libraries

    silence_libraries()  # they would write between our progress bars
    return load_base(settings.base, settings.revision)


def started_engine(settings: Settings, base: "BaseModel", library: AdapterLibrary) -> "Engine":
    """Adapters of every rank that the settings and the presets allow are served."""
    from ..engine.engine import Engine
    from ..training.recipe import LARGEST_PRESET_RANK

    return Engine(
        base, slots=settings.slots, rank=settings.rank, large_rank=LARGEST_PRESET_RANK,
        max_batch=settings.max_batch, host_bytes=settings.host_mb << 20, queue_limit=settings.queue_limit,
        load=library.load,
    )  # fmt: skip
