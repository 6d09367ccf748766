"""How many jobs a device can train at once: measured, not guessed."""

import os

import torch

from ..diffusion.base import BaseModel
from ..diffusion.devices import is_out_of_memory
from .data import stand_in
from .loop import TrainingLoop
from .recipe import recipe_named

MOST = 16  # more people make a step longer without a gain in throughput
SHARE = 0.85  # of the memory: previews, class images and fragmentation need the rest


def measured_capacity(base: BaseModel) -> int:
    """From the peak memory of a step of one and of two people with the standard recipe.

    On a CPU memory is not what runs out: a joint step gains little beyond a few people a core.
    """
    if base.device.type != "cuda":
        return max(1, min(8, 2 * (os.cpu_count() or 1)))
    try:
        one, two = _peak_bytes(base, 1), _peak_bytes(base, 2)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return 1
    free, _ = torch.cuda.mem_get_info(base.device)
    room = SHARE * (free + torch.cuda.memory_reserved(base.device))
    each = max(two - one, 1)
    return int(min(MOST, max(1, 1 + (room - one) // each)))


def _peak_bytes(base: BaseModel, people: int) -> int:
    recipe = recipe_named("standard")
    loop = TrainingLoop(base, capacity=people, rank=recipe.rank)
    try:
        for k in range(people):
            loop.join(str(k), recipe, stand_in(base), seed=k)
        torch.cuda.reset_peak_memory_stats(base.device)
        loop.step()
        return torch.cuda.max_memory_allocated(base.device)
    finally:
        loop.close()
