"""A cold adapter: time to the first denoising step, and host memory of one more adapter.

python -m bench.engine_cold [--adapters 100] [--kept 300] [--save]

Cold: the adapter's file is on disk and, if the system supports it, not in the page cache. Each cold request is paired
with a warm one of the same adapter; the result is the difference of their times until the U-Net begins the first step.
(The time until the end of the step is in the table too, but varies more than the difference.) The engine is otherwise
idle. Memory: growth of the process per adapter in the host cache.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from likeness.diffusion.base import BaseModel
from likeness.engine.engine import Engine
from likeness.training.recipe import recipe_named
from likeness.types import ImageRequest, blend_of
from recipes.measurement import Row

from .adapters import AdapterFiles, write_adapters
from .random_base import add_base_options, base_settings, open_base
from .report import Goal, finish, options

REQUEST = ImageRequest("photo of <<TOK>> person", steps=1)
BEGIN, END = "its begin", "its end"
SETTLED = 20  # adapters before the first memory measurement


@contextmanager
def begins_of(base: BaseModel) -> Iterator[list[float]]:
    """The times at which the U-Net was called, on the performance counter, in seconds."""
    begins: list[float] = []
    hook = base.networks["unet"].register_forward_pre_hook(lambda *_: begins.append(time.perf_counter()))
    try:
        yield begins
    finally:
        hook.remove()


def first_step_ms(engine: Engine, key: str, begins: list[float]) -> tuple[float, float]:
    """Times from `submit` to beginning and end of the first denoising step; waits for the image."""
    ended_s = [0.0]

    def watch(_: object) -> None:
        ended_s[0] = time.perf_counter()

    begins.clear()
    started_s = time.perf_counter()
    engine.submit(REQUEST, adapters=blend_of(key), on_step=watch).result()
    return (begins[0] - started_s) * 1e3, (ended_s[0] - started_s) * 1e3


def cold_and_warm(base: BaseModel, files: AdapterFiles) -> dict[str, list[float]]:
    """Milliseconds of each adapter, cold and warm, to the beginning and to the end of the first step."""
    times: dict[str, list[float]] = {f"{kind} to {what}": [] for what in (BEGIN, END) for kind in ("cold", "warm")}
    rank = recipe_named("standard").rank
    with Engine(base, load=files.load, slots=8, rank=rank) as engine, begins_of(base) as begins:
        for _ in range(5):
            first_step_ms(engine, files.keys[0], begins)
        files.drop_from_page_cache()
        for key in files.keys[1:]:
            for kind in ("cold", "warm"):
                begin, end = first_step_ms(engine, key, begins)
                times[f"{kind} to {BEGIN}"].append(begin)
                times[f"{kind} to {END}"].append(end)
    return times


def memory_per_adapter(base: BaseModel, files: AdapterFiles) -> Row:
    """Bytes per additional adapter in the host cache: of its file, its parameters, and the process."""
    sizes = [files.path(key).stat().st_size for key in files.keys]
    rank = recipe_named("standard").rank
    request = ImageRequest("photo of <<TOK>> person", steps=1, guidance_scale=1.0)
    with Engine(base, load=files.load, slots=2, rank=rank, host_bytes=2 * sum(sizes)) as engine:
        seen: list[tuple[int, int]] = []
        for count, key in enumerate(files.keys, start=1):
            engine.submit(request, adapters=blend_of(key)).result()
            if count in (SETTLED, len(files.keys)):
                gc.collect()
                seen.append((psutil.Process().memory_info().rss, engine.facts().host_bytes))
    further = len(files.keys) - SETTLED
    return {
        "further adapters": further,
        "file kB": float(np.mean(sizes)) / 1e3,
        "numbers kB": (seen[1][1] - seen[0][1]) / further / 1e3,
        "process kB": (seen[1][0] - seen[0][0]) / further / 1e3,
    }


def main() -> None:
    parser = options(__doc__)
    add_base_options(parser)
    parser.add_argument("--adapters", type=int, default=100, help="that are asked for cold")
    parser.add_argument("--kept", type=int, default=200, help="in host memory")
    args: argparse.Namespace = parser.parse_args()
    base = open_base(args)
    rank = recipe_named("standard").rank
    with tempfile.TemporaryDirectory() as folder:
        times = cold_and_warm(base, write_adapters(base, Path(folder) / "cold", args.adapters + 1, rank=rank))
        memory = memory_per_adapter(base, write_adapters(base, Path(folder) / "kept", args.kept, rank=rank))
    pairs = zip(times[f"cold to {BEGIN}"], times[f"warm to {BEGIN}"], strict=True)
    times["added"] = [cold - warm for cold, warm in pairs]
    rows = [
        {"request": name, **{f"p{p} ms": float(np.percentile(each, p)) for p in (50, 90, 99)}, "max ms": max(each)}
        for name, each in times.items()
    ]
    over = (memory["process kB"] / memory["file kB"] - 1) * 100  # type: ignore[operator]
    goals = [
        Goal(
            "ms that a cold adapter adds to the first step, p99", float(np.percentile(times["added"], 99)), 20.0, False
        ),
        Goal("% that a further adapter takes beyond its own bytes", over, 10.0, False),
    ]
    settings = base_settings(args) | {"adapters": args.adapters, "kept": args.kept, "rank": rank}
    finish(
        "engine-cold", {"first denoising step": rows, "host memory per adapter": [memory]},
        goals=goals, settings=settings, save=args.save,
    )  # fmt: skip


if __name__ == "__main__":
    main()
