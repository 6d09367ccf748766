"""`likeness warm-up`: class images before the first training."""

from contextlib import closing

import typer

from ..training.recipe import recipe_named
from ..types import class_noun_of
from .group import Call
from .options import Base, ClassNoun, Recipe, Revision
from .terminal import interruptible


def warm_up(
    ctx: typer.Context,
    class_noun: ClassNoun = None,
    recipe: Recipe = "standard",
    base: Base = None,
    revision: Revision = None,
) -> None:
    """Make the class images of a class noun, so that its first training need not make them."""
    call: Call = ctx.obj
    noun = class_noun_of(None, class_noun)
    with (
        closing(call.likeness(base, revision)) as likeness,
        interruptible() as should_stop,
        call.terminal.progress() as watch,
    ):
        count = recipe_named(recipe, likeness.family.name).class_images
        likeness.warm_up(noun, count, watch=watch, should_stop=should_stop)
    call.terminal.document({"class_noun": noun, "class_images": count})
    call.terminal.say(f"{count} class images are in the store: {noun}")
