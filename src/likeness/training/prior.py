"""Class images for prior preservation, made by the base once per base, class noun and sampling settings.

They keep the meaning of 'a man' while '<<TOK>> man' becomes one particular man (Ruiz et al. 2023, section 3.2). They do
not depend on a subject's photographs, so all subjects share them. They are stored as latents.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .. import __version__
from ..diffusion.base import BaseModel
from ..diffusion.sampling import denoise_all
from ..errors import NotFound, StorageUnavailable
from ..storage.objects import Objects
from ..types import CLASS_IMAGES, ImageRequest
from .data import class_captions

STEPS = 20  # or the family's own number, if that is smaller
BATCH = 8

Unsaved = Callable[[OSError | StorageUnavailable], None]


def cache_prefix(base: BaseModel, class_noun: str) -> str:
    """The prefix of these class images' keys, with a hash of everything that they depend on."""
    schedule = {field.name: getattr(base.schedule, field.name) for field in fields(base.schedule)}
    captions = class_captions(base.family, class_noun, len(base.family.class_templates))
    facts = {
        "base": base.sha256, "dtype": str(base.dtype), "captions": captions, "steps": _steps(base),
        "sampler": base.family.sampler, "guidance_scale": base.family.guidance_scale, "code": __version__,
        "schedule": {name: hash_of(value) for name, value in schedule.items()},
    }  # fmt: skip
    return f"{CLASS_IMAGES}/{base.sha256[:16]}/{hash_of(json.dumps(facts, sort_keys=True))}/"


def class_latents(
    base: BaseModel, class_noun: str, count: int, *, objects: Objects,
    progress: Callable[[int], None] = lambda done: None, unsaved: Unsaved = lambda error: None,
) -> Tensor:  # fmt: skip
    """(count, C, h, w) latents of `count` class images, from the store, or computed and stored batch by batch.

    Two processes may compute them at the same time: both get the same result, and objects are written atomically.

    Args:
        objects: where all workers and tenants of an installation share them.
        progress: called with the number of finished images after each computed batch.
        unsaved: called with the reason if a batch could not be cached; the images are returned all the same.
    """
    prefix = cache_prefix(base, class_noun)
    captions = class_captions(base.family, class_noun, count)
    parts = []
    for start in range(0, count, BATCH):
        stop = min(start + BATCH, count)
        key = f"{prefix}{start:05d}-{stop:05d}.safetensors"
        latents = _kept(objects, key)
        if latents is None:
            requests = [ImageRequest(captions[seed], seed=seed, steps=_steps(base)) for seed in range(start, stop)]
            latents = denoise_all(base, None, requests).float().cpu()
            try:
                objects.put(key, save({"latents": latents}))
            except (OSError, StorageUnavailable) as error:
                unsaved(error)
            progress(stop)
        parts.append(latents)
    return torch.cat(parts) if parts else torch.zeros(0, *base.latent_shape)


def hash_of(value: object) -> str:
    """16 hexadecimal digits of the hash of a tensor, or of any object with a complete repr."""
    content = value.numpy().tobytes() if isinstance(value, Tensor) else str(value).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _steps(base: BaseModel) -> int:
    return min(STEPS, base.family.steps)


def _kept(objects: Objects, key: str) -> Tensor | None:
    """A batch from the store; None if it is missing or damaged."""
    try:
        return load(objects.get(key))["latents"]
    except (NotFound, SafetensorError, KeyError):
        return None
