"""Distillation of the speed adapter: its targets, and a short training on the tiny base."""

import argparse
import itertools
import json
import math
from pathlib import Path

import pytest
import torch

pytest.importorskip("numba", reason="the renderer compiles its kernels with numba")

from fixtures.tiny import random_row
from likeness.artifacts import bundle
from likeness.diffusion.base import BaseModel
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.samplers import SAMPLERS, ddim_step, run
from likeness.diffusion.schedule import DiffusionSchedule
from recipes.base_model import distillation, train_speed
from recipes.base_model.train_speed import SLOT, Distillation

TEXTS = ["photo of a man", "photo of a woman"]


def speed_bank(base: BaseModel) -> LoraBank:
    return LoraBank(base.networks, {"unet": base.family.trained["unet"]}, slots=2, rank=4)


def work(
    base: BaseModel, bank: LoraBank, *, guidance: float, substeps: int, people: LoraBank | None = None
) -> Distillation:
    return Distillation(base, bank, people, guidance, steps=3, substeps=substeps, own_share=0.5)


@pytest.mark.parametrize(("now", "after"), [(0.0001, 0.2), (0.2, 0.7), (0.7, 0.999)])
def test_one_step_with_the_target_reaches_the_place(now: float, after: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, reached = torch.randn(2, 3, 4, 4, 4, generator=generator, dtype=torch.float64)
    target = distillation.clean_of_step(x, reached, now=now, after=after)
    torch.testing.assert_close(ddim_step(x, target, now=now, after=after), reached)


def test_a_walk_is_the_ddim_sampler(tiny_base: BaseModel) -> None:
    schedule = tiny_base.schedule
    assert isinstance(schedule, DiffusionSchedule)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    steps = 8  # divides the schedule, so that the sampler's stride is the distance of its timesteps
    times = distillation.student_times(schedule, "ddim", steps)

    def denoise(x: torch.Tensor, t: float) -> torch.Tensor:
        return x * (1 - t / 2000)

    *_, expected = run(SAMPLERS["ddim"](schedule, steps), noise, denoise)
    torch.testing.assert_close(distillation.walked(noise, denoise, schedule, times), expected)


@pytest.mark.parametrize(("first", "last", "count"), [(999, 832, 4), (166, -1, 4), (10, 8, 2)])
def test_the_teachers_timesteps_fall_from_one_of_the_students_to_the_next(first: int, last: int, count: int) -> None:
    times = distillation.between(first, last, count)
    assert (times[0], times[-1], len(times)) == (first, last, count + 1)
    assert all(a > b for a, b in itertools.pairwise(times))


def test_an_unguided_teacher_of_equal_steps_has_nothing_to_teach(tiny_base: BaseModel) -> None:
    bank = speed_bank(tiny_base)
    try:
        bank.enable_training()
        bank.write(SLOT, train_speed.fresh_row(bank, torch.Generator().manual_seed(0)))
        seen: list[float] = []
        same = work(tiny_base, bank, guidance=1.0, substeps=1)
        loss = same.rollout(
            TEXTS, [0, 0], torch.Generator().manual_seed(0), update=lambda gradient: seen.append(gradient.norm().item())
        )
        assert len(seen) == 3 and loss < 1e-8
        guided = work(tiny_base, bank, guidance=3.0, substeps=1)
        assert guided.rollout(TEXTS, [0, 0], torch.Generator().manual_seed(0), update=lambda gradient: None) > 1e-5
    finally:
        bank.close()


def test_a_short_distillation_lowers_the_loss_and_writes_an_adapter(tiny_base: BaseModel, tmp_path: Path) -> None:
    bank = speed_bank(tiny_base)
    people = LoraBank(tiny_base.networks, tiny_base.family.trained, slots=2, rank=2)
    people.write(1, random_row(people, seed=3))
    before = people.flat.clone()
    minutes = iter(range(10_000))
    args = argparse.Namespace(
        out=tmp_path / "speed.safetensors", minutes=2.0, learning_rate=3e-3, seed=0, save_every=10
    )
    try:
        made = work(tiny_base, bank, guidance=3.0, substeps=2, people=people)

        def loss() -> float:
            return made.rollout(TEXTS, [0, 1], torch.Generator().manual_seed(9), update=lambda gradient: None)

        bank.enable_training()
        bank.write(SLOT, train_speed.fresh_row(bank, torch.Generator().manual_seed(0)))
        untrained = loss()
        steps = train_speed.train(made, lambda: (TEXTS, [0, 1]), args, clock=lambda: float(next(minutes)))
        log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
        assert steps == 3 * len(log) and steps > 60
        assert loss() < 0.9 * untrained
        adapter = bundle.decode(args.out.read_bytes())
        assert adapter.card.name == "speed" and adapter.card.steps == steps and set(adapter.weights) == {"unet"}
        assert torch.equal(people.flat, before)
        assert math.isclose(
            bank.row_of(adapter.weights).norm().item(), bank.flat[SLOT].norm().item(), rel_tol=0.2
        )  # the average of the last steps
    finally:
        bank.close()
        people.close()
