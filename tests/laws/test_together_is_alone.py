"""Adapters trained in one forward and one backward pass equal adapters trained alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from fixtures.tiny import random_person, relative
from likeness.diffusion.base import BaseModel
from likeness.errors import TrainingError
from likeness.training.data import TrainingSet
from likeness.training.loop import Progress, TrainingLoop
from likeness.training.recipe import FineTuneRecipe, recipe_named
from likeness.types import LoraPair, Network

BANK_RANK = 6
Weights = Mapping[Network, Mapping[str, LoraPair]]


@dataclass(frozen=True)
class Person:
    recipe: FineTuneRecipe
    seed: int
    joins: int  # loop steps before they come


def people() -> dict[str, Person]:
    """Ranks, learning rates, targets, rows, clipping and lengths differ.

    Only `dora` trains the down blocks, with as many rows as `cleo`; `ben` does not train the text encoder.
    """
    base = recipe_named("fast", steps=5, rank=4, alpha=4, instance_rows=2, prior_rows=1, warmup_steps=2)
    return {
        "anna": Person(base, 1, 0),
        "ben": Person(
            replace(base, steps=3, rank=2, text_learning_rate=0.0, unet_learning_rate=3e-4, decay=False), 2, 1
        ),
        "cleo": Person(
            replace(
                base, steps=4, rank=6, alpha=3, instance_rows=3, prior_rows=0, min_snr_gamma=None, clip_norm=0.05,
                unet_targets=("to_q", "to_v"), text_targets=("q_proj",), unet_learning_rate=5e-5,
            ),
            3, 2,
        ),
        "dora": Person(replace(base, instance_rows=3, prior_rows=0, down_blocks=True), 4, 0),
    }  # fmt: skip


def fine_tune(
    base: BaseModel, group: Mapping[str, Person], data: Mapping[str, TrainingSet]
) -> tuple[dict[str, Weights], dict[str, list[Progress]]]:
    """Train everyone in one loop, from joining to the last step."""
    loop = TrainingLoop(base, capacity=len(group), rank=BANK_RANK)
    weights: dict[str, Weights] = {}
    history: dict[str, list[Progress]] = {name: [] for name in group}
    for now in range(7):
        for name, person in group.items():
            if person.joins == now:
                loop.join(name, person.recipe, data[name], seed=person.seed)
        for progress in loop.step():
            history[progress.name].append(progress)
            if progress.finished and progress.error is None:
                weights[progress.name] = loop.leave(progress.name)
    assert loop.names == ()
    loop.close()
    return weights, history


def flat(weights: Weights) -> Tensor:
    pairs = [pair for network in sorted(weights) for _, pair in sorted(weights[network].items())]
    return torch.cat([torch.from_numpy(factor).flatten() for pair in pairs for factor in (pair.A, pair.B)])


def all_data(base: BaseModel) -> dict[str, TrainingSet]:
    return {name: random_person(base, person.seed) for name, person in people().items()}


def test_together_equals_alone(tiny_base: BaseModel) -> None:
    data = all_data(tiny_base)
    together, history = fine_tune(tiny_base, people(), data)
    assert set(together["ben"]) == {"unet"}  # where a text encoder is not trained, nothing of it is in the adapter
    for name, person in people().items():
        alone, its = fine_tune(tiny_base, {name: person}, data)
        assert together[name].keys() == alone[name].keys()
        assert relative(flat(together[name]), flat(alone[name])) <= 1e-4
        assert len(history[name]) == person.recipe.steps
        for mine, theirs in zip(history[name], its[name], strict=True):
            assert mine.loss == pytest.approx(theirs.loss, rel=1e-4)
            assert mine.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-4)


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("rows", "steps"), [((3, 2), 20), ((6, 2), 4), ((6, 1), 4)])
def test_bit_for_bit_on_one_thread(tiny_base: BaseModel, rows: tuple[int, int], steps: int) -> None:
    """At the built-in base's learning rate, rounding would grow to a tenth within twenty steps; there is none."""
    instance, prior = rows
    recipe = recipe_named("standard", steps=steps, instance_rows=instance, prior_rows=prior, checkpoint_every=20)
    group = {name: Person(recipe, seed, 0) for seed, name in enumerate(("anna", "ben", "cleo"))}
    data = {name: random_person(tiny_base, person.seed) for name, person in group.items()}
    adapters = {}
    with on_threads(1):
        for names in (tuple(group), ("ben",)):
            loop = TrainingLoop(tiny_base, capacity=3, rank=recipe.rank)
            for name in names:
                loop.join(name, group[name].recipe, data[name], seed=group[name].seed)
            for _ in range(recipe.steps):
                loop.step()
            adapters[names] = flat(loop.leave("ben"))
            loop.close()
    together, alone = adapters.values()
    assert torch.equal(together, alone)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_of_the_standard_recipe_is_the_same_to_rounding(tiny_base: BaseModel, threads: int) -> None:
    """6 + 1 rows. On several threads the library splits sums differently; later steps amplify the difference."""
    recipe, gradients = recipe_named("standard"), []
    with on_threads(threads):
        for names in (("anna", "ben"), ("ben",)):
            loop = TrainingLoop(tiny_base, capacity=2, rank=recipe.rank)
            jobs = {
                name: loop.join(name, recipe, random_person(tiny_base, len(name)), seed=len(name)) for name in names
            }
            noise = torch.randn(loop.bank.columns, generator=torch.Generator().manual_seed(0))
            loop.bank.write(jobs["ben"].slot, loop.bank.flat[jobs["ben"].slot] + 0.02 * noise)
            gradients.append(loop.losses_and_gradient(list(jobs.values()))[1][jobs["ben"].slot].clone())
            loop.close()
    together, alone = gradients
    assert alone.norm() > 0
    assert torch.equal(together, alone) if threads == 1 else relative(together, alone) <= 1e-5


def test_what_a_recipe_does_not_train_stays_away_from_the_adapter(tiny_base: BaseModel) -> None:
    cleo = people()["cleo"]
    weights, _ = fine_tune(tiny_base, {"cleo": replace(cleo, joins=0)}, all_data(tiny_base))
    found = {network: {name.rsplit(".", 1)[1] for name in pairs} for network, pairs in weights["cleo"].items()}
    assert found == {"unet": {"to_q", "to_v"}, "text_encoder": {"q_proj"}}
    for pairs in weights["cleo"].values():
        assert all(len(pair.A) == cleo.recipe.rank and pair.B.any() for pair in pairs.values())


def test_gradients_together_equal_gradients_alone(tiny_base: BaseModel) -> None:
    group, data = people(), all_data(tiny_base)

    def one_gradient(names: list[str]) -> dict[str, Tensor]:
        loop = TrainingLoop(tiny_base, capacity=len(names), rank=BANK_RANK)
        jobs = {}
        for name in names:
            jobs[name] = loop.join(name, group[name].recipe, data[name], seed=5)
            # B away from zero, so that A has gradients too
            noise = torch.randn(loop.bank.columns, generator=torch.Generator().manual_seed(group[name].seed))
            loop.bank.write(jobs[name].slot, loop.bank.flat[jobs[name].slot] + 0.02 * noise)
        gradient = loop.losses_and_gradient(list(jobs.values()))[1]
        loop.close()
        assert gradient[0].count_nonzero() == 0
        return {name: gradient[job.slot] for name, job in jobs.items()}

    together = one_gradient(list(group))
    for name in group:
        alone = one_gradient([name])[name]
        assert alone.norm() > 0
        assert relative(together[name], alone) <= 1e-4


def test_a_person_without_numbers_ends_alone(tiny_base: BaseModel) -> None:
    group, data = people(), all_data(tiny_base)
    healthy = {name: person for name, person in group.items() if name != "ben"}
    expected, _ = fine_tune(tiny_base, healthy, data)
    spoilt = replace(data["ben"], latents=torch.full_like(torch.stack([*data["ben"].latents]), torch.nan))
    weights, history = fine_tune(tiny_base, group, data | {"ben": spoilt})
    assert [type(progress.error) for progress in history["ben"]] == [TrainingError]
    assert history["ben"][0].finished
    assert weights.keys() == healthy.keys()
    for name in healthy:
        assert all(progress.error is None for progress in history[name])
        assert relative(flat(weights[name]), flat(expected[name])) <= 1e-4


def test_a_slot_holds_nothing_of_who_had_it_before(tiny_base: BaseModel) -> None:
    group, data = people(), all_data(tiny_base)
    fresh, _ = fine_tune(tiny_base, {"anna": group["anna"]}, data)
    loop = TrainingLoop(tiny_base, capacity=1, rank=BANK_RANK)
    spoilt = replace(data["cleo"], latents=torch.full_like(torch.stack([*data["cleo"].latents]), torch.inf))
    loop.join("cleo", group["cleo"].recipe, data["cleo"], seed=3)
    loop.step()
    loop.leave("cleo")
    loop.join("cleo", group["cleo"].recipe, spoilt, seed=3)
    assert loop.step()[0].error is not None
    loop.join("anna", group["anna"].recipe, data["anna"], seed=group["anna"].seed)
    while not loop.step()[0].finished:
        pass
    assert torch.equal(flat(loop.leave("anna")), flat(fresh["anna"]))
    loop.close()
