"""Memory and operations of a training at the published sizes: the plan, in each way that a step can take.

python -m bench.plans [--base NAME ...] [--save]

One person, recipe `standard`, bf16, with the reserve for context and workspaces. The counts do not depend on the
machine; `bench.gpu` compares them with a device.
"""

import tempfile
from pathlib import Path

import torch

from likeness.diffusion.base import BaseModel, fake_base
from likeness.training.loop import StepMemory
from likeness.training.plan import GIB, Plan, plan_of
from likeness.training.recipe import recipe_named
from recipes.measurement import Row

from .report import Goal, finish, options
from .true_size import BASES, write_configs

CARD_GIB = {"sd-1.5": 12, "sd-2.1-base": 12, "sd-2.1": 12, "sdxl": 16, "flux2-klein-base-4b": 16, "z-image": 24}
MOST_PFLOP = {"sd-2.1-base": 3.5}  # all steps of a person, where class images are shared
WAYS = {
    "whole": StepMemory(),
    "two rows": StepMemory(rows=2),
    "recomputed": StepMemory(recompute=True),
    "recomputed, two rows": StepMemory(rows=2, recompute=True),
}


def base_named(name: str) -> BaseModel:
    """A base of fake tensors, as it is loaded for a training."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(write_configs(name, Path(folder) / name))
        return fake_base(path, device=torch.device("cuda"), dtype=torch.bfloat16, trains=True)


def row_of(way: str, plan: Plan) -> Row:
    return {
        "way": way,
        "GiB": plan.total_bytes / GIB,
        "weights": plan.weights_bytes / GIB,
        "in host memory": plan.host_bytes / GIB,
        "activations": plan.activation_bytes / GIB,
        "PFLOP a person": plan.operations_per_person / 1e15,
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--base", choices=BASES, nargs="+", default=list(BASES))
    args = parser.parse_args()
    tables, goals = dict[str, list[Row]](), []
    for name in args.base:
        base = base_named(name)
        recipe = recipe_named("standard", base.family.name)
        plans = {way: plan_of(base, recipe, people=1, memory=memory) for way, memory in WAYS.items()}
        title = f"{name}, {base.family.resolution_px} px"
        tables[title] = [row_of(way, plan) for way, plan in plans.items()]
        least = min(plan.total_bytes for plan in plans.values()) / GIB
        goals.append(Goal(f"{title}: GiB in the way that needs least", least, CARD_GIB[name], at_least=False))
        if name in MOST_PFLOP:
            petaflop = plans["whole"].operations_per_person / 1e15
            goals.append(Goal(f"{title}: PFLOP a person", petaflop, MOST_PFLOP[name], at_least=False))
    finish("plans", tables, goals=goals, settings={"recipe": "standard", "people": 1}, save=args.save)


if __name__ == "__main__":
    main()
