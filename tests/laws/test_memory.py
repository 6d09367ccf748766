"""What a step does to save memory does not change what is learnt."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fixtures.tiny import random_person, random_row, relative
from likeness.diffusion import model
from likeness.diffusion.base import BaseModel
from likeness.diffusion.counting import Counting
from likeness.training.loop import StepMemory, TrainingLoop
from likeness.training.recipe import FineTuneRecipe, recipe_named

RECIPE = recipe_named("standard", rank=4, alpha=4, instance_rows=4, prior_rows=2)
RECIPES = {
    "standard": RECIPE,
    "images": replace(RECIPE, prior_from_base=False, prior_weight=0.3),
    "no-prior": replace(RECIPE, prior_rows=0),
}


def gradients(
    base: BaseModel, recipe: FineTuneRecipe, memory: StepMemory, names: tuple[str, ...] = ("anna", "ben")
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The losses and gradients of people with random adapters in one step."""
    loop = TrainingLoop(base, capacity=2, rank=recipe.rank, memory=memory)
    try:
        jobs = [loop.join(name, recipe, random_person(base, len(name)), seed=len(name)) for name in names]
        for job in jobs:
            loop.bank.write(job.slot, 0.3 * random_row(loop.bank, len(job.name)))
        losses, gradient = loop.losses_and_gradient(jobs)
        assert not loop.bank._tape
        return losses, {job.name: gradient[job.slot] for job in jobs}
    finally:
        loop.close()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_parts_of_a_batch_add_up_to_its_gradient(tiny_base: BaseModel, recipe: FineTuneRecipe) -> None:
    losses, whole = gradients(tiny_base, recipe, StepMemory())
    for rows in (1, 3, 4, 6, 7, 100):
        in_parts, parts = gradients(tiny_base, recipe, StepMemory(rows=rows))
        for name, gradient in whole.items():
            assert in_parts[name] == pytest.approx(losses[name], rel=1e-5), rows
            assert gradient.norm() > 0
            assert relative(parts[name], gradient) < 1e-5, rows


@pytest.mark.parametrize("rows", [None, 2])
def test_recomputed_activations_give_the_same_bits(tiny_base: BaseModel, rows: int | None) -> None:
    expected = gradients(tiny_base, RECIPE, StepMemory(rows))
    found = gradients(tiny_base, RECIPE, StepMemory(rows, recompute=True))
    assert found[0] == expected[0]
    assert all(torch.equal(found[1][name], gradient) for name, gradient in expected[1].items())


@pytest.mark.parametrize("memory", [StepMemory(2), StepMemory(recompute=True), StepMemory(6, recompute=True)], ids=str)
def test_together_is_alone_with_any_memory(tiny_base: BaseModel, memory: StepMemory) -> None:
    together = gradients(tiny_base, RECIPE, memory)[1]["anna"]
    alone = gradients(tiny_base, RECIPE, memory, ("anna",))[1]["anna"]
    assert relative(together, alone) < 1e-6


def test_each_saves_memory(tiny_base: BaseModel) -> None:
    peaks = []
    for memory in (StepMemory(), StepMemory(2), StepMemory(recompute=True), StepMemory(2, recompute=True)):
        loop = TrainingLoop(tiny_base, capacity=1, rank=RECIPE.rank, memory=memory)
        job = loop.join("anna", RECIPE, random_person(tiny_base, 4), seed=4)
        with Counting() as counted:
            loop.losses_and_gradient([job])
        loop.close()
        peaks.append(counted.peak_bytes)
    whole, parts, recomputed, both = peaks
    assert max(parts, recomputed) < 0.7 * whole
    assert both < 0.7 * min(parts, recomputed)


def test_the_autoencoder_works_in_slices(tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same images in any slices; what is in memory at once is one slice."""
    pixels = torch.rand(6, 3, 128, 128) * 2 - 1
    latents = tiny_base.encode_photo(pixels)
    images, peaks = tiny_base.decode(latents), []
    for slices in (6, 2):
        monkeypatch.setattr(model, "AUTOENCODER_PIXELS", slices * 128**2)
        assert torch.equal(tiny_base.encode_photo(pixels), latents)
        with Counting() as counted:
            assert torch.equal(tiny_base.decode(latents), images)
        peaks.append(counted.peak_bytes)
    assert peaks[1] < 0.6 * peaks[0]


def test_a_step_that_does_not_fit_is_done_in_parts(tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the middle of a training on; the random numbers are those of a training with enough memory."""
    recipe = replace(RECIPE, steps=3)

    def trained(room: int) -> tuple[Tensor, StepMemory]:
        loop, losses = TrainingLoop(tiny_base, capacity=2, rank=4), TrainingLoop.losses

        def limited(self: TrainingLoop, part: list) -> list[Tensor]:
            if sum(len(batch.t) for _, batch in part) > room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return losses(self, part)

        try:
            job = loop.join("anna", recipe, random_person(tiny_base, 1), seed=1)
            loop.join("ben", recipe, random_person(tiny_base, 2), seed=2)
            loop.step()
            with monkeypatch.context() as patch:
                patch.setattr(TrainingLoop, "losses", limited)
                loop.step()
            loop.step()
            return loop.bank.flat[job.slot].clone(), loop.memory
        finally:
            loop.close()

    whole, _ = trained(12)
    for fits, way in ((6, StepMemory(6)), (3, StepMemory(3)), (1, StepMemory(1, recompute=True))):
        parts, memory = trained(fits)
        assert memory == way
        assert relative(parts, whole) < 1e-4


def test_a_step_that_fits_in_no_way_has_no_effect(tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = TrainingLoop(tiny_base, capacity=1, rank=4)
    try:
        loop.join("anna", RECIPE, random_person(tiny_base, 1), seed=1)
        before = loop.state("anna")
        with monkeypatch.context() as patch:
            patch.setattr(TrainingLoop, "losses", lambda self, part: torch.empty(2**60))
            with pytest.raises(RuntimeError, match="memory"):
                loop.step()
        after = loop.state("anna")
        assert all(torch.equal(after[key], value) for key, value in before.items())
    finally:
        loop.close()
