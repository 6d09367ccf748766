"""Throughput of the engine with many adapters: 64 against one, 10,000 against a few.

python -m bench.engine_many [--people 64] [--adapters 10000 --slots 256 --host 2000] [--save]

`--images` portraits per variant and round, all submitted at once; the variants run in turn. The 10,000 adapters are
requested by Zipf's law (exponent 1) and are small (rank 1, attention); the 64 have the size of the standard recipe.
"""

import argparse
import gc
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from likeness.diffusion.base import BaseModel
from likeness.engine.engine import Engine
from likeness.engine.facts import EngineFacts
from likeness.training.recipe import recipe_named
from likeness.types import ImageRequest, blend_of
from recipes.measurement import Row

from .adapters import AdapterFiles, write_adapters
from .random_base import add_base_options, base_settings, open_base
from .report import Goal, finish, options
from .timing import Rounds, Work, ratio, take_turns

REQUEST = ImageRequest("oil painting of <<TOK>> person")


def portraits(engine: Engine, keys: Sequence[str], *, steps: int) -> Work:
    """Makes one portrait for each key."""
    requests = [replace(REQUEST, adapters=blend_of(key), seed=k, steps=steps) for k, key in enumerate(keys)]
    return lambda: engine.generate(requests)


def zipf_keys(files: AdapterFiles, count: int, *, seed: int) -> list[str]:
    """The i-th adapter with a probability proportional to 1 / i."""
    ranks = np.arange(1, len(files.sha256s) + 1)
    chosen = np.random.default_rng(seed).choice(len(ranks), size=count, p=(1 / ranks) / (1 / ranks).sum())
    keys = files.keys
    return [keys[i] for i in chosen]


def people_against_one(base: BaseModel, folder: Path, args: argparse.Namespace) -> Rounds:
    rank = recipe_named("standard").rank
    files = write_adapters(base, folder, args.people, rank=rank)
    all_keys = [files.keys[k % args.people] for k in range(args.images)]
    with Engine(base, load=files.load, slots=args.people + 1, rank=rank, max_batch=args.max_batch) as engine:
        works = {
            "different": portraits(engine, all_keys, steps=args.steps),
            "the same": portraits(engine, files.keys[:1] * args.images, steps=args.steps),
        }
        return take_turns(works, args.rounds)


def many_against_hot(base: BaseModel, folder: Path, args: argparse.Namespace) -> tuple[Rounds, EngineFacts, list[Row]]:
    files = write_adapters(base, folder, args.adapters, rank=1, is_small=True)
    size = files.path(files.keys[0]).stat().st_size
    hot = [files.keys[k % (args.slots - 1)] for k in range(args.images)]
    memory: list[Row] = []
    drawn = iter(range(10**6))
    engine = Engine(
        base, load=files.load, slots=args.slots, rank=1, max_batch=args.max_batch, host_bytes=args.host * size,
    )  # fmt: skip
    with engine:

        def zipf() -> None:
            portraits(engine, zipf_keys(files, args.images, seed=next(drawn)), steps=args.steps)()
            gc.collect()
            rss_mb = psutil.Process().memory_info().rss / 1e6
            memory.append(
                {"images": engine.facts().images, "RSS MB": rss_mb, "host MB": engine.facts().host_bytes / 1e6}
            )

        rounds = take_turns({"all hot": portraits(engine, hot, steps=args.steps), "zipf": zipf}, args.rounds)
        for _ in range(args.memory_rounds):
            _swaps(engine, zipf_keys(files, 8 * args.images, seed=next(drawn)))
            zipf()
        return rounds, engine.facts(), memory


def _swaps(engine: Engine, keys: Sequence[str]) -> None:
    """The same requests with images of one step, for more adapters in less time."""
    engine.generate([replace(REQUEST, adapters=blend_of(key), steps=1, guidance_scale=1.0) for key in keys])


def main() -> None:
    parser = options(__doc__)
    add_base_options(parser)
    parser.add_argument("--people", type=int, default=64)
    parser.add_argument("--adapters", type=int, default=2000)
    parser.add_argument("--slots", type=int, default=64, help="of the bank, slot 0 included")
    parser.add_argument("--host", type=int, default=400, help="adapters in host memory")
    parser.add_argument("--images", type=int, default=32, help="an arm and round")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-rounds", type=int, default=2)
    args: argparse.Namespace = parser.parse_args()
    base = open_base(args)
    with tempfile.TemporaryDirectory() as folder:
        people = people_against_one(base, Path(folder) / "people", args)
        many, facts, memory = many_against_hot(base, Path(folder) / "many", args)
    arms = [
        {"arm": name, "median s": median(seconds), "images a second": args.images / median(seconds)}
        for rounds in (people, many)
        for name, seconds in rounds.items()
    ]
    asked = facts.slot_hits + facts.slot_misses
    caches = [
        {"where": "in a slot", "share": facts.slot_hits / asked, "evictions": facts.slot_evictions},
        {"where": "in a slot or host memory", "share": facts.host_hits / asked, "evictions": facts.host_evictions},
    ]
    middle, end = memory[len(memory) // 2], memory[-1]
    growth = _number(end, "RSS MB") - _number(middle, "RSS MB") - _number(end, "host MB") + _number(middle, "host MB")
    goals = [
        Goal(f"{args.people} adapters: throughput against one", ratio(people, "the same", "different"), 0.95, True),
        Goal(f"{args.adapters} adapters: throughput against all hot", ratio(many, "all hot", "zipf"), 0.9, True),
        Goal("MB that memory grows in the second half, host cache not counted", growth, 16.0, False),
    ]
    names = ("people", "adapters", "slots", "host", "images", "steps", "max_batch", "rounds", "memory_rounds")
    settings = base_settings(args) | {name: getattr(args, name) for name in names}
    finish(
        "engine-many", {"throughput": arms, "caches, zipf": caches, "memory, zipf": memory},
        goals=goals, settings=settings, save=args.save,
    )  # fmt: skip


def _number(row: Row, name: str) -> float:
    value = row[name]
    assert isinstance(value, float)
    return value


if __name__ == "__main__":
    main()
