"""Loads the base and starts the engine; slow, so done at first use."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..config import Settings
from ..errors import OutOfMemory
from ..storage.files import file_failed
from ..storage.library import AdapterLibrary
from ..storage.one_fetch import shared_get
from ..types import Adapter

if TYPE_CHECKING:  # these import torch
    from ..diffusion.base import BaseModel
    from ..diffusion.family import Family
    from ..engine.engine import Engine
    from ..storage.device_turns import EngineTurns


def loaded_base(settings: Settings, *, trains: bool = False) -> "BaseModel":
    """`trains`: see `load_base`. Raises NotFound, CorruptBase."""
    from ..diffusion.base import load_base, silence_libraries

    silence_libraries()  # they would write between our progress bars
    return load_base(settings.base, settings.revision, trains=trains)


def refuse_unservable(settings: Settings) -> None:
    """Compare what serving needs with the memory of the device, if it counts that, before the base is loaded.

    Raises:
        OutOfMemory: weights, slots and one guided image do not fit; the message has the numbers.
        NotFound, CorruptBase: as `load_base`, for what the configs show.
    """
    from ..diffusion.devices import pick_device

    device = pick_device()
    needed, available = _needed_and_available(settings)
    if needed > available:
        raise OutOfMemory(
            f"expected {needed / 2**30:.1f} GiB of free memory on the {device.type} for the base, {settings.slots} "
            f"slots of rank {settings.rank} and one image, got {available / 2**30:.1f}",
            hint="close other programs that use the device, set LIKENESS_SLOTS or LIKENESS_RANK lower, or choose a "
            "smaller base",
        )


def offered_sides(settings: Settings, family: "Family") -> tuple[int, ...]:
    """Sides in px of the squares about whose areas images are offered.

    They are the base's own, and that of the family's model card if weights, slots and one guided image of it fit into
    the memory of the device, where that is counted.
    """
    if family.native_px is None:
        return (family.resolution_px,)
    needed, available = _needed_and_available(settings, family.native_px)
    return (family.resolution_px, family.native_px) if needed <= available else (family.resolution_px,)


def _needed_and_available(settings: Settings, side_px: int | None = None) -> tuple[int, int]:
    """Bytes that serving needs with an image of a side, and those of the device; 0 and 0 if it does not count them."""
    from ..diffusion.base import fake_base, silence_libraries
    from ..diffusion.devices import available_bytes, counts_memory, limit_memory, memory_bytes, pick_device, pick_dtype
    from ..engine.batch_limits import needed_bytes

    device = pick_device()
    if not counts_memory(device):
        return 0, 0
    limit_memory(device, 1 - settings.training_memory / 100)
    silence_libraries()
    memory, dtype = memory_bytes(device), pick_dtype(device)
    fake = fake_base(settings.base, settings.revision, device=device, dtype=dtype, memory=memory)
    needed = needed_bytes(fake, slots=settings.slots, rank=settings.rank, side_px=side_px)
    return needed, available_bytes(device)


def started_engine(settings: Settings, base: "BaseModel", library: AdapterLibrary) -> "Engine":
    """The engine of an installation's library.

    The device is shared with trainings, and fetches of adapters with the other engines of this node.

    Raises:
        SettingsError: see `warm_up`.
        StorageError: the home folder cannot be written.
    """
    from ..diffusion.devices import device_name, limit_memory
    from ..storage.device_turns import EngineTurns

    limit_memory(base.device, 1 - settings.training_memory / 100)
    home = settings.home.expanduser().absolute()
    try:
        turns, get = EngineTurns(home, device_name(base.device)), shared_get(library.objects, home)
    except OSError as error:
        raise file_failed(error) from error
    return engine_of(settings, base, partial(library.load, get=get), turns=turns)


def engine_of(
    settings: Settings, base: "BaseModel", load: Callable[[str], Adapter], *, turns: "EngineTurns | None" = None
) -> "Engine":
    """An engine as the settings describe it; it serves adapters of every rank that they and the presets allow.

    Args:
        load, turns: as of `Engine`.

    Raises:
        SettingsError: see `warm_up`.
    """
    from ..engine.engine import Engine
    from ..training.recipe import LARGEST_PRESET_RANK

    return Engine(
        base, load=load, slots=settings.slots, rank=settings.rank, large_rank=LARGEST_PRESET_RANK,
        max_batch=settings.max_batch, host_bytes=settings.host_mb << 20, queue_limit=settings.queue_limit,
        compiles=settings.compile == "on", turns=turns,
    )  # fmt: skip
