"""Shards become latents and token ids on the device as they appear, so that training can run while rendering does."""

import multiprocessing
from functools import partial
from multiprocessing.pool import AsyncResult
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny

from .autoencoder import read_basis
from .data import load_attributes, load_images, shard_paths, to_float
from .latents import CHANNELS
from .networks import LATENT_CELLS, MAX_TOKENS, load_tokenizer
from .render.captions import compose

CAPTIONS_PER_IMAGE = 6


def caption_ids(tokenizer_folder: Path, shard: Path) -> np.ndarray:
    """(n, CAPTIONS_PER_IMAGE, MAX_TOKENS) int16 ids of composed captions for one shard."""
    tokenizer = load_tokenizer(tokenizer_folder)
    rng = np.random.default_rng(int(shard.stem.split("_")[1]))
    captions = [compose(row, rng) for row in load_attributes([shard]) for _ in range(CAPTIONS_PER_IMAGE)]
    ids = tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_TOKENS)["input_ids"]
    return np.asarray(ids, np.int16).reshape(-1, CAPTIONS_PER_IMAGE, MAX_TOKENS)


class Feed:
    """The data set so far; `poll` takes in shards that were finished since.

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
        shape = (2, capacity, CHANNELS, LATENT_CELLS, LATENT_CELLS)  # as rendered, and mirrored
        self.latents = torch.zeros(shape, dtype=torch.half, device=device)
        self.ids = torch.zeros(capacity, CAPTIONS_PER_IMAGE, MAX_TOKENS, dtype=torch.int16, device=device)
        self._data, self._device = data, device
        self._basis, self._scale = read_basis(vae), vae.config["scaling_factor"]
        self._pool = multiprocessing.get_context("spawn").Pool(workers)
        self._caption = partial(caption_ids, tokenizer_folder)
        self._pending: dict[Path, AsyncResult[Any]] = {}
        self._taken: set[Path] = set()

    def poll(self, most: int = 1) -> int:
        """Take in up to `most` shards that are ready; returns how many images there are now."""
        for path in shard_paths(self._data):
            if path not in self._taken and path not in self._pending:
                self._pending[path] = self._pool.apply_async(self._caption, (path,))
        ready = [path for path, result in self._pending.items() if result.ready()]
        for path in ready[:most]:
            self._take(path, self._pending.pop(path).get())
        return self.size

    def close(self) -> None:
        self._pool.terminate()

    def _take(self, path: Path, ids: np.ndarray) -> None:
        self._taken.add(path)
        images = load_images([path])
        stop = min(self.size + len(images), self.latents.shape[1])
        count = stop - self.size
        for k, view in enumerate((images, images.flip(3))):  # mirrored people are people too
            latents = self._basis(to_float(view[:count].to(self._device)))
            self.latents[k, self.size : stop] = latents * self._scale
        self.ids[self.size : stop] = torch.from_numpy(ids[:count]).to(self._device)
        self.size = stop
