"""Several people trained in one backward, one joining late: python examples/many_people_one_loop.py"""

import torch

from likeness.diffusion.base import BaseModel, load_base
from likeness.training.data import TrainingSet
from likeness.training.loop import TrainingLoop
from likeness.training.recipe import recipe_named


def random_person(base: BaseModel, seed: int) -> TrainingSet:
    """Random latents stand for prepared photographs; `training.data.build_training_set` makes real ones."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(4, *base.latent_shape, generator=generator)
    ids = base.tokenize(["photo of <<TOK>> person"])
    return TrainingSet(latents, torch.ones(4, 1, *base.latent_shape[1:]), ids.expand(4, 1, -1), latents[:0], ids[:0])


def main(base: BaseModel, steps: int = 6) -> dict[str, int]:
    loop = TrainingLoop(base, capacity=3, rank=4)
    recipe = recipe_named("fast", steps=steps, rank=4, alpha=4, prior_rows=0)
    for name in ("anna", "ben"):
        loop.join(name, recipe, random_person(base, len(name)), seed=0)
    done: dict[str, int] = {}
    late = ["cleo"]
    while loop.names:
        for progress in loop.step():
            print(f"{progress.name}: step {progress.step} of {progress.steps}, loss {progress.loss:.4f}")
            if progress.finished:
                done[progress.name] = len(loop.leave(progress.name)["unet"])
        while late:
            loop.join(late.pop(), recipe, random_person(base, 9), seed=0)
    loop.close()
    return done


if __name__ == "__main__":
    print(main(load_base()))
