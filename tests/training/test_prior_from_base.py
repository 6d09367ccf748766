"""Prior preservation against the base's own prediction: nothing to learn until something is forgotten."""

from dataclasses import replace

import pytest
import torch

from fixtures.tiny import random_person, relative
from likeness.diffusion.base import BaseModel
from likeness.training.loop import Progress, TrainingLoop
from likeness.training.recipe import FineTuneRecipe, recipe_named

RECIPE = recipe_named("fast", steps=8, rank=2, instance_rows=2, prior_rows=2, warmup_steps=1, clip_norm=1000)


def steps(base: BaseModel, recipe: FineTuneRecipe, count: int) -> tuple[list[Progress], torch.Tensor]:
    progress, factors, _ = trained(base, recipe, count)
    return progress, factors


def trained(base: BaseModel, recipe: FineTuneRecipe, count: int) -> tuple[list[Progress], torch.Tensor, float]:
    """Progress, factors, and how far the adapter has moved the base's prediction for the class images."""
    loop, data = TrainingLoop(base, capacity=1, rank=2), random_person(base, 1)
    try:
        job = loop.join("anna", recipe, data, seed=3)
        progress = [loop.step()[0] for _ in range(count)]
        x, ids = data.prior_latents, data.prior_ids
        t, said = torch.full((len(x),), 500), []
        with torch.no_grad():
            for slot in (0, job.slot):
                with loop.bank.route(torch.full((len(x),), slot)):
                    said.append(base.denoise(x, t, base.encode_prompt(ids)))
        drift = (said[1] - said[0]).square().mean().item()
        return progress, loop.state("anna")["factors"], drift
    finally:
        loop.close()


@pytest.mark.parametrize("rows", [1, 2])
def test_the_first_step_is_that_of_the_photos_alone(tiny_base: BaseModel, rows: int) -> None:
    recipe = replace(RECIPE, prior_rows=rows)
    with_prior, _ = steps(tiny_base, recipe, 1)
    without, _ = steps(tiny_base, replace(recipe, prior_weight=0.0), 1)
    assert with_prior[0].loss == pytest.approx(without[0].loss, rel=1e-4)
    assert with_prior[0].gradient_norm == pytest.approx(without[0].gradient_norm, rel=1e-3)
    against_images, _ = steps(tiny_base, replace(recipe, prior_from_base=False), 1)
    assert against_images[0].loss > 1.2 * without[0].loss  # the images' own noise


def test_it_holds_the_class_where_it_was(tiny_base: BaseModel) -> None:
    """What the prior's rows cost grows as the adapter moves away, and its gradient pulls back."""
    held, near = steps(tiny_base, replace(RECIPE, prior_weight=10.0), 8)
    free, far = steps(tiny_base, replace(RECIPE, prior_weight=0.0), 8)
    assert held[-1].loss > free[-1].loss
    assert not torch.allclose(near, far, atol=1e-4)
    *_, held_drift = trained(tiny_base, replace(RECIPE, prior_weight=10.0), 8)
    *_, free_drift = trained(tiny_base, replace(RECIPE, prior_weight=0.0), 8)
    assert 0 < held_drift < 0.9 * free_drift


def test_the_targets_of_a_block_of_steps_are_the_bare_bases(tiny_base: BaseModel) -> None:
    """Drawn again, they are the same: a resumed training goes on with them."""
    loop, data = TrainingLoop(tiny_base, capacity=1, rank=2), random_person(tiny_base, 1)
    try:
        job = loop.join("anna", RECIPE, data, seed=3)
        (batch,) = loop.draw(job)
        held = batch.is_prior
        assert job.prompts is not None and held.sum() == RECIPE.prior_rows
        x_t = tiny_base.schedule.add_noise(batch.x0, batch.noise, batch.t)
        with torch.no_grad():
            expected = tiny_base.denoise(x_t, batch.t, job.prompts[batch.said])
        assert relative(batch.bare[held], expected[held]) < 1e-5
        assert not batch.bare[~held].any()
        job.priors = None
        (again,) = loop.draw(job)
        assert torch.equal(again.x0[held], batch.x0[held]) and torch.equal(again.noise[held], batch.noise[held])
        job.losses = [0.0]
        assert not torch.equal(loop.draw(job)[0].noise[held], batch.noise[held])  # the next step has others
    finally:
        loop.close()
