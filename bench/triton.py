"""Triton models over one engine, on a real tritonserver, against one pipeline per model as in the reference solution.

python -m bench.triton [--parts memory,load,together,hop,kill] [--people 8] [--peers 3] [--save]

memory    of all processes, for an increasing number of models, with one request each (of a few steps, because memory
does
          not depend on them); the same with whole pipelines
load      one more person while the engine runs, in turn with an empty model; the difference is our code
together  `--people` requests at once against one after another
hop       a 512 px image made beforehand: fetched through the engine's socket, and through Triton, from a model that
calls
          the engine and from one that has the image itself
kill      kill -9 of the engine with seven requests, four of them running

The server runs in its own network namespace, in SageMaker's multi-model mode; requests are those of the reference
solution.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from statistics import median

import numpy as np

from fixtures.hosting import asked, pictures
from fixtures.triton_server import Reply
from fixtures.waiting import until
from likeness.artifacts.exporting import export_diffusers
from recipes.measurement import Row

from .random_base import add_base_options, base_settings
from .report import ROOT, Goal, finish, options
from .timing import Work, ratio, take_turns
from .triton_hosting import Hosted, OtherModel, Stage, memory_mb, stage_of

PICTURE = ROOT / "src" / "likeness" / "assets" / "demo" / "photo_02.jpg"
FEW_STEPS = 4
BEGUN, WAITING = 4, 3  # of the requests in an engine that is killed
Part = tuple[dict[str, list[Row]], list[Goal]]


def memory(stage: Stage, args: argparse.Namespace) -> Part:
    """First our models, then whole pipelines, never both at once."""
    rows: list[Row] = []
    with stage.hosted("memory", slots=args.people + 1) as hosted:
        for name in names(args.people):
            load_s = seconds(partial(hosted.load, name))
            for _ in range(1 if rows else 4):  # the first one warms the engine
                pictures(hosted.endpoint.invoke(name, asked(steps=FEW_STEPS)))
            memory = memory_mb(hosted.server, hosted.facts()["pid"])
            rows.append({"models": len(rows) + 1, **memory, "load s": load_s})
    theirs = whole_pipelines(stage, args)
    ours_mb, theirs_mb = further_mb(rows, after=2), further_mb(theirs, after=1)
    goals = [
        Goal("MB of memory per further model", ours_mb, 25.0, at_least=False),
        Goal("memory per further model, share of a whole pipeline's", ours_mb / theirs_mb, 0.1, at_least=False),
    ]
    return {"memory: people over one engine": rows, "memory: a pipeline a model": theirs}, goals


def whole_pipelines(stage: Stage, args: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    with stage.hosted("peers", slots=2) as hosted:
        for count, key in enumerate(stage.files.keys[: args.peers], 1):
            lora = stage.folder / f"{count}.safetensors"
            export_diffusers(stage.files.load(key), lora)
            files = {"lora.safetensors": lora.read_bytes()}
            model = OtherModel(hosted, f"whole{count}", "triton_peer.py", files=files)
            load_s = seconds(model.load)
            for _ in range(1 if rows else 4):
                pictures(model.ask(asked(steps=FEW_STEPS)))
            rows.append({"models": count, **memory_mb(hosted.server), "load s": load_s})
    return rows


def further_mb(rows: Sequence[Row], *, after: int) -> float:
    """MB per model beyond the first `after`."""
    return (_number(rows[-1], "MB") - _number(rows[after - 1], "MB")) / (len(rows) - after)


def load(stage: Stage, args: argparse.Namespace) -> Part:
    """In turn, so that other load affects both."""
    ours_s: list[float] = []
    bare_s: list[float] = []
    with stage.hosted("load", slots=args.people + 1) as hosted:
        hosted.load("a0")  # starts the engine
        for turn in range(args.loads):
            name = names(args.people)[1 + turn % (args.people - 1)]
            bare = OtherModel(hosted, f"bare{turn}", "triton_bare.py", files={"picture": PICTURE.read_bytes()})
            works: list[tuple[list[float], Work]] = [(ours_s, partial(hosted.load, name)), (bare_s, bare.load)]
            for times, work in works if turn % 2 else reversed(works):
                times.append(seconds(work))
            hosted.unload(name)
            bare.unload()
    own_s = [ours - bare for ours, bare in zip(ours_s, bare_s, strict=True)]
    kinds = {"a person": ours_s, "a model with nothing in it": bare_s, "difference: ours": own_s}
    rows: list[Row] = [{"load of": what, "median s": median(s), "max s": max(s)} for what, s in kinds.items()]
    goals = [
        Goal("s to load a further model", median(ours_s), 2.0, at_least=False),
        Goal("s of that which are ours", median(own_s), 0.3, at_least=False),
    ]
    return {"load of a further model": rows}, goals


def together(stage: Stage, args: argparse.Namespace) -> Part:
    people, body = names(args.people), asked(steps=args.steps)
    with stage.hosted("together", slots=args.people + 1) as hosted, ThreadPoolExecutor(args.people) as pool:
        for name in people:
            hosted.load(name)

        def ask(name: str) -> int:
            return len(pictures(hosted.endpoint.invoke(name, body)))

        works = {
            "one after another": lambda: [ask(name) for name in people],
            "at once": lambda: list(pool.map(ask, people)),
        }
        rounds = take_turns(works, args.rounds)
    rows: list[Row] = [
        {"invoked": how, "median s": median(times), "images a second": args.people / median(times)}
        for how, times in rounds.items()
    ]
    faster = ratio(rounds, "one after another", "at once")
    claim = f"{args.people} people invoked at once: times the images a second of one after another"
    return {f"{args.people} people": rows}, [Goal(claim, faster, 2.5, at_least=True)]


def hop(stage: Stage, args: argparse.Namespace) -> Part:
    key = stage.files.keys[0]
    adapter = {"path": str(stage.files.path(key).absolute()), "sha256": stage.files.sha256s[0]}
    question = {"verb": "generate", "adapter": adapter, "prompt": "a", "negative_prompt": "", "gen_args": "{}"}
    with instant_engine(stage, "hop"), stage.hosted("hop", slots=2) as hosted:
        _, jpeg = hosted.engine.ask(question, 5.0)
        bare = OtherModel(hosted, "bare", "triton_bare.py", files={"picture": jpeg})
        bare.load()
        hosted.load("a0")
        ways = {
            "the engine's socket alone": lambda: hosted.engine.ask(question, 5.0),
            "Triton, a person, the engine": lambda: hosted.endpoint.invoke("a0", asked()),
            "Triton, a model that has the picture": lambda: bare.ask(asked()),
        }
        rounds = take_turns(ways, args.hops)
    ms = {way: [float(np.percentile(times, p)) * 1e3 for p in (50, 99)] for way, times in rounds.items()}
    rows: list[Row] = [{"way": way, "ms p50": p50, "ms p99": p99} for way, (p50, p99) in ms.items()]
    alone, through, without = ms.values()
    goals = [
        Goal("ms of the hop with a 512 px image, p50", alone[0], 5.0, at_least=False),
        Goal("ms of the hop with a 512 px image, p99", alone[1], 5.0, at_least=False),
        Goal("ms that Triton answers later for it, p50", through[0] - without[0], 5.0, at_least=False),
    ]
    return {f"hop, a JPEG of {len(jpeg) / 1e3:.0f} kB": rows}, goals


@contextmanager
def instant_engine(stage: Stage, name: str) -> Iterator[None]:
    """An engine that draws nothing, where the models of the server `name` look for theirs."""
    socket = stage.address(name).file("sock")
    words = [sys.executable, "-m", "fixtures.instant_engine", str(socket), stage.base_sha256, str(PICTURE)]
    with subprocess.Popen(words, cwd=ROOT) as running:
        try:
            until(socket.exists, 60)
            yield
        finally:
            running.terminate()


def kill(stage: Stage, args: argparse.Namespace) -> Part:
    people = names(BEGUN + WAITING)
    with stage.hosted("kill", slots=BEGUN + 1) as hosted, ThreadPoolExecutor(len(people)) as pool:
        for name in people:
            hosted.load(name)
            pictures(hosted.endpoint.invoke(name, asked(steps=FEW_STEPS)))
        rows = [_one_death(hosted, pool, people, steps=args.steps) for _ in range(args.kills)]
    sums = {what: sum(_number(row, what) for row in rows) for what in ("waiting", "answered", "begun", "one error")}
    last_s = max(_number(row, "next request s") for row in rows)
    title = f"engine killed with {len(people)} requests"
    goals = [
        Goal(f"{title}: not begun, and not answered", sums["waiting"] - sums["answered"], 0.0, at_least=False),
        Goal(f"{title}: begun, and without one clear error", sums["begun"] - sums["one error"], 0.0, at_least=False),
        Goal(f"{title}: s until all of that, and the next request's picture", last_s, 15.0, at_least=False),
    ]
    return {title: rows}, goals


def _one_death(hosted: Hosted, pool: ThreadPoolExecutor, people: Sequence[str], *, steps: int) -> Row:
    """The result of each request, with its time."""

    def ask(name: str) -> tuple[Reply, float]:
        return hosted.endpoint.invoke(name, asked(steps=steps)), time.monotonic()

    asking = {name: pool.submit(ask, name) for name in people}
    until(lambda: hosted.facts().items() >= {("running", BEGUN), ("waiting", WAITING)}, 60, 0.02)
    os.kill(hosted.facts()["pid"], signal.SIGKILL)
    killed_s = time.monotonic()
    fates = {name: one.result() for name, one in asking.items()}
    failed = {name: fate for name, fate in fates.items() if fate[0].status != 200}
    answered = {name: fate for name, fate in fates.items() if name not in failed}
    clear = sum("EngineStopped" in reply.text for reply, _ in failed.values())
    again, again_s = ask(next(iter(failed or fates)))
    for reply in (*(reply for reply, _ in answered.values()), again):
        pictures(reply)
    return {
        "begun": BEGUN, "one error": clear, "waiting": WAITING, "answered": len(answered),
        "last error s": max((at_s for _, at_s in failed.values()), default=killed_s) - killed_s,
        "last answer s": max((at_s for _, at_s in answered.values()), default=killed_s) - killed_s,
        "next request s": again_s - killed_s,
    }  # fmt: skip


def seconds(work: Work) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def names(count: int) -> list[str]:
    return [f"a{k}" for k in range(count)]


def _number(row: Row, name: str) -> float:
    value = row[name]
    assert isinstance(value, int | float)
    return float(value)


PARTS: dict[str, Callable[[Stage, argparse.Namespace], Part]] = {
    "memory": memory, "load": load, "together": together, "hop": hop, "kill": kill,
}  # fmt: skip


def main() -> None:
    parser = options(__doc__)
    add_base_options(parser)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--people", type=int, default=8, help="models of ours")
    parser.add_argument("--peers", type=int, default=3, help="models with a pipeline of their own, at least 2")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--loads", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5, help="of `together`")
    parser.add_argument("--hops", type=int, default=500)
    parser.add_argument("--kills", type=int, default=3)
    args: argparse.Namespace = parser.parse_args()
    tables: dict[str, list[Row]] = {}
    goals: list[Goal] = []
    with stage_of(args.base, people=max(args.people, BEGUN + WAITING), threads=args.threads) as stage:
        for name in args.parts.split(","):
            print(f"-- {name}", flush=True)
            found, reached = PARTS[name](stage, args)
            tables |= found
            goals += reached
    counts = ("parts", "people", "peers", "steps", "loads", "rounds", "hops", "kills")
    settings = base_settings(args) | {name: getattr(args, name) for name in counts}
    finish("triton", tables, goals=goals, settings=settings, save=args.save)


if __name__ == "__main__":
    main()
