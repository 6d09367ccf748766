"""What only an accelerator can show, in at most eight minutes on one card of the H100 class.

python -m bench.gpu [--base NAME ...] [--seconds 480] [--save]

Bases have their published sizes and random weights, made on the device. Per base: memory and time of a training step of
1, 2 and 8 people, against the plan; a denoising step of 1 to 32 people, each with an adapter, together and one after
another; how long it takes to put an adapter from host memory into a slot; a denoising step with compiled blocks, and
how long they take to compile. What there was no device or no time for is 'not measured'. `--rehearse` runs every row on
any machine with the built-in base's configs, and traces the blocks without generating code.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import torch

from likeness.diffusion.base import BUILT_IN, BaseModel, fake_base, untrained_base
from likeness.diffusion.devices import counts_memory, is_out_of_memory, pick_device, pick_dtype, release_memory
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.sampling import AdapterSlot, advance, begin
from likeness.engine.slot_banks import SlotBanks
from likeness.engine.warm_up import warm_up
from likeness.training.data import stand_in
from likeness.training.loop import PRIOR_STEPS, StepMemory, TrainingLoop
from likeness.training.plan import GIB, plan_of
from likeness.training.recipe import recipe_named
from likeness.types import ImageRequest
from recipes.measurement import Row

from .report import Goal, finish, options
from .timing import ratio, take_turns
from .true_size import BASES, write_configs

NOT_MEASURED = "not measured"
DEFAULT = ("sd-2.1-base", "sdxl")
TRAINED, SERVED, COMPILED = (1, 2, 8), (1, 2, 4, 8, 16, 32), (1, 8, 32)
WAYS = (StepMemory(), StepMemory(recompute=True))
RANK, ROUNDS = 8, 3


class Clock:
    """The time that is left."""

    def __init__(self, seconds: float) -> None:
        self._end_s = time.monotonic() + seconds

    def try_row(self, work: Callable[[], Row], names: Sequence[str]) -> Row:
        """The row that `work` measures; 'not measured' in these columns if the time is over or memory is full."""
        if time.monotonic() < self._end_s:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                release_memory()
                return dict.fromkeys(names, "out of memory")
        return dict.fromkeys(names, NOT_MEASURED)


def training_row(base: BaseModel, people: int, memory: StepMemory) -> Row:
    """Memory and time of a step of the standard recipe."""
    recipe = recipe_named("standard", base.family.name, rank=RANK, alpha=RANK)
    loop = TrainingLoop(base, capacity=people, rank=RANK, memory=memory)
    try:
        for k in range(people):
            loop.join(str(k), recipe, stand_in(base), seed=k)
        counts = counts_memory(base.device)
        if counts:
            torch.accelerator.reset_peak_memory_stats()
        seconds = take_turns({"steps": lambda: [loop.step() for _ in range(PRIOR_STEPS)]}, ROUNDS)["steps"]
        if loop.memory != memory:  # the loop went on in a way that needs less
            return {"GiB": "out of memory", "s a step": NOT_MEASURED}
        peak = torch.accelerator.max_memory_allocated() / GIB if counts else NOT_MEASURED
        return {
            "GiB": peak,
            "s a step": median(seconds) / PRIOR_STEPS,
        }  # the first of them predicts class images for all
    finally:
        loop.close()


def training_table(base: BaseModel, fake: BaseModel, clock: Clock, most: int) -> list[Row]:
    recipe = recipe_named("standard", base.family.name, rank=RANK, alpha=RANK)
    rows: list[Row] = []
    for people in (count for count in TRAINED if count <= most):
        for memory in WAYS:
            found = clock.try_row(lambda p=people, m=memory: training_row(base, p, m), ("GiB", "s a step"))  # type: ignore[misc]
            planned = plan_of(fake, recipe, people=people, memory=memory, reserve_bytes=0).total_bytes / GIB
            rows.append({"people": people, "recomputed": memory.recompute, "planned GiB": planned, **found})
    return rows


def serving_row(base: BaseModel, people: int) -> Row:
    """A denoising step of one guided image of each person: together, and one person after another."""
    bank = LoraBank(base.networks, base.family.trained, slots=people + 1, rank=RANK)
    try:
        host = torch.randn(bank.columns) * 0.01
        for slot in range(1, people + 1):
            bank.write(slot, host)
        requests = [ImageRequest("photo of a person", seed=k, steps=100) for k in range(people)]
        images = begin(base, bank, requests, [[AdapterSlot(k + 1)] for k in range(people)])
        works: dict[str, Callable[[], object]] = {
            "together": lambda: advance(base, bank, images),
            "one after another": lambda: [advance(base, bank, [image]) for image in images],
            "write": lambda: bank.write(1, host),
        }
        rounds = take_turns(works, ROUNDS)
        return {
            "s a step": median(rounds["together"]),
            "times faster together": ratio(rounds, "one after another", "together"),
            "s to write an adapter": median(rounds["write"]),
        }
    finally:
        bank.close()


def serving_table(base: BaseModel, clock: Clock, most: int) -> list[Row]:
    names = ("s a step", "times faster together", "s to write an adapter")
    return [
        {"people": people, **clock.try_row(lambda p=people: serving_row(base, p), names)}  # type: ignore[misc]
        for people in SERVED
        if people <= most
    ]


def compiled_table(base: BaseModel, clock: Clock, most: int, backend: str) -> list[Row]:
    """A denoising step of one guided image of each person with compiled blocks, in turns with one without."""
    counts = [people for people in COMPILED if people <= most]
    with ExitStack() as at_end:
        plain, compiled = (SlotBanks(base, slots=max(counts) + 1, rank=RANK, large_rank=RANK) for _ in range(2))
        at_end.callback(plain.close)
        at_end.callback(compiled.close)
        for slot in range(1, max(counts) + 1):
            for banks in (plain, compiled):
                banks.usual.write(slot, torch.randn(banks.usual.columns) * 0.01)
        compiled.compile(backend)
        first = clock.try_row(lambda: {"s to compile": warm_up(base, compiled)}, ("s to compile",))
        names = ("s a step", "times faster compiled")
        return [
            {"people": people, **first, **clock.try_row(lambda p=people: compiled_row(base, plain, compiled, p), names)}  # type: ignore[misc]
            for people in counts
        ]


def compiled_row(base: BaseModel, plain: SlotBanks, compiled: SlotBanks, people: int) -> Row:
    requests = [ImageRequest("photo of a person", seed=k, steps=100) for k in range(people)]
    slots = [[AdapterSlot(k + 1)] for k in range(people)]
    images = {name: begin(base, banks, requests, slots) for name, banks in (("plain", plain), ("compiled", compiled))}
    works: dict[str, Callable[[], object]] = {
        "plain": lambda: advance(base, plain, images["plain"]),
        "compiled": lambda: advance(base, compiled, images["compiled"]),
    }
    rounds = take_turns(works, ROUNDS)
    return {"s a step": median(rounds["compiled"]), "times faster compiled": ratio(rounds, "plain", "compiled")}


def unmeasured(names: Sequence[str]) -> dict[str, list[Row]]:
    """The tables of a machine without an accelerator."""
    tables: dict[str, list[Row]] = {}
    for name in names:
        tables[f"{name}: training"] = [
            {"people": people, "recomputed": memory.recompute, "GiB": NOT_MEASURED, "s a step": NOT_MEASURED}
            for people in TRAINED for memory in WAYS
        ]  # fmt: skip
        tables[f"{name}: serving"] = [{"people": people, "s a step": NOT_MEASURED} for people in SERVED]
        tables[f"{name}: compiled"] = [{"people": people, "s a step": NOT_MEASURED} for people in COMPILED]
    return tables


def measured(name: str, source: str, clock: Clock, *, most: int, backend: str = "inductor") -> dict[str, list[Row]]:
    """The tables of one base.

    Args:
        source: folder with the configs, or 'built-in'.
        most: people at once.
        backend: of `torch.compile`.
    """
    device = pick_device()
    dtype = pick_dtype(device)
    base = untrained_base(source, device=device, dtype=dtype)
    fake = fake_base(source, device=device, dtype=dtype, trains=True)
    return {
        f"{name}: training": training_table(base, fake, clock, most),
        f"{name}: serving": serving_table(base, clock, most),
        f"{name}: compiled": compiled_table(base, clock, most, backend),
    }


def goals_of(tables: dict[str, list[Row]]) -> list[Goal]:
    """The claims of eight people together, and of the plan, where they were measured."""
    goals = []
    for title, rows in tables.items():
        for row in rows:
            faster, used, planned = (row.get(key) for key in ("times faster together", "GiB", "planned GiB"))
            if row["people"] == 8 and isinstance(faster, float):
                goals.append(Goal(f"{title}: 8 people, times faster together", faster, 4.0, at_least=True))
            if isinstance(used, float) and isinstance(planned, float):
                claim = f"{title}: {row['people']} people, recomputed {row['recomputed']}: error of the plan"
                goals.append(Goal(claim, abs(planned / used - 1), 0.1, at_least=False))
    return goals


def main(words: Sequence[str] | None = None) -> None:
    parser = options(__doc__)
    parser.add_argument("--base", choices=BASES, nargs="+", default=DEFAULT)
    parser.add_argument("--seconds", type=float, default=480.0, help="no row begins after this time")
    parser.add_argument("--most", type=int, default=max(SERVED), help="people at once")
    parser.add_argument("--rehearse", action="store_true", help="run every row with the built-in base's configs")
    args: argparse.Namespace = parser.parse_args(words)
    clock, tables = Clock(args.seconds), dict[str, list[Row]]()
    if args.rehearse:
        tables = measured("rehearsal", BUILT_IN, clock, most=args.most, backend="eager")
    elif pick_device().type == "cpu":
        tables = unmeasured(args.base)
    else:
        for name in args.base:
            with tempfile.TemporaryDirectory() as folder:
                tables |= measured(name, str(write_configs(name, Path(folder) / name)), clock, most=args.most)
            release_memory()
    settings = {"device": str(pick_device()), "rank": RANK, "rounds": ROUNDS, "seconds": args.seconds}
    finish("gpu", tables, goals=goals_of(tables), settings=settings, save=args.save)


if __name__ == "__main__":
    main()
