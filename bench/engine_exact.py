"""Checks that a batch does not change an image, and that adapter swaps do not change the base.

python -m bench.engine_exact [--pictures 24] [--swaps 10000] [--save]

Images: random requests, each made alone, then all in one engine with few slots, arriving at random times; compared in
float before rounding to 8 bits. Swaps: images of one step, each with an adapter that is in no slot.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fixtures.pixels import difference, recording
from fixtures.weights import resident_sha256
from likeness.diffusion.base import BaseModel
from likeness.diffusion.samplers import SAMPLERS
from likeness.engine.engine import Engine
from likeness.training.recipe import recipe_named
from likeness.types import GeneratedImage, ImageRequest, blend_of
from recipes.measurement import Row

from .adapters import AdapterFiles, write_adapters
from .random_base import add_base_options, base_settings, open_base
from .report import Goal, finish, options

SWAP_FILES = 16


def random_requests(keys: Sequence[str], count: int, *, most_steps: int) -> list[ImageRequest]:
    dice = random.Random(0)
    prompts = ("photo of <<TOK>> person", "oil painting of a man in the snow", "a woman, a beach")
    return [
        ImageRequest(
            dice.choice(prompts), blend_of(dice.choice([*keys, None])), seed=dice.randrange(2**31),
            steps=dice.randint(2, most_steps), guidance_scale=dice.choice([1.0, 2.0, 3.0, 5.0]),
            adapter_scale=dice.choice([1.0, 0.7, 1.0]), sampler=dice.choice(sorted(SAMPLERS)),
        )
        for _ in range(count)
    ]  # fmt: skip


def alone_and_mixed(base: BaseModel, files: AdapterFiles, requests: Sequence[ImageRequest]) -> list[Row]:
    """Each image's difference from its solo run, and the distance of the two most similar images."""
    rank = recipe_named("standard").rank
    dice = random.Random(1)
    with recording(base) as recorder:
        with Engine(recorder, load=files.load, slots=2, rank=rank, max_batch=1) as engine:
            alone = [recorder.pixels_of(engine.generate([request])[0]) for request in requests]
        with Engine(recorder, load=files.load, slots=4, rank=rank, max_batch=5) as engine:
            tickets = []
            for request in requests:
                tickets.append(engine.submit(request, adapters=request.adapters))
                if dice.random() < 0.3:  # an additional request that is cancelled
                    engine.submit(replace(request, seed=1, steps=30), adapters=request.adapters).cancel()
                time.sleep(dice.random() * 0.1)
            mixed: list[GeneratedImage] = [ticket.result() for ticket in tickets]
            rows = engine.facts().rows_per_step
        differences = [
            difference(one, recorder.pixels_of(other)) for one, other in zip(alone, mixed, strict=True)
        ]  # fmt: skip
    nearest = min(difference(alone[i], alone[k]) for i in range(len(alone)) for k in range(i))
    return [
        {
            "pictures": len(requests),
            "rows a step, mean": rows.sum / rows.count,
            "largest difference from alone": max(differences),
            "median": float(np.median(differences)),
            "two different pictures, least": nearest,
        }
    ]


def swapped(base: BaseModel, folder: Path, swaps: int) -> tuple[list[Row], bool]:
    """Fewer slots than adapters, requested in a cycle: every image needs a swap."""
    files = write_adapters(base, folder, SWAP_FILES, rank=recipe_named("standard").rank)
    before, started_s = resident_sha256(base), time.perf_counter()
    with Engine(base, load=files.load, slots=SWAP_FILES // 2 + 1, rank=recipe_named("standard").rank) as engine:
        request = ImageRequest("photo of <<TOK>> person", steps=1, guidance_scale=1.0)
        for start in range(0, swaps, SWAP_FILES):
            engine.generate([replace(request, adapters=blend_of(key)) for key in files.keys[: swaps - start]])
        facts = engine.facts()
    seconds, after = time.perf_counter() - started_s, resident_sha256(base)
    row = {"swaps": facts.slot_misses, "seconds": seconds, "SHA-256 before": before[:16], "after": after[:16]}
    return [row], before == after


def main() -> None:
    parser = options(__doc__)
    add_base_options(parser)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="at most, of a picture")
    parser.add_argument("--swaps", type=int, default=1000)
    args: argparse.Namespace = parser.parse_args()
    base = open_base(args)
    with tempfile.TemporaryDirectory() as folder:
        files = write_adapters(base, Path(folder) / "people", 5, rank=recipe_named("standard").rank)
        requests = random_requests(files.keys, args.pictures, most_steps=args.steps)
        pictures = alone_and_mixed(base, files, requests)
        swaps, is_same = swapped(base, Path(folder) / "swaps", args.swaps)
    largest = pictures[0]["largest difference from alone"]
    assert isinstance(largest, float)
    goals = [
        Goal("largest difference from the solo run, float32, range [0, 1]", largest, 1e-5, False),
        Goal(f"base weights have the same hash after {swaps[0]['swaps']} swaps (1 = yes)", float(is_same), 1.0, True),
    ]
    settings = base_settings(args) | {"pictures": args.pictures, "steps": args.steps, "swaps": args.swaps}
    tables = {"alone and mixed": pictures, "swaps": swaps}
    finish("engine-exact", tables, goals=goals, settings=settings, save=args.save)


if __name__ == "__main__":
    main()
