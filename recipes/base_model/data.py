"""The rendered shards as tensors: images on the training device, attributes in host memory.

A data set of 128 px images is small (100,000 of them are 4.9 GB as uint8), so all of it is on the
device and no loader processes are needed.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def shard_paths(folder: Path) -> list[Path]:
    """Finished shards, in order."""
    return sorted(folder.glob("shard_*.npz"))


def wait_for_shards(folder: Path, count: int, *, timeout_s: float) -> list[Path]:
    """Block until `count` shards are finished, so that training can start while rendering goes on.

    Raises:
        TimeoutError: fewer shards than that after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while len(found := shard_paths(folder)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"expected {count} shards in the data folder, found {len(found)}")
        time.sleep(1)
    return found


def load_images(paths: Sequence[Path]) -> Tensor:
    """All images of the shards, (N, 3, 128, 128) uint8 on the host."""
    parts = [torch.from_numpy(np.load(path)["images"]) for path in paths]  # each (n, 128, 128, 3)
    return torch.cat(parts).permute(0, 3, 1, 2).contiguous()


def load_attributes(paths: Sequence[Path]) -> list[dict]:
    """The attributes of every image, in the order of `load_images`."""
    rows: list[dict] = []
    for path in paths:
        with np.load(path) as shard:
            rows.extend(json.loads(bytes(shard["attributes"])))
    return rows


def to_float(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> float in [-1, 1], the range of every diffusers autoencoder."""
    return images.float().div_(127.5).sub_(1)


def psnr_db(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio per image, (B,), of images in [-1, 1]: 10 log10(peak^2 / MSE) with peak 2."""
    return 10 * torch.log10(4 / (a - b).square().flatten(1).mean(1))
