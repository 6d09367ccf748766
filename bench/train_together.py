"""Eight people trained together against one after another: speed-up, and differences of the adapters.

python -m bench.train_together [--base random] [--rounds 2] [--check-steps 20] [--save]

The people are random latents, which take as long as real ones. Two kinds of step: the recipe `standard` with its own
rows, and with one photograph and one class image per person, as in the reference solution.
"""

import argparse
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor

from likeness.diffusion.base import BaseModel
from likeness.training.data import TEMPLATES, TrainingSet, captions, class_captions
from likeness.training.loop import PRIOR_STEPS, TrainingLoop
from likeness.training.recipe import FineTuneRecipe, recipe_named
from likeness.types import Subject
from recipes.measurement import Row

from .random_base import add_base_options, base_settings, open_base
from .report import Goal, finish, options
from .timing import Rounds, ratio, take_turns

PEOPLE = 8
NAMES = tuple(f"person-{k}" for k in range(PEOPLE))
PHOTOS, CLASS_IMAGES = 12, 16


def recipes() -> dict[str, FineTuneRecipe]:
    """Recipes with enough steps for any number of rounds."""
    own = recipe_named("standard", steps=20_000)
    return {
        f"standard, {own.instance_rows} + {own.prior_rows} rows": own,
        "standard, 1 + 1 rows": replace(own, instance_rows=1, prior_rows=1),
    }


def random_person(base: BaseModel, seed: int) -> TrainingSet:
    """Latents and emphasis are random, the captions are real."""
    g = torch.Generator().manual_seed(seed)
    emphasis = 0.5 + torch.rand(PHOTOS, 1, *base.latent_shape[1:], generator=g)
    subject = Subject(NAMES[seed])
    ids = base.tokenize(captions(subject, TEMPLATES["portrait"]))  # (K, N)
    return TrainingSet(
        latents=torch.randn(PHOTOS, *base.latent_shape, generator=g).to(base.device),
        emphasis=(emphasis / emphasis.mean((1, 2, 3), keepdim=True)).to(base.device),
        ids=torch.stack([ids] * PHOTOS),
        prior_latents=torch.randn(CLASS_IMAGES, *base.latent_shape, generator=g).to(base.device),
        prior_ids=base.tokenize(class_captions(base.family, subject.class_noun, CLASS_IMAGES)),
    )


@contextmanager
def loop_of(base: BaseModel, recipe: FineTuneRecipe, people: range) -> Iterator[TrainingLoop]:
    """A loop with its own copy of the networks, without the hooks of other loops."""
    twin = replace(base, parts=copy.deepcopy(base.parts))
    loop = TrainingLoop(twin, capacity=len(people), rank=recipe.rank)
    for k in people:
        loop.join(NAMES[k], recipe, random_person(twin, k), seed=k)
    try:
        yield loop
    finally:
        loop.close()


def time_steps(base: BaseModel, recipe: FineTuneRecipe, rounds: int) -> Rounds:
    """Seconds for eight steps of each of the eight: in one batch, and as 64 steps of one person.

    Eight, because the first of them predicts the class images of all.
    """
    with loop_of(base, recipe, range(PEOPLE)) as together, loop_of(base, recipe, range(1)) as alone:

        def steps(loop: TrainingLoop, count: int) -> Callable[[], None]:
            def run() -> None:
                for _ in range(count):
                    loop.step()

            return run

        works = {"together": steps(together, PRIOR_STEPS), "one after another": steps(alone, PEOPLE * PRIOR_STEPS)}
        return take_turns(works, rounds)


def gradients(loop: TrainingLoop) -> dict[str, Tensor]:
    """Every person's clipped gradient, at non-zero factors (with B = 0 the gradient of A would be zero).

    Adam's first moment after the first step is the gradient times 1 - beta_1; one factor for all drops out below.
    """
    for name in loop.names:
        generator = torch.Generator().manual_seed(NAMES.index(name))
        factors = 0.03 * torch.randn(loop.bank.columns, generator=generator)
        loop.restore(name, {**loop.state(name), "factors": factors})
    loop.step()
    return {name: loop.state(name)["mean"] for name in loop.names}


def adapters(loop: TrainingLoop, steps: int) -> dict[str, Tensor]:
    """Every person's factors (P,) after `steps` steps from a fresh start."""
    for _ in range(steps):
        loop.step()
    return {name: loop.state(name)["factors"] for name in loop.names}


def differences(base: BaseModel, recipe: FineTuneRecipe, steps: int) -> list[Row]:
    """Relative differences of gradient and adapter, together against alone, one row per person."""
    everybody = range(PEOPLE)
    with loop_of(base, recipe, everybody) as loop:
        g_together = gradients(loop)
    with loop_of(base, recipe, everybody) as loop:
        w_together = adapters(loop, steps)
    rows: list[Row] = []
    for k, name in enumerate(NAMES):
        with loop_of(base, recipe, range(k, k + 1)) as loop:
            g_alone = gradients(loop)[name]
        with loop_of(base, recipe, range(k, k + 1)) as loop:
            fresh = loop.state(name)["factors"]
            w_alone = adapters(loop, steps)[name]
        rows.append(
            {
                "person": name,
                "gradient": relative(g_together[name], g_alone),
                f"adapter after {steps} steps": relative(w_together[name], w_alone),
                "of what was learnt": relative(w_together[name] - fresh, w_alone - fresh),
            }
        )
    return rows


def relative(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|."""
    return ((a - b).norm() / b.norm()).item()


def table_of(rounds: Rounds) -> list[Row]:
    return [
        {
            "eight people": name,
            "median s for a step of each": median(seconds) / PRIOR_STEPS,
            "person-steps a second": PEOPLE * PRIOR_STEPS / median(seconds),
            "times as long": ratio(rounds, name, "together"),
        }
        for name, seconds in rounds.items()
    ]


def main() -> None:
    parser = options(__doc__)
    add_base_options(parser)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--check-steps", type=int, default=20, help="number of steps after which adapters are compared")
    args: argparse.Namespace = parser.parse_args()
    base = open_base(args)
    tables: dict[str, list[Row]] = {}
    goals: list[Goal] = []
    for title, recipe in recipes().items():
        rounds = time_steps(base, recipe, args.rounds)
        tables[title] = table_of(rounds)
        speed = ratio(rounds, "one after another", "together")
        goals.append(Goal(f"{title}: times faster together", speed, 3.0, at_least=True))
    for title, recipe in recipes().items():
        found = differences(base, recipe, args.check_steps)
        tables[f"{title}: relative differences, together against alone"] = found
        for column in list(found[0])[1:3]:
            worst = max(float(str(row[column])) for row in found)
            goals.append(Goal(f"{title}: largest relative difference: {column}", worst, 1e-4, at_least=False))
    settings = base_settings(args) | {"rounds": args.rounds, "check_steps": args.check_steps, "people": PEOPLE}
    finish("train-together", tables, goals=goals, settings=settings, save=args.save)


if __name__ == "__main__":
    main()
