"""Class images for prior preservation, made by the base itself, once for each base, class noun and way to make them.

They are what keeps 'a man' a man while '<<TOK>> man' becomes one man (Ruiz et al. 2023, section 3.2). They
depend on nobody's photos, so all subjects share them; they are kept as latents, since nothing else reads them.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .. import __version__
from ..diffusion.base import BaseModel
from ..diffusion.sampling import denoise_all
from ..errors import NotFound, StorageUnavailable
from ..storage.objects import FileObjects
from ..types import ImageRequest
from .data import class_captions

STEPS = 20
BATCH = 8
SAMPLER = "dpmpp_2m"

Unsaved = Callable[[OSError | StorageUnavailable], None]


def cache_folder(folder: Path, base: BaseModel, class_noun: str) -> Path:
    """Where these class images are kept: named by a hash of everything that they depend on."""
    schedule = {field.name: getattr(base.schedule, field.name) for field in fields(base.schedule)}
    captions = class_captions(base.family, class_noun, len(base.family.class_templates))
    facts = {
        "base": base.sha256, "dtype": str(base.dtype), "captions": captions, "steps": STEPS, "sampler": SAMPLER,
        "guidance_scale": base.family.guidance_scale, "code": __version__,
        "schedule": {name: hash_of(value) for name, value in schedule.items()},
    }  # fmt: skip
    return folder / base.sha256[:16] / hash_of(json.dumps(facts, sort_keys=True))


def class_latents(
    base: BaseModel, class_noun: str, count: int, *, folder: Path,
    progress: Callable[[int], None] = lambda done: None, unsaved: Unsaved = lambda error: None,
) -> Tensor:  # fmt: skip
    """(count, C, h, w) latents of `count` class images, from the cache or made now and put there batch by batch.

    Two processes may make them at once: both make the same, and a file appears whole.

    Args:
        progress: told how many there are after each batch that was made.
        unsaved: told why a batch was not put into the cache; the images are made all the same.
    """
    cache = FileObjects(cache_folder(folder, base, class_noun))
    captions = class_captions(base.family, class_noun, count)
    parts = []
    for start in range(0, count, BATCH):
        stop = min(start + BATCH, count)
        key = f"{start:05d}-{stop:05d}.safetensors"
        latents = _kept(cache, key)
        if latents is None:
            requests = [
                ImageRequest(captions[seed], seed=seed, steps=STEPS, sampler=SAMPLER) for seed in range(start, stop)
            ]
            latents = denoise_all(base, None, requests).float().cpu()
            try:
                cache.put(key, save({"latents": latents}))
            except (OSError, StorageUnavailable) as error:
                unsaved(error)
            progress(stop)
        parts.append(latents)
    return torch.cat(parts) if parts else torch.zeros(0, *base.latent_shape)


def hash_of(value: object) -> str:
    """16 hexadecimal digits of a tensor's numbers, or of anything that prints what it is."""
    content = value.numpy().tobytes() if isinstance(value, Tensor) else str(value).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _kept(cache: FileObjects, key: str) -> Tensor | None:
    """A batch of the cache; None where it is not there or damaged."""
    try:
        return load(cache.get(key))["latents"]
    except (NotFound, SafetensorError, KeyError):
        return None
