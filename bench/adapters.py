"""Adapter files for measurements of the engine: random weights in the store's format.

The key of an adapter is the key of its object. Time and memory depend on shapes only.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from likeness.artifacts import bundle
from likeness.diffusion.base import BaseModel
from likeness.diffusion.lora import LoraBank
from likeness.storage.objects import FileObjects
from likeness.types import Adapter, AdapterCard, LoraPair, Network

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class AdapterFiles:
    """`count` adapters in a folder."""

    objects: FileObjects
    sha256s: Sequence[str]

    @property
    def keys(self) -> list[str]:
        return [f"local/adapters/a{i}/{sha256}{bundle.SUFFIX}" for i, sha256 in enumerate(self.sha256s)]

    def path(self, key: str) -> Path:
        return self.objects.root / key

    def load(self, key: str) -> Adapter:
        """The engine's loader: reads and checks as in production."""
        return bundle.reopen(self.objects.get(key), key.rpartition("/")[2].removesuffix(bundle.SUFFIX))

    def drop_from_page_cache(self) -> None:
        """Evict the files from the page cache, so that the next read goes to the disk."""
        os.sync()
        for key in self.keys:
            with self.path(key).open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_adapters(base: BaseModel, folder: Path, count: int, *, rank: int, is_small: bool = False) -> AdapterFiles:
    """Write `count` adapters of this rank.

    Args:
        is_small: only the U-Net's attention layers.
    """
    bank = LoraBank(base.networks, base.family.targets, slots=2, rank=rank)
    row = 0.05 * torch.randn(bank.columns, generator=torch.Generator().manual_seed(0))
    weights: dict[Network, dict[str, LoraPair]] = bank.pairs_of(row, rank)
    bank.close()
    if is_small:
        weights = {"unet": {name: pair for name, pair in weights["unet"].items() if name.endswith(ATTENTION)}}
    first = next(iter(weights["unet"]))
    objects, sha256s = FileObjects(folder), []
    for i in range(count):
        A, B = weights["unet"][first].A, weights["unet"][first].B
        own = {**weights["unet"], first: LoraPair(A + i / 256, B)}  # another hash and another image
        kept, content = bundle.encode(Adapter(_card(base, i, rank), {**weights, "unet": own}))
        objects.put(f"local/adapters/a{i}/{kept.card.content_sha256}{bundle.SUFFIX}", content)
        sha256s.append(kept.card.content_sha256)
    return AdapterFiles(objects, sha256s)


def _card(base: BaseModel, i: int, rank: int) -> AdapterCard:
    return AdapterCard(
        name=f"a{i}", class_noun="person", identifier="<<TOK>>", base_id=base.id, base_sha256=base.sha256,
        family=base.family.name, recipe={}, seed=i, photos=1, steps=1, seconds=0.0, created="2026-01-01T00:00:00+00:00",
        versions={}, rank=rank, alpha=float(rank),
    )  # fmt: skip
