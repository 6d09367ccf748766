"""How large one person's adapter is on disk, by recipe.

python -m bench.adapter_size [--base random] [--save]

On the base: a fresh adapter with all trained layers, written as by `train`; the format does not compress, so the values
do not matter. For Stable Diffusion 2.1-base: computed on the meta device from its published shapes, without its
weights.
"""

import argparse
import math
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from likeness.artifacts import adapter as folders
from likeness.diffusion.base import BaseModel
from likeness.diffusion.family import SD_21_BASE
from likeness.diffusion.lora import target_modules
from likeness.training.loop import TrainingLoop
from likeness.training.recipe import PRESETS, FineTuneRecipe, recipe_document
from likeness.types import Adapter, AdapterCard, Network
from recipes.measurement import Row

from .random_base import add_base_options, base_settings, open_base
from .report import Goal, finish, options, versions
from .train_together import random_person

MB = 1e6
ORIGIN_MB = 68.0  # size reported by the reference solution's notebook
ORIGIN_RANKS: Mapping[Network, int] = {"unet": 128, "text_encoder": 64}
ORIGIN_TARGETS: Mapping[Network, tuple[str, ...]] = {"unet": ("to_q", "to_v"), "text_encoder": ("q_proj", "v_proj")}


def fresh(base: BaseModel, recipe: FineTuneRecipe) -> Adapter:
    """A fresh adapter: the loop's result without a step."""
    loop = TrainingLoop(base, capacity=1, rank=recipe.rank)
    loop.join("measured", recipe, random_person(base, 0), seed=0)
    weights = loop.leave("measured")
    loop.close()
    card = AdapterCard(
        name="measured", class_noun="person", identifier="<<TOK>>", base_id=base.id, base_sha256=base.sha256,
        family=base.family.name, recipe=recipe_document(recipe), seed=0, photos=12, steps=recipe.steps, seconds=1.0,
        created=datetime.now(UTC).isoformat(timespec="seconds"), versions={"torch": versions()["torch"]},
        rank=recipe.rank, alpha=recipe.alpha,
    )  # fmt: skip
    return Adapter(card, weights)


def size_on_disk(base: BaseModel, recipe: FineTuneRecipe) -> Row:
    adapter = fresh(base, recipe)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "adapter"
        folders.write(adapter, folder)
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    pairs = [pair for network in adapter.weights.values() for pair in network.values()]
    return {
        "recipe": recipe.name,
        "rank": recipe.rank,
        "layers": len(pairs),
        "numbers": sum(pair.A.size + pair.B.size for pair in pairs),
        "folder MB": total / MB,
        "origin / folder": ORIGIN_MB * MB / total,
    }


def stable_diffusion_21() -> dict[Network, nn.Module]:
    """SD 2.1-base without weights: 865.9 M and 340.4 M parameters on the meta device."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408, hidden_size=1024, intermediate_size=4096, num_hidden_layers=23,
                num_attention_heads=16, hidden_act="gelu",
            )
        )  # fmt: skip
    return {"unet": unet, "text_encoder": text_encoder}


def lora_numbers(layers: Iterable[nn.Module], rank: int) -> int:
    """r (d_in + d_out) over the layers."""
    weights = [cast(Tensor, layer.weight) for layer in layers]
    return sum(rank * (math.prod(weight.shape[1:]) + weight.shape[0]) for weight in weights)


def count_row(title: str, counts: Mapping[Network, int]) -> Row:
    total = sum(counts.values())
    return {
        "recipe": title,
        "U-Net numbers": counts["unet"],
        "text encoder numbers": counts["text_encoder"],
        "float16 MB": 2 * total / MB,
        "float32 MB": 4 * total / MB,
        "origin / float16": ORIGIN_MB * MB / (2 * total),
    }


def count_on_stable_diffusion() -> list[Row]:
    """Sizes by the recipes' ranks and targets, as far as the family has these targets."""
    networks = stable_diffusion_21()
    rows = []
    for recipe in PRESETS.values():
        counts = {}
        for name, network in networks.items():
            known = target_modules(network, SD_21_BASE.trained[name])
            layers = [layer for module, layer in known.items() if recipe.trains(name, module)]
            counts[name] = lora_numbers(layers, recipe.rank)
        rows.append(count_row(f"{recipe.name}, rank {recipe.rank}", counts))
    origin = {
        name: lora_numbers(target_modules(net, ORIGIN_TARGETS[name]).values(), ORIGIN_RANKS[name])
        for name, net in networks.items()
    }
    return [*rows, count_row("the origin itself, rank 128 / 64", origin)]


def main() -> None:
    parser = options(__doc__)
    add_base_options(parser)
    args: argparse.Namespace = parser.parse_args()
    base = open_base(args)
    on_disk = [size_on_disk(base, recipe) for recipe in PRESETS.values()]
    counted = count_on_stable_diffusion()
    tables = {"on this base": on_disk, "counted for Stable Diffusion 2.1-base": counted}
    real = next(row for row in counted if str(row["recipe"]).startswith("standard"))
    standard = next(row for row in on_disk if row["recipe"] == "standard")
    goals = [
        Goal("standard: MB of the folder", float(str(standard["folder MB"])), 2.0, at_least=False),
        Goal("Stable Diffusion 2.1, standard: MB", float(str(real["float16 MB"])), 8.0, at_least=False),
    ]
    finish("adapter-size", tables, goals=goals, settings=base_settings(args), save=args.save)


if __name__ == "__main__":
    main()
