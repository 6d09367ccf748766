"""`likeness warm-up`: class images before the first training."""

from contextlib import closing

import typer

from ..training.recipe import recipe_named
from ..types import Subject
from .group import Call
from .options import Base, ClassNoun, Recipe, Revision
from .terminal import interruptible


def warm_up(
    ctx: typer.Context,
    class_noun: ClassNoun = Subject.class_noun,
    recipe: Recipe = "standard",
    base: Base = None,
    revision: Revision = None,
) -> None:
    """Make the class images that every training with a class noun shares, so that the first one need not."""
    call: Call = ctx.obj
    count = recipe_named(recipe).class_images
    with (
        closing(call.likeness(base, revision)) as likeness,
        interruptible() as should_stop,
        call.terminal.progress() as watch,
    ):
        likeness.warm_up(class_noun, count, watch=watch, should_stop=should_stop)
    call.terminal.document({"class_noun": class_noun, "class_images": count})
    call.terminal.say(f"{count} class images are in the store: {class_noun}")
