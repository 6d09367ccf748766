"""Writes the training images: `python -m recipes.base_model.render.dataset --assets DIR --out DIR`.

Shards hold `images` (N, S, S, 3) uint8, `masks` (np.packbits of (N, S, S) bool over the last axis), `person` (N,)
int32 and `attributes`, a JSON list of N objects as UTF-8 bytes (uint8). Every shard covers the whole range of persons
and views, so that any set of finished shards is a representative sample. Shards are written atomically, and existing
ones are not rendered again. Held-out persons are rendered only on request.
"""

import argparse
import json
import multiprocessing
import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from recipes.base_model.render.assets import load_assets
from recipes.base_model.render.people import Person, sample_person
from recipes.base_model.render.picture import render
from recipes.base_model.render.scene import sample_scene

HELD_OUT_FILE = Path(__file__).resolve().parent.parent / "held_out.txt"
SHARD_IMAGES = 1000
SUPERSAMPLING = 2


@dataclass(frozen=True)
class Plan:
    assets: Path
    out: Path
    people: range
    views: int
    seed: int
    size_px: int

    @property
    def shard_count(self) -> int:
        return -(-len(self.people) * self.views // SHARD_IMAGES)

    def shard_people(self, shard: int) -> list[int]:
        """Person seeds of one shard: every shard_count-th person, so that shards interleave."""
        return list(self.people[shard :: self.shard_count])

    def shard_path(self, shard: int) -> Path:
        return self.out / f"shard_{shard:05d}.npz"


@cache
def held_out_seeds() -> range:
    """The seeds of held_out.txt."""
    lines = [line for line in HELD_OUT_FILE.read_text().splitlines() if line and not line.startswith("#")]
    first, last = (int(number) for number in lines[0].split("-"))
    return range(first, last + 1)


def training_people(count: int, held_out: bool = False) -> range:
    """Seeds of `count` persons: those after the held-out ones or, if asked for, the held-out ones themselves."""
    reserved = held_out_seeds()
    if held_out:
        return reserved[:count]
    return range(reserved.stop, reserved.stop + count)


def write_shard(plan: Plan, shard: int) -> int:
    """Renders one shard and returns its number of images."""
    cv2.setNumThreads(1)
    assets = load_assets(plan.assets)
    images, masks, seeds, attributes = [], [], [], []
    for person_seed in plan.shard_people(shard):
        person = sample_person(person_seed, assets)
        for view in range(plan.views):
            image, mask, told = _one_image(plan, person, view)
            images.append(image)
            masks.append(mask)
            seeds.append(person_seed)
            attributes.append(told)
    order = np.random.default_rng([plan.seed, shard]).permutation(len(images))
    _write_whole(
        plan.shard_path(shard),
        {
            "images": np.stack(images)[order],
            "masks": np.packbits(np.stack(masks)[order], axis=-1),
            "person": np.array(seeds, np.int32)[order],
            "attributes": np.frombuffer(json.dumps([attributes[i] for i in order]).encode(), np.uint8),
        },
    )
    return len(images)


def _one_image(plan: Plan, person: Person, view: int) -> tuple[np.ndarray, np.ndarray, dict]:
    rng = np.random.default_rng([plan.seed, person.seed, view])
    picture = render(person, sample_scene(rng, person), load_assets(plan.assets), SUPERSAMPLING * plan.size_px)
    size = (plan.size_px, plan.size_px)
    small = cv2.resize(picture.image, size, interpolation=cv2.INTER_AREA)
    share = cv2.resize(picture.mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return small, share > 0.5, picture.attributes


def _write_whole(path: Path, arrays: dict[str, np.ndarray]) -> None:
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    with unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    unfinished.replace(path)


def _work(task: tuple[Plan, int]) -> int:
    return write_shard(*task)


def write_dataset(plan: Plan, workers: int) -> None:
    """All shards that are not there yet, by forked workers, in order of their numbers."""
    plan.out.mkdir(parents=True, exist_ok=True)
    tasks = [(plan, shard) for shard in range(plan.shard_count) if not plan.shard_path(shard).exists()]
    _one_image(plan, sample_person(plan.people[0], load_assets(plan.assets)), 0)  # compiles once; workers inherit it
    cv2.setNumThreads(1)
    started, done = time.monotonic(), 0
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        for number, count in enumerate(pool.imap_unordered(_work, tasks), 1):
            done += count
            rate = done / (time.monotonic() - started)
            print(f"{number}/{len(tasks)} shards, {done} images, {rate:.1f} images/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", type=int, default=25_000)
    parser.add_argument("--views", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--held-out", action="store_true", help="render held-out persons instead, for evaluation")
    options = parser.parse_args()
    people = training_people(options.people, options.held_out)
    plan = Plan(options.assets, options.out, people, options.views, options.seed, options.size)
    write_dataset(plan, options.workers)


if __name__ == "__main__":
    main()
