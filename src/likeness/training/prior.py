"""Class images for prior preservation, made by the base itself, once for each (base, class noun, count).

They are what keeps 'a man' a man while '<<TOK>> man' becomes one man (Ruiz et al. 2023, section 3.2). They
depend on nobody's photos, so all subjects share them; they are kept as latents, since nothing else reads them.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..diffusion.base import BaseModel
from ..diffusion.lora import BASE_SLOT
from ..diffusion.sampling import Order, denoise_all
from .data import class_caption

STEPS = 20
BATCH = 8


def cache_path(folder: Path, base: BaseModel, class_noun: str, count: int) -> Path:
    """Where these class images are kept. The noun is a user's text, so the name holds its hash."""
    noun = hashlib.sha256(class_noun.encode()).hexdigest()[:12]
    return folder / base.sha256[:16] / f"{noun}-{count}.safetensors"


def class_latents(
    base: BaseModel, class_noun: str, count: int, *, folder: Path, progress: Callable[[int], None] = lambda done: None
) -> Tensor:
    """(count, C, h, w) latents of `count` class images, from the cache or made now and put there.

    Two processes may make them at once: both make the same, and the file appears whole.
    """
    path = cache_path(folder, base, class_noun, count)
    if path.exists():
        return load_file(path)["latents"]
    if count == 0:
        return torch.zeros(0, *base.latent_shape)
    parts = []
    for start in range(0, count, BATCH):
        orders = [
            Order(class_caption(class_noun), "", seed, STEPS, base.family.guidance_scale, "dpmpp_2m", BASE_SLOT)
            for seed in range(start, min(start + BATCH, count))
        ]
        parts.append(denoise_all(base, None, orders).float().cpu())
        progress(min(start + BATCH, count))
    latents = torch.cat(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file({"latents": latents}, temporary)
    temporary.replace(path)
    return latents
