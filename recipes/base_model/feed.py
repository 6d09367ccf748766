"""Shards become latents and token ids on the device as they appear, so that training can run while rendering does."""

import multiprocessing
from functools import partial
from multiprocessing.pool import AsyncResult
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from likeness.photos.styles import STYLES

from .autoencoder import read_basis
from .classifier import HEADS
from .data import load_attributes, load_images, shard_paths, to_float
from .latents import CHANNELS
from .networks import LATENT_CELLS, MAX_TOKENS, load_tokenizer
from .render.captions import compose
from .render.people import ETHNICITIES, GLASSES, HAIR_RGB
from .said import said_classes

CAPTIONS_PER_IMAGE = 6
PHOTO_GAIN = (
    0.75  # photos are six renders in ten; drawn this often they are about half, each of the 11 other styles 4 %
)
GLASSES_GAIN = 1.5  # likewise: faces with glasses break most often (docs/log.md, 2026-11-29)
CLASSES = {"hair_color": (None, *HAIR_RGB), "ethnicity": ETHNICITIES, "style": tuple(STYLES), "glasses": GLASSES}


def read_captions(tokenizer_folder: Path, shard: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one shard with n images, for C = CAPTIONS_PER_IMAGE composed captions each.

    Returns:
        token ids (n, C, MAX_TOKENS) int16; what the captions say (n, C, heads) int8, see `said.said_classes`;
        `CLASSES` of the images (n, 4).
    """
    tokenizer = load_tokenizer(tokenizer_folder)
    rng = np.random.default_rng(int(shard.stem.split("_")[1]))
    rows = load_attributes([shard])
    told = [row for row in rows for _ in range(CAPTIONS_PER_IMAGE)]
    captions = [compose(row, rng) for row in told]
    ids = tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_TOKENS)["input_ids"]
    said = [said_classes(text, row) for text, row in zip(captions, told, strict=True)]
    classes = [[values.index(row[name]) for name, values in CLASSES.items()] for row in rows]
    shape = (len(rows), CAPTIONS_PER_IMAGE, -1)
    return np.asarray(ids, np.int16).reshape(shape), np.asarray(said, np.int8).reshape(shape), np.asarray(classes)


def chances(classes: Tensor) -> Tensor:
    """(N, 4) numbers in `CLASSES` -> (N,) weights in a draw; they sum to 1, and to 1 / 5 for each of 5 ethnicities.

    A hair colour counts 1 / sqrt(pictures that have it): one render in 28 is blonde, and drawn plainly the word is
    hardly ever seen. Blonde and red come with one ethnicity only, which without the division would be drawn most.
    """
    hair, ethnicity, style, glasses = classes.T
    weight = torch.bincount(hair)[hair].double().rsqrt()
    weight *= torch.where(style == CLASSES["style"].index("photo"), PHOTO_GAIN, 1.0)
    weight *= torch.where(glasses == CLASSES["glasses"].index("none"), 1.0, GLASSES_GAIN)
    of_group = torch.zeros(len(ETHNICITIES), dtype=weight.dtype).index_add(0, ethnicity, weight)
    return weight / of_group[ethnicity] / (of_group > 0).sum()


class Feed:
    """The current data set; `poll` adds shards that have been finished.

    Args:
        data: folder of shards.
        tokenizer_folder: written before.
        vae: on `device`.
        capacity: most images; memory for them is taken at once.
        workers: processes that compose and tokenize captions.
    """

    def __init__(
        self,
        data: Path,
        tokenizer_folder: Path,
        vae: AutoencoderTiny,
        *,
        device: torch.device,
        capacity: int,
        workers: int,
    ) -> None:
        self.size = 0
        self.people: set[int] = set()  # seeds of the people in the images
        shape = (2, capacity, CHANNELS, LATENT_CELLS, LATENT_CELLS)  # original and mirrored
        self.latents = torch.zeros(shape, dtype=torch.half, device=device)
        self.ids = torch.zeros(capacity, CAPTIONS_PER_IMAGE, MAX_TOKENS, dtype=torch.int16, device=device)
        self.said = torch.zeros(capacity, CAPTIONS_PER_IMAGE, len(HEADS), dtype=torch.int8, device=device)
        self._data, self._device = data, device
        self._classes = torch.zeros(capacity, len(CLASSES), dtype=torch.long, device=device)
        self._chances = torch.zeros(0)
        self._basis, self._scale = read_basis(vae), vae.config["scaling_factor"]
        self._pool = multiprocessing.get_context("spawn").Pool(workers)
        self._caption = partial(read_captions, tokenizer_folder)
        self._pending: dict[Path, AsyncResult[Any]] = {}
        self._taken: set[Path] = set()

    @property
    def shards(self) -> int:
        """Loaded so far."""
        return len(self._taken)

    def poll(self, most: int = 1) -> int:
        """Add up to `most` finished shards; returns the number of images."""
        for path in shard_paths(self._data):
            if path not in self._taken and path not in self._pending:
                self._pending[path] = self._pool.apply_async(self._caption, (path,))
        ready = [path for path, result in self._pending.items() if result.ready()]
        for path in ready[:most]:
            self._take(path, *self._pending.pop(path).get())
        if ready:
            self._chances = chances(self._classes[: self.size])
        return self.size

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) rows, with rare attributes drawn more often."""
        return torch.multinomial(self._chances, count, replacement=True, generator=generator)

    def close(self) -> None:
        self._pool.terminate()

    def _take(self, path: Path, ids: np.ndarray, said: np.ndarray, classes: np.ndarray) -> None:
        self._taken.add(path)
        images = load_images([path])
        with np.load(path) as shard:
            people = shard["person"]
        stop = min(self.size + len(images), self.latents.shape[1])
        count = stop - self.size
        self.people.update(people[:count].tolist())
        for k, view in enumerate((images, images.flip(3))):  # original and mirrored
            latents = self._basis(to_float(view[:count].to(self._device)))
            self.latents[k, self.size : stop] = latents * self._scale
        self.ids[self.size : stop] = torch.from_numpy(ids[:count]).to(self._device)
        self.said[self.size : stop] = torch.from_numpy(said[:count]).to(self._device)
        self._classes[self.size : stop] = torch.from_numpy(classes[:count]).to(self._device)
        self.size = stop
