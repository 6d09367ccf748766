"""Photographs of several shapes in one training: a step has the gradient of its rows, whatever shares a pass."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fixtures.tiny import (
    QWEN_WIDTH,
    build_tiny_klein,
    build_tiny_sdxl,
    build_tiny_z_image,
    random_person,
    random_row,
    relative,
)
from likeness.diffusion import family
from likeness.diffusion.base import BaseModel, load_base
from likeness.training.data import TrainingSet
from likeness.training.loop import Batch, FineTune, StepMemory, TrainingLoop
from likeness.training.loss import min_snr_weight
from likeness.training.recipe import FineTuneRecipe, recipe_named

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers' own deprecations

CPU = torch.device("cpu")
SIDE_PX, RANK = 128, 3
KINDS: dict[str, Callable[[Path], Path]] = {
    "sdxl": lambda folder: build_tiny_sdxl(folder, cells=SIDE_PX // 8),
    "flux2-klein-base-4b": lambda folder: build_tiny_klein(folder, is_distilled=False),
    "z-image": lambda folder: build_tiny_z_image(folder, shift=6.0),
}


@pytest.fixture(scope="module", params=KINDS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseModel]:
    """A tiny base, which the tables of families have only here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(family._BY_SHAPE, (2048, SIDE_PX // 8), replace(family.SDXL, resolution_px=SIDE_PX))
        widths = {"Flux2Transformer2DModel": 3 * QWEN_WIDTH, "ZImageTransformer2DModel": QWEN_WIDTH}
        for (name, _, is_distilled), known in list(family._BY_CLASS.items()):
            patch.setitem(
                family._BY_CLASS, (name, widths[str(name)], is_distilled), replace(known, resolution_px=SIDE_PX)
            )
        folder = KINDS[request.param](tmp_path_factory.mktemp("buckets") / "tiny")
        yield load_base(str(folder), device=CPU, dtype=torch.float32)


def recipe_for(base: BaseModel) -> FineTuneRecipe:
    return recipe_named(
        "standard", base.family.name, rank=RANK, alpha=RANK, instance_rows=5, prior_rows=2, prior_weight=0.7
    )


def mixed_person(base: BaseModel, seed: int) -> TrainingSet:
    """Five photographs, of which every second is tall."""
    data, generator = random_person(base, seed), torch.Generator().manual_seed(seed)
    channels, height, width = base.latent_shape
    tall = height * 5 // 4, width * 3 // 4
    shapes = [tall if k % 2 else (height, width) for k in range(len(data.latents))]
    emphasis = [torch.rand(1, *shape, generator=generator) + 0.5 for shape in shapes]
    targets = [tuple(cells * base.pixels_per_cell for cells in shape) for shape in shapes]
    return replace(
        data,
        latents=tuple(torch.randn(channels, *shape, generator=generator) for shape in shapes),
        emphasis=tuple(one / one.mean() for one in emphasis),
        views=torch.tensor([(400.0, 300.0, 10.0, 20.0 + k, *target) for k, target in enumerate(targets)]),
    )


def joined(loop: TrainingLoop, name: str, data: TrainingSet) -> FineTune:
    """A person whose factors are away from zero."""
    job = loop.join(name, recipe_for(loop.base), data, seed=len(name))
    row = loop.bank.flat[job.slot]
    loop.bank.write(job.slot, row + 0.1 * random_row(loop.bank, 5) * (random_row(loop.bank, 5) != 0))
    return job


def by_hand(loop: TrainingLoop, job: FineTune, batches: list[Batch]) -> Tensor:
    """The loss of a step, each row by itself: no pass has two rows."""
    base, schedule = loop.base, loop.base.schedule
    total = torch.zeros(())
    for batch in batches:
        for row in range(len(batch.t)):
            x0, noise, t = batch.x0[row : row + 1], batch.noise[row : row + 1], batch.t[row : row + 1]
            with loop.bank.route(torch.tensor([job.slot]), torch.tensor([1.0])):
                prompts = base.encode_prompt(batch.ids[batch.caption[row : row + 1]])
                prompts = replace(prompts, views=batch.views[row : row + 1])
                output = base.denoise(schedule.add_noise(x0, noise, t), t, prompts)
            held = bool(batch.is_prior[row])
            target = batch.bare[row : row + 1] if held else schedule.target(x0, noise, t)
            weight = min_snr_weight(schedule.snr(t), schedule.prediction_type, job.recipe.min_snr_gamma)
            error = ((output - target).square() * batch.emphasis[row : row + 1]).mean()
            share = job.recipe.prior_weight / job.prior_rows if held else 1 / job.recipe.instance_rows
            total = total + share * weight.float().sum() * error
    return total


def test_a_step_has_the_gradient_of_its_rows_alone(base: BaseModel) -> None:
    loop = TrainingLoop(base, capacity=1, rank=RANK)
    try:
        job = joined(loop, "anna", mixed_person(base, 1))
        start = job.generator.get_state()
        batches = loop.draw(job)
        assert len(batches) == 2 and {batch.x0.shape[1:] for batch in batches} == {x.shape for x in job.data.latents}
        assert sum(len(batch.t) for batch in batches) == 7
        loop.bank.forget_forwards()
        expected = by_hand(loop, job, batches)
        gradient = loop.bank.gradient(expected)[job.slot]
        for memory in (StepMemory(), StepMemory(rows=2), StepMemory(rows=1, recompute=True)):
            job.generator.set_state(start)
            loop.memory = memory
            losses, found = loop.losses_and_gradient([job])
            assert losses["anna"] == pytest.approx(expected.item(), rel=1e-4)
            assert relative(found[job.slot], gradient) < 1e-4
    finally:
        loop.close()


def test_people_with_other_shapes_train_together_as_alone(base: BaseModel) -> None:
    """Anna and Cleo have two shapes, Ben squares only."""
    data = {"anna": mixed_person(base, 1), "ben": random_person(base, 2), "cleo": mixed_person(base, 3)}
    alone: dict[str, tuple[float, Tensor]] = {}
    for names in (*((name,) for name in data), tuple(data)):
        loop = TrainingLoop(base, capacity=3, rank=RANK)
        try:
            jobs = [joined(loop, name, data[name]) for name in names]
            losses, gradient = loop.losses_and_gradient(jobs)
            for job in jobs:
                if len(names) == 1:
                    alone[job.name] = losses[job.name], gradient[job.slot].clone()
                else:
                    assert losses[job.name] == pytest.approx(alone[job.name][0], rel=1e-4)
                    assert relative(gradient[job.slot], alone[job.name][1]) < 1e-4
        finally:
            loop.close()


def test_squares_train_the_same_to_the_last_bit_as_one_tensor_or_as_many(base: BaseModel) -> None:
    found = []
    whole = random_person(base, 1)
    for data in (whole, replace(whole, latents=tuple(whole.latents), emphasis=tuple(whole.emphasis))):
        loop = TrainingLoop(base, capacity=1, rank=RANK)
        try:
            job = joined(loop, "anna", data)
            found.append(loop.losses_and_gradient([job])[1][job.slot].clone())
        finally:
            loop.close()
    assert torch.equal(*found)


def test_sdxl_is_told_size_crop_and_target_of_each_row(base: BaseModel) -> None:
    """Of class images: whole ones, of their own size."""
    if not base.reads_views:
        pytest.skip("this family is told nothing of its images")
    loop, told = TrainingLoop(base, capacity=1, rank=RANK), list[Tensor]()
    hook = base.parts["unet"].add_time_proj.register_forward_hook(lambda _, given, __: told.append(given[0]))
    try:
        job = joined(loop, "anna", mixed_person(base, 1))
        batches = loop.draw(job)
        told.clear()  # of the bare base's predictions
        for batch in batches:
            loop.losses([(job, batch)])
        rows = torch.cat([one.view(-1, 6) for one in told])
    finally:
        hook.remove()
        loop.close()
    is_prior = torch.cat([batch.is_prior for batch in batches])
    assert job.data.views is not None
    known = {tuple(view) for view in job.data.views.tolist()}
    assert {tuple(view) for view in rows[~is_prior].tolist()} <= known
    assert rows[is_prior].tolist() == [[SIDE_PX, SIDE_PX, 0, 0, SIDE_PX, SIDE_PX]] * 2
    targets = [one.x0.shape[2] * base.pixels_per_cell for one in batches for _ in one.t]
    assert rows[:, 4].tolist() == targets
