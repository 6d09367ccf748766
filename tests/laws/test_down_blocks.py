"""A recipe that leaves a U-Net's down blocks as they are: the gradient of the other layers, for fewer operations."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fixtures.tiny import random_person, random_row, relative
from likeness.diffusion.base import BaseModel
from likeness.diffusion.counting import Counting
from likeness.training.loop import StepMemory, TrainingLoop
from likeness.training.recipe import FineTuneRecipe, recipe_named

RECIPE = recipe_named("standard", rank=4, alpha=4, instance_rows=4, prior_rows=1)
WHOLE = replace(RECIPE, down_blocks=True)


def one_step(base: BaseModel, recipe: FineTuneRecipe, memory: StepMemory) -> tuple[dict[str, Tensor], int]:
    """The gradient, by parts of the adapter, and the operations of a step; no adapter is in the down blocks."""
    loop = TrainingLoop(base, capacity=1, rank=recipe.rank, memory=memory)
    try:
        job = loop.join("anna", recipe, random_person(base, 1), seed=1)
        row = 0.3 * random_row(loop.bank, 2)
        parts: dict[str, list[Tensor]] = {"down": [], "other": [], "text": []}
        for span in loop.bank.spans:
            part = "text" if span.network != "unet" else "down" if span.module.startswith("down_blocks.") else "other"
            columns = torch.cat([torch.arange(factor.start, factor.stop) for factor in (span.a, span.b)])
            parts[part].append(columns)
            if part == "down":
                row[columns] = 0
        loop.bank.write(job.slot, row)
        loop.draw(job)  # the bare prediction of the class images, equal in both
        job.generator.manual_seed(1)  # the recipes' fresh adapters have taken different numbers of draws
        with Counting() as counted:
            _, gradient = loop.losses_and_gradient([job])
        return {part: gradient[job.slot][torch.cat(columns)] for part, columns in parts.items()}, counted.operations
    finally:
        loop.close()


@pytest.mark.parametrize("memory", [StepMemory(), StepMemory(2), StepMemory(recompute=True)], ids=str)
def test_the_other_layers_have_the_gradient_of_a_whole_backward_pass(tiny_base: BaseModel, memory: StepMemory) -> None:
    found, operations = one_step(tiny_base, RECIPE, memory)
    whole, all_operations = one_step(tiny_base, WHOLE, memory)
    assert relative(found["other"], whole["other"]) < 1e-5 and found["other"].norm() > 0
    assert not found["down"].any()
    assert found["text"].norm() > 0  # by the other blocks' cross-attention
    assert relative(found["text"], whole["text"]) > 1e-3
    assert operations < 0.98 * all_operations  # a tenth and more where the text encoder is not most of the base


def test_an_adapter_has_every_other_layer(tiny_base: BaseModel) -> None:
    """Of its targets, after a step."""
    layers = {}
    for recipe in (RECIPE, WHOLE):
        loop = TrainingLoop(tiny_base, capacity=1, rank=recipe.rank)
        loop.join("anna", recipe, random_person(tiny_base, 1), seed=1)
        loop.step()
        weights = loop.leave("anna")
        loop.close()
        layers[recipe.down_blocks] = {name for pairs in weights.values() for name in pairs}
    left_out = layers[True] - layers[False]
    assert left_out and all(name.startswith("down_blocks.") for name in left_out)
    assert not any(name.startswith("down_blocks.") for name in layers[False])
