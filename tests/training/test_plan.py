"""What is planned on fake tensors is what a real step takes."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from fixtures.tiny import SHALLOW, build_tiny_folder, build_tiny_sdxl
from likeness.diffusion import family
from likeness.diffusion.base import BaseModel, fake_base, load_base
from likeness.diffusion.counting import Counting
from likeness.errors import OutOfMemory
from likeness.training import plan as plan_module
from likeness.training.data import stand_in
from likeness.training.loop import PRIOR_STEPS, StepMemory, TrainingLoop
from likeness.training.plan import GIB, fitting_plan, people_that_fit, plan_here, plan_of, ways
from likeness.training.recipe import recipe_named

CPU = torch.device("cpu")
RECIPE = recipe_named("standard", rank=4, alpha=4, instance_rows=3, prior_rows=1)


@pytest.fixture
def pair(request: pytest.FixtureRequest, tiny_base_folder: Path, tmp_path: Path) -> Iterator[tuple[BaseModel, ...]]:
    """A base, and the same as fake tensors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(family._BY_SHAPE, (2048, 16), replace(family.SDXL, resolution_px=128))
        folder = tiny_base_folder if request.param == "tiny" else build_tiny_sdxl(tmp_path / "base", cells=16)
        yield tuple(make(str(folder), device=CPU, dtype=torch.float32) for make in (load_base, fake_base))


def counted_step(base: BaseModel, people: int, memory: StepMemory) -> Counting:
    data = stand_in(base)
    with Counting() as counted:
        loop = TrainingLoop(base, capacity=people, rank=RECIPE.rank, memory=memory)
        for k in range(people):
            loop.join(str(k), RECIPE, data, seed=k)
        counted.operations = 0  # those of a step are compared; the first predicts the class images of all
        for _ in range(PRIOR_STEPS):
            assert all(progress.error is None for progress in loop.step())
        counted.operations //= PRIOR_STEPS
    loop.close()
    return counted


@pytest.mark.parametrize(
    ("pair", "people", "memory"),
    [("tiny", 1, StepMemory()), ("tiny", 2, StepMemory(3, recompute=True)), ("sdxl", 1, StepMemory())],
    indirect=["pair"], ids=str,
)  # fmt: skip
def test_a_plan_is_within_a_tenth_of_what_is_counted(
    pair: tuple[BaseModel, BaseModel], people: int, memory: StepMemory
) -> None:
    base, fake = pair
    plan = plan_of(fake, RECIPE, people=people, memory=memory, reserve_bytes=0)
    counted = counted_step(base, people, memory)
    weights = sum(tensor.nbytes for one in base.parts.values() for tensor in (*one.parameters(), *one.buffers()))
    assert plan.weights_bytes == weights
    assert plan.total_bytes - weights == pytest.approx(counted.peak_bytes, rel=0.1)
    assert plan.step_operations == pytest.approx(counted.operations, rel=0.1)


def test_the_plan_is_of_the_recipe_s_resolution(tmp_path: Path) -> None:
    """Photographs of twice the side, class images as before, each in a pass of its own."""
    fake = fake_base(str(build_tiny_folder(tmp_path / "base", **SHALLOW)), device=CPU, dtype=torch.float32)
    side_px = 2 * fake.family.resolution_px
    own, large = (
        plan_of(fake, replace(RECIPE, resolution_px=side), people=1, memory=StepMemory(), reserve_bytes=0)
        for side in (None, side_px)
    )
    assert own.rows == large.rows == RECIPE.instance_rows + RECIPE.prior_rows
    assert 2 < large.activation_bytes / own.activation_bytes < 8  # three rows of four times the area, not four of one
    assert large.step_operations > 2 * own.step_operations


def test_the_fewest_operations_that_fit_are_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fake_base(str(build_tiny_folder(tmp_path / "base", **SHALLOW)), device=CPU, dtype=torch.float32)
    monkeypatch.setattr(plan_module, "plan_of", cache(plan_of))  # each is counted once
    plans = [plan_module.plan_of(fake, RECIPE, people=1, memory=memory, reserve_bytes=0) for memory in ways(4)]
    assert [(plan.rows_at_once, plan.memory.recompute) for plan in plans] == [
        (4, False), (2, False), (4, True), (2, True), (1, True),
    ]  # fmt: skip
    assert plans[2].step_operations > 1.2 * plans[0].step_operations
    for k, plan in enumerate(plans):
        best = next(one for one in plans if one.total_bytes <= plan.total_bytes)
        chosen = fitting_plan(fake, RECIPE, people=1, budget_bytes=plan.total_bytes, reserve_bytes=0)
        assert chosen == best, k
    least = min(plan.total_bytes for plan in plans)
    with pytest.raises(OutOfMemory, match=r"expected 0\.\d GiB of memory to train 1 at once"):
        fitting_plan(fake, RECIPE, people=1, budget_bytes=least // 2, reserve_bytes=0)
    two = plan_module.plan_of(fake, RECIPE, people=2, memory=StepMemory(), reserve_bytes=0).total_bytes
    assert people_that_fit(fake, RECIPE, plans[0], budget_bytes=two) == 2
    assert people_that_fit(fake, RECIPE, plans[0], budget_bytes=two - 1) == 1


def test_a_plan_needs_no_weights(tmp_path: Path) -> None:
    folder = build_tiny_folder(tmp_path / "base", **SHALLOW)
    for weights in folder.glob("*/*.safetensors"):
        weights.unlink()
    fake = fake_base(str(folder), device=torch.device("cuda"), dtype=torch.bfloat16)
    assert plan_of(fake, RECIPE, people=1, memory=StepMemory()).to_json()["rows_at_once"] == 4


def test_the_plan_of_this_machine_is_for_its_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up GPU: it decides how many people train at once, and in which way."""
    folder = str(build_tiny_folder(tmp_path / "base"))
    assert plan_here(folder, None, RECIPE, people=3) == (3, StepMemory())  # a CPU
    free = 16 * GIB
    for name, found in {
        "pick_device": lambda: torch.device("cuda"), "pick_dtype": lambda device: torch.bfloat16,
        "counts_memory": lambda device: True, "available_bytes": lambda device: free,
    }.items():  # fmt: skip
        monkeypatch.setattr(plan_module, name, found)
    assert plan_here(folder, None, RECIPE) == (16, StepMemory())
    fake = fake_base(folder, device=torch.device("cuda"), dtype=torch.bfloat16, trains=True)
    one = plan_of(fake, RECIPE, people=1, memory=StepMemory(rows=2))
    free = int(one.total_bytes / plan_module.SHARE) + 1
    assert plan_here(folder, None, RECIPE) == (1, StepMemory(rows=2))
