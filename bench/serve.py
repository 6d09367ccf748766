"""A real `likeness serve` over loopback: many people at once, many different adapters, overload.

python -m bench.serve [--people 8] [--images 32] [--steps 30] [--rounds 3] [--overload-s 60] [--save]

people     `--people` clients, each for another person, against the same load on stock diffusers behind the same kind of
           server, one adapter at a time (serve_peer.py). Both processes stay up and run in turn.
64         requests for 64 different adapters against requests for one adapter, in turn.
overload   four times the measured throughput, at fixed times, for `--overload-s`; then one request.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from likeness.config import Settings
from likeness.diffusion.base import locate
from likeness.service import Likeness, build
from likeness.storage.catalog import LOCAL
from likeness.training.recipe import recipe_named
from recipes.measurement import Row

from .adapters import write_adapters
from .load import Answer, Body, closed, open_loop
from .random_base import RANDOM, add_base_options, base_settings, build_random_base
from .report import Goal, finish, options
from .timing import Rounds, ratio, take_turns

PATH = "/v1/images"
MANY = 64
DEADLINE_S, QUEUE = 30, 32


@contextmanager
def process(words: Sequence[str], port: int, log: Path, environment: Mapping[str, str]) -> Iterator[psutil.Process]:
    """A server in its own process, ready for requests; stopped at the end of the block."""
    with log.open("wb") as said, subprocess.Popen(words, stdout=said, stderr=said, env=environment) as running:
        try:
            for _ in range(1200):
                if running.poll() is not None:
                    sys.exit(f"the server ended: {log.read_text()[-2000:]}")
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).read()
                    break
                except OSError:
                    time.sleep(0.1)
            yield psutil.Process(running.pid)
        finally:
            running.terminate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def publish(folder: Path, base: str) -> tuple[Likeness, list[str]]:
    """A home folder with 64 adapters of the standard recipe's size."""
    likeness = build(Settings(home=folder, base=base))
    files = write_adapters(likeness.base, folder / "made", MANY, rank=recipe_named("standard").rank)
    for key in files.keys:
        likeness.library.publish(files.load(key), LOCAL)
    return likeness, [record.name for record in likeness.catalog.list_adapters(LOCAL)]


def orders(names: Sequence[str], count: int, *, steps: int, guidance: float) -> list[Body]:
    """`count` requests, with the names in turn."""
    return [
        {
            "prompt": "oil painting of <<TOK>> person", "adapter": names[k % len(names)], "seed": k, "steps": steps,
            "guidance_scale": guidance,
        }
        for k in range(count)
    ]  # fmt: skip


def good(answers: Sequence[Answer]) -> list[Answer]:
    """The responses, if all succeeded; a rate with failures would be meaningless."""
    if wrong := Counter(answer.status for answer in answers if answer.status != 200):
        sys.exit(f"expected 200 for every request, got {dict(wrong)}")
    return list(answers)


def overload(
    port: int, server: psutil.Process, bodies: Sequence[Body], *, per_s: float, seconds: float
) -> tuple[Row, list[Goal]]:
    """The load, its responses, and the server's memory during and after it."""
    sizes: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            sizes.append(server.memory_info().rss)

    before = server.memory_info().rss
    alone = good(closed(port, PATH, bodies[:1], 1))[0].seconds
    watcher = threading.Thread(target=watch)
    watcher.start()
    answers = open_loop(port, PATH, lambda k: bodies[k % len(bodies)], per_s=4 * per_s, seconds=seconds)
    stop.set()
    watcher.join()
    after = closed(port, PATH, bodies[:1], 1)[0]
    taken = [answer.seconds for answer in answers if answer.status == 200]
    statuses = Counter(answer.status for answer in answers)
    others = sum(count for status, count in statuses.items() if status not in (200, 429, 503))
    without_hint = sum(answer.status in (429, 503) and answer.retry_after is None for answer in answers)
    half = len(sizes) // 2
    growth = (max(sizes[half:]) / max(sizes[:half]) - 1) * 100 if half else 0.0
    row = {
        "asked": len(answers), "answered": statuses[200], "told to come again": statuses[429] + statuses[503],
        "asked a second": 4 * per_s, "answered a second": len(taken) / seconds,
        "p50 s": float(np.percentile(taken, 50)), "max s": max(taken), "alone s": alone,
        "first after s": after.seconds, "MB before": before / 1e6, "MB at most": max(sizes, default=before) / 1e6,
    }  # fmt: skip
    goals = [
        Goal("overload: answers that are neither pictures nor 429 or 503", float(others), 0.0, False),
        Goal("overload: refusals without Retry-After", float(without_hint), 0.0, False),
        Goal(f"overload: slowest picture, s (deadline {DEADLINE_S})", max(taken), float(DEADLINE_S), False),
        Goal("overload: % of memory more in the second half than in the first", growth, 2.0, False),
        Goal("overload: seconds of the first request after, over those alone", after.seconds / alone, 2.0, False),
    ]
    return row, goals


def measure(args: argparse.Namespace, folder: Path) -> tuple[dict[str, list[Row]], list[Goal]]:
    base = str(build_random_base(folder / "base")) if args.base == RANDOM else args.base
    likeness, names = publish(folder / "home", base)
    base_folder = str(locate(base, None))
    guidance = likeness.base.family.guidance_scale
    for name in names[: args.people]:
        likeness.export(name, "diffusers", folder / "exported" / f"{name}.safetensors")
    likeness.close()
    ours, theirs = free_port(), free_port()
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    settings = {
        "LIKENESS_HOME": str(folder / "home"), "LIKENESS_BASE": base, "LIKENESS_SLOTS": str(MANY + 1),
        "LIKENESS_MAX_BATCH": str(args.people), "LIKENESS_QUEUE_LIMIT": str(QUEUE),
        "LIKENESS_DEADLINE_S": str(DEADLINE_S),
    }  # fmt: skip
    serve = [sys.executable, "-m", "likeness.cli", "serve", "--workers", "0", "--port", str(ours)]
    exported = sorted(map(str, (folder / "exported").iterdir()))
    peer = [sys.executable, "-m", "bench.serve_peer", str(theirs), base_folder, *exported]

    def made(port: int, chosen: Sequence[str], clients: int) -> list[Answer]:
        bodies = orders(chosen, args.images, steps=args.steps, guidance=guidance)
        return good(closed(port, PATH, bodies, clients))

    tables: dict[str, list[Row]] = {}
    with ExitStack() as stack:
        server = stack.enter_context(process(serve, ours, folder / "ours.log", environment | settings))
        people = names[: args.people]
        with process(peer, theirs, folder / "peer.log", environment):
            rounds = take_turns(
                {
                    "likeness": lambda: made(ours, people, args.people),
                    "one at a time": lambda: made(theirs, people, args.people),
                },
                args.rounds,
            )
        tables[f"{args.people} people at once"] = rates(rounds, args.images)
        many = take_turns(
            {
                "64 people": lambda: made(ours, names, args.people),
                "one person": lambda: made(ours, names[:1], args.people),
            },
            args.rounds,
        )
        tables["everybody is somebody else"] = rates(many, args.images)
        per_s = args.images / median(rounds["likeness"])
        bodies = orders(names, 512, steps=args.steps, guidance=guidance)
        row, goals = overload(ours, server, bodies, per_s=per_s, seconds=args.overload_s)
        tables[f"four times too much for {args.overload_s} s"] = [row]
    faster = ratio(rounds, "one at a time", "likeness")
    share = ratio(many, "one person", "64 people") * 100
    first = [
        Goal(f"{args.people} people at once: times the images a second of one at a time", faster, 3.0, True),
        Goal("64 adapters: % of the throughput of one", share, 95.0, True),
    ]
    return tables, [*first, *goals]


def rates(rounds: Rounds, images: int) -> list[Row]:
    return [
        {"server": name, "median s": median(seconds), "images a second": images / median(seconds)}
        for name, seconds in rounds.items()
    ]


def main() -> None:
    parser = options(__doc__)
    add_base_options(parser)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--images", type=int, default=32, help="an arm and round")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overload-s", type=int, default=60)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tables, goals = measure(args, Path(folder))
    settings = base_settings(args) | {
        "people": args.people, "images": args.images, "steps": args.steps, "rounds": args.rounds,
        "overload_s": args.overload_s, "deadline_s": DEADLINE_S, "queue_limit": QUEUE,
    }  # fmt: skip
    finish("serve", tables, goals=goals, settings=settings, save=args.save)


if __name__ == "__main__":
    main()
