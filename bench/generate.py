"""Seconds for 1, 2, 4 and 8 portraits in one batch: guided, each with an adapter of its own.

python -m bench.generate [--base random] [--rounds 3] [--steps 20] [--save]

From prompts and adapters in the bank to decoded pixels; loading the base is not part of it.
"""

import argparse
from statistics import median

import torch

from likeness.diffusion.base import BaseModel
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.sampling import AdapterSlot, denoise_all
from likeness.training.recipe import recipe_named
from likeness.types import ImageRequest

from .random_base import add_base_options, base_settings, open_base
from .report import Goal, finish, options
from .timing import Rounds, Work, take_turns

SIZES = (1, 2, 4, 8)
SAMPLER = "dpmpp_2m"
PROMPT = "oil painting of <<TOK>> person"


def bank_of(base: BaseModel) -> LoraBank:
    """Eight random adapters of the standard recipe's rank on all that the family adapts."""
    bank = LoraBank(base.networks, base.family.targets, slots=max(SIZES) + 1, rank=recipe_named("standard").rank)
    generator = torch.Generator().manual_seed(0)
    for slot in range(1, bank.slots):
        bank.write(slot, 0.01 * torch.randn(bank.columns, generator=generator))
    return bank


def batch(base: BaseModel, bank: LoraBank, size: int, *, steps: int) -> Work:
    """Makes `size` portraits, pixels (size, 3, H, W)."""
    requests = ImageRequest(PROMPT, steps=steps, sampler=SAMPLER).numbered(size)
    slots = [[AdapterSlot(k + 1)] for k in range(size)]
    return lambda: base.decode(denoise_all(base, bank, requests, slots))


def name_of(size: int) -> str:
    return f"{size} in one batch"


def measure(base: BaseModel, *, steps: int, rounds: int) -> Rounds:
    bank = bank_of(base)
    return take_turns({name_of(size): batch(base, bank, size, steps=steps) for size in SIZES}, rounds)


def main() -> None:
    parser = options(__doc__)
    add_base_options(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="instead of the base's own")
    args: argparse.Namespace = parser.parse_args()
    base = open_base(args)
    steps = args.steps or base.family.steps
    seconds = {name: median(each) for name, each in measure(base, steps=steps, rounds=args.rounds).items()}
    rows = [
        {
            "portraits": name_of(size),
            "median s": seconds[name_of(size)],
            "images a second": size / seconds[name_of(size)],
        }
        for size in SIZES
    ]
    goal = Goal(f"seconds for 8 portraits, {steps} steps, guided", seconds[name_of(8)], 4.0, at_least=False)
    settings = base_settings(args) | {"rounds": args.rounds, "steps": steps, "sampler": SAMPLER}
    finish("generate", {"portraits": rows}, goals=[goal], settings=settings, save=args.save)


if __name__ == "__main__":
    main()
