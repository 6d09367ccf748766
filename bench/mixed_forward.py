"""Eight people, eight different adapters, one forward of the U-Net: against the ways that PEFT and diffusers offer.

python -m bench.mixed_forward [--base random] [--rounds 7] [--save]

bank            one batch of 8 rows, each with an adapter of its own, through LoraBank
two adapters    the same with two adapters for each row
bare            one batch of 8 rows without any adapter
bare one by one 8 batches of 1 without any adapter
set_adapter     8 batches of 1, PEFT's adapter switched before each
fuse            8 batches of 1, PEFT's adapter merged before each and unmerged after, as diffusers' fuse_lora does
adapter_names   one batch of 8 rows through PEFT's own mixed batch

Each variant but the second has the same weights; the outputs of bank and set_adapter are compared too.
"""

import argparse
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from likeness.diffusion.base import BaseModel
from likeness.diffusion.family import ATTENTION, FEED_FORWARD
from likeness.diffusion.lora import LoraBank
from likeness.training.recipe import recipe_named
from recipes.measurement import Row

from .random_base import add_base_options, base_settings, open_base
from .report import Goal, finish, options
from .timing import Rounds, ratio, take_turns

PEOPLE = 8
NAMES = tuple(f"person-{k}" for k in range(PEOPLE))
# goals: baseline -> speed-up; None: reported only
RIVALS: Mapping[str, float | None] = {
    "set_adapter": 4.0, "fuse": 6.0, "adapter_names": None, "bare one by one": None,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    title: str
    unet: UNet2DConditionModel
    tokens: int
    targets: tuple[str, ...]
    rank: int


def attention_unet() -> UNet2DConditionModel:
    """34.0 M parameters, 128 attention layers: Stable Diffusion's layout at a fifth of its width."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16, block_out_channels=(64, 128, 256, 256), cross_attention_dim=64, attention_head_dim=8
    ).requires_grad_(False)


def cases(base: BaseModel) -> list[Case]:
    tokens = base.max_tokens
    linear, standard = ATTENTION + FEED_FORWARD, recipe_named("standard")
    large = attention_unet().to(base.device)
    return [
        Case("base, attention and feed-forward, rank 4", base.parts["unet"], tokens, linear, 4),
        Case("base, attention and feed-forward, rank 8", base.parts["unet"], tokens, linear, 8),
        Case(
            f"base, recipe standard, rank {standard.rank}",
            base.parts["unet"],
            tokens,
            standard.unet_targets,
            standard.rank,
        ),
        Case("34 M parameters, attention, rank 4", large, 77, ATTENTION, 4),
    ]


def random_bank(case: Case, unet: UNet2DConditionModel) -> LoraBank:
    """A bank on `unet` with different, non-zero adapters."""
    bank = LoraBank({"unet": unet}, {"unet": case.targets}, slots=PEOPLE + 1, rank=case.rank)
    generator = torch.Generator().manual_seed(0)
    for slot in range(1, PEOPLE + 1):
        bank.write(slot, 0.03 * torch.randn(bank.columns, generator=generator))
    return bank


def peft_twin(case: Case, bank: LoraBank) -> PeftModel:
    """A copy of the network with the same eight adapters in PEFT."""
    modules = list(bank.module_names["unet"])
    config = LoraConfig(r=case.rank, lora_alpha=case.rank, target_modules=modules, inference_mode=True)
    twin = get_peft_model(copy.deepcopy(case.unet), config, adapter_name=NAMES[0])
    for name in NAMES[1:]:
        twin.add_adapter(name, config)
    layers: dict[str, Any] = dict(cast(nn.Module, twin.base_model.model).named_modules())
    for slot, name in enumerate(NAMES, start=1):
        for module, pair in bank.pairs_of(bank.flat[slot], case.rank)["unet"].items():
            layers[module].lora_A[name].weight.data.copy_(torch.from_numpy(pair.A))
            layers[module].lora_B[name].weight.data.copy_(torch.from_numpy(pair.B))
    return twin.eval()


def works_of(case: Case, bank: LoraBank, banked: UNet2DConditionModel) -> dict[str, Callable[[], Tensor]]:
    """The variants; each computes the outputs (8, C, h, w) of the same rows."""
    g = torch.Generator().manual_seed(1)
    config, device = case.unet.config, case.unet.device
    cells, channels = config["sample_size"], config["in_channels"]
    x = torch.randn(PEOPLE, channels, cells, cells, generator=g).to(device)
    t = torch.randint(1000, (PEOPLE,), generator=g).to(device)
    states = torch.randn(PEOPLE, case.tokens, config["cross_attention_dim"], generator=g).to(device)
    slots = torch.arange(1, PEOPLE + 1)
    twin = peft_twin(case, bank)
    plain = cast(nn.Module, twin.base_model.model)  # without PeftModel's forward, as in diffusers
    rows = [(name, (x[i : i + 1], t[i : i + 1], states[i : i + 1])) for i, name in enumerate(NAMES)]

    def with_bank() -> Tensor:
        with bank.route(slots):
            return banked(x, t, states, return_dict=False)[0]

    def with_two() -> Tensor:
        with bank.route(torch.stack([slots, slots.roll(1)], dim=1)):
            return banked(x, t, states, return_dict=False)[0]

    def switching() -> Tensor:
        outputs = []
        for name, row in rows:
            twin.set_adapter(name)
            outputs.append(plain(*row, return_dict=False)[0])
        return torch.cat(outputs)

    def fusing() -> Tensor:
        outputs = []
        for name, row in rows:
            twin.merge_adapter([name])
            outputs.append(plain(*row, return_dict=False)[0])
            twin.unmerge_adapter()
        return torch.cat(outputs)

    return {
        "bank": with_bank,
        "two adapters": with_two,
        "bare": lambda: case.unet(x, t, states, return_dict=False)[0],
        "bare one by one": lambda: torch.cat([case.unet(*row, return_dict=False)[0] for _, row in rows]),
        "set_adapter": switching,
        "fuse": fusing,
        "adapter_names": lambda: twin(x, t, states, return_dict=False, adapter_names=list(NAMES))[0],
    }


@torch.no_grad()
def measure(case: Case, rounds: int) -> tuple[Rounds, float]:
    """Seconds of all variants, and the largest difference of the bank's outputs from PEFT's set_adapter."""
    banked = copy.deepcopy(case.unet)
    bank = random_bank(case, banked)
    works = works_of(case, bank, banked)
    difference = (works["bank"]() - works["set_adapter"]()).abs().max().item()
    return take_turns(works, rounds), difference


def table_of(rounds: Rounds) -> list[Row]:
    return [
        {
            "8 rows through": name,
            "median ms": 1000 * median(seconds),
            "least ms": 1000 * min(seconds),
            "times the bank's": ratio(rounds, name, "bank"),
        }
        for name, seconds in rounds.items()
    ]


def goals_of(case: Case, rounds: Rounds, difference: float) -> list[Goal]:
    speed = [
        Goal(f"{case.title}: times faster than {rival}", ratio(rounds, rival, "bank"), target, at_least=True)
        for rival, target in RIVALS.items()
        if target is not None
    ]
    over = 100 * (ratio(rounds, "bank", "bare") - 1)
    more = 100 * (ratio(rounds, "two adapters", "bank") - 1)
    return [
        *speed,
        Goal(f"{case.title}: % over the batch without adapters", over, 10.0, at_least=False),
        Goal(f"{case.title}: % of two adapters a row over one", more, 10.0, at_least=False),
        Goal(f"{case.title}: largest difference from PEFT's output", difference, 1e-4, at_least=False),
    ]


def main() -> None:
    parser = options(__doc__)
    add_base_options(parser)
    parser.add_argument("--rounds", type=int, default=7)
    args: argparse.Namespace = parser.parse_args()
    tables, goals = {}, []
    for case in cases(open_base(args)):
        rounds, difference = measure(case, args.rounds)
        tables[case.title] = table_of(rounds)
        goals += goals_of(case, rounds, difference)
    settings = base_settings(args) | {"rounds": args.rounds}
    finish("mixed-forward", tables, goals=goals, settings=settings, save=args.save)


if __name__ == "__main__":
    main()
