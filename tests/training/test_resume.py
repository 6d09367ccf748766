"""A checkpoint continues the training that it was taken from, and no other."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fixtures.tiny import random_person
from likeness.diffusion.base import BaseModel
from likeness.errors import Mismatch, TrainingError
from likeness.training.checkpoint import fingerprint, pack_checkpoint, unpack_checkpoint
from likeness.training.loop import TrainingLoop
from likeness.training.recipe import recipe_named

RECIPE = recipe_named("fast", steps=6, rank=2, instance_rows=2, prior_rows=1, warmup_steps=2)
FACTS = {"base_sha256": "ab", "seed": 3, "photos": ["cd", "ef"]}


@pytest.fixture
def loop(tiny_base: BaseModel) -> Iterator[TrainingLoop]:
    loop = TrainingLoop(tiny_base, capacity=2, rank=4)
    yield loop
    loop.close()


def train(loop: TrainingLoop, steps: int) -> None:
    for _ in range(steps):
        loop.step()


def test_resuming_is_never_having_stopped(loop: TrainingLoop, tiny_base: BaseModel) -> None:
    data, mark = random_person(tiny_base, 1), fingerprint(RECIPE, **FACTS)  # type: ignore[arg-type]
    loop.join("anna", RECIPE, data, seed=3)
    train(loop, 3)
    content = pack_checkpoint(loop.state("anna"), mark=mark)
    train(loop, 3)
    unbroken: dict[str, Tensor] = loop.state("anna")
    loop.leave("anna")
    loop.join("anna", RECIPE, data, seed=99)  # the seed is of no more importance: the generator's state is restored
    loop.restore("anna", unpack_checkpoint(content, mark=mark))
    progress = [loop.step()[0] for _ in range(3)]
    assert [p.step for p in progress] == [4, 5, 6]
    assert progress[-1].finished
    resumed = loop.state("anna")
    assert unbroken.keys() == resumed.keys()
    assert all(torch.equal(unbroken[key], resumed[key]) for key in unbroken.keys() - {"seconds"})


def test_a_bank_of_a_larger_rank_goes_on_with_it(tiny_base: BaseModel) -> None:
    data = random_person(tiny_base, 1)
    ends = {}
    small, large = (TrainingLoop(tiny_base, capacity=1, rank=rank) for rank in (2, 6))
    try:
        small.join("anna", RECIPE, data, seed=3)
        train(small, 3)
        half = small.state("anna")
        large.join("anna", RECIPE, data, seed=99)
        large.restore("anna", half)
        for name, loop in {"small": small, "large": large}.items():
            train(loop, 3)
            ends[name] = loop.state("anna")["factors"]
    finally:
        small.close()
        large.close()
    assert torch.allclose(ends["small"], ends["large"], atol=1e-5)


def test_a_step_that_fails_was_not_taken(
    loop: TrainingLoop, tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random_person(tiny_base, 1)
    loop.join("anna", RECIPE, data, seed=3)
    before = loop.state("anna")
    with monkeypatch.context() as broken:
        broken.setattr(loop.bank, "add_gradient", lambda loss, total: torch.zeros(1 << 62))
        with pytest.raises(RuntimeError):
            loop.step()
    after = loop.state("anna")
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_fingerprint_holds_recipe_base_seed_and_photos() -> None:
    same = fingerprint(RECIPE, base_sha256="ab", seed=3, photos=["ef", "cd"])
    assert same == fingerprint(RECIPE, **FACTS)  # type: ignore[arg-type]
    others = [
        fingerprint(recipe_named("fast"), **FACTS),  # type: ignore[arg-type]
        *(fingerprint(RECIPE, **FACTS | change) for change in ({"base_sha256": "x"}, {"seed": 4}, {"photos": ["cd"]})),  # type: ignore[arg-type]
    ]
    assert len({same, *others}) == 5


def test_another_jobs_and_a_damaged_checkpoint_are_refused() -> None:
    whole = pack_checkpoint({"factors": torch.ones(100)}, mark="mine")
    assert unpack_checkpoint(whole, mark="mine")["factors"].sum() == 100
    with pytest.raises(Mismatch, match="another recipe"):
        unpack_checkpoint(whole, mark="yours")
    for content in (whole[:-50], whole[:20], b"", b"not a checkpoint at all"):
        with pytest.raises(Mismatch, match="cannot be read"):
            unpack_checkpoint(content, mark="mine")


def test_a_state_of_another_bank_is_refused(loop: TrainingLoop, tiny_base: BaseModel) -> None:
    loop.join("anna", RECIPE, random_person(tiny_base, 1), seed=3)
    state = loop.state("anna")
    with pytest.raises(Mismatch, match="factors"):
        loop.restore("anna", state | {"factors": state["factors"][:-8]})


def test_who_may_join(loop: TrainingLoop, tiny_base: BaseModel) -> None:
    data = random_person(tiny_base, 1)
    loop.join("anna", RECIPE, data, seed=1)
    for name, recipe in (("anna", RECIPE), ("ben", recipe_named("fast", rank=5))):
        with pytest.raises(TrainingError, match="expected a new name"):
            loop.join(name, recipe, data, seed=1)
    loop.join("ben", RECIPE, data, seed=1)
    with pytest.raises(TrainingError, match="2 free slots"):
        loop.join("eve", RECIPE, data, seed=1)
    loop.leave("anna")
    assert loop.join("eve", RECIPE, data, seed=1).slot == 1
    assert loop.names == ("ben", "eve")


def test_an_empty_loop_does_nothing(loop: TrainingLoop) -> None:
    assert loop.step() == []


def test_training_lowers_the_loss_it_is_given(loop: TrainingLoop, tiny_base: BaseModel) -> None:
    recipe = recipe_named(
        "fast", steps=24, rank=4, alpha=4, instance_rows=4, prior_rows=0, warmup_steps=2, unet_learning_rate=5e-4,
        middle_timesteps=False, down_blocks=True,  # all of what a network of random weights can learn with
    )  # fmt: skip
    loop.join("anna", recipe, random_person(tiny_base, 1, photos=1), seed=3)
    losses = [loop.step()[0].loss for _ in range(24)]
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])


def test_a_text_encoder_of_a_smaller_rank(loop: TrainingLoop, tiny_base: BaseModel) -> None:
    recipe = recipe_named("fast", steps=2, rank=4, alpha=2, text_rank=2, instance_rows=2, prior_rows=1, warmup_steps=0)
    slot = loop.join("anna", recipe, random_person(tiny_base, 1), seed=3).slot
    for _ in range(recipe.steps):
        loop.step()
    inside = loop.bank.pairs_of(loop.bank.flat[slot], 4)
    weights = loop.leave("anna")
    for name, pair in weights["text_encoder"].items():
        assert pair.A.shape[0] == 4 and not pair.A[2:].any() and pair.A[:2].any() and pair.B[:, :2].any()
        assert not pair.B[:, 2:].any()
        # it trained at alpha / 2; the card will say alpha / 4
        assert (pair.B == 2 * inside["text_encoder"][name].B).all()
    assert all(pair.A[2:].any() for pair in weights["unet"].values())
