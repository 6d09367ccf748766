"""`likeness plan`: what a training will need, before it starts."""

import re
from typing import Annotated

import typer

from ..errors import UsageError
from ..training.recipe import MOST_PEOPLE
from .group import Call
from .options import Base, Recipe, Revision

_SIZE = re.compile(r"(\d{1,4}(?:\.\d{1,3})?) ?(?:GB|GiB|G)?", re.IGNORECASE)


def plan(
    ctx: typer.Context,
    recipe: Recipe = "standard",
    memory: Annotated[
        str | None,
        typer.Option(metavar="12GB", help="Memory of the GPU to plan for; without it, the plan is for this machine."),
    ] = None,
    people: Annotated[int, typer.Option(help=f"Number of people trained at once, 1 to {MOST_PEOPLE}.")] = 1,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Measure steps on this machine with random weights, and print the duration of the training.",
        ),
    ] = False,
    base: Base = None,
    revision: Revision = None,
) -> None:
    """Predict memory and operations of a training, and how its steps fit. Loads no weights."""
    import torch

    from ..diffusion.base import fake_base, silence_libraries
    from ..diffusion.devices import memory_bytes, pick_device, pick_dtype
    from ..training.loop import PRIOR_STEPS
    from ..training.plan import GIB, RESERVE_BYTES, fitting_plan, people_that_fit, step_seconds
    from ..training.recipe import recipe_named

    call: Call = ctx.obj
    if not 1 <= people <= MOST_PEOPLE:
        raise UsageError(f"expected 1 to {MOST_PEOPLE} people, got {people}", param="people")
    if measure and memory is not None:
        raise UsageError("expected --memory or --measure: only this machine can be measured", param="measure")
    device = pick_device() if memory is None else torch.device("cuda")
    dtype = pick_dtype(device) if memory is None else torch.bfloat16
    budget = memory_bytes(device) if memory is None else _bytes(memory)
    reserve = 0 if device.type == "cpu" else RESERVE_BYTES
    settings = call.with_base(base, revision)
    silence_libraries()
    found = fake_base(settings.base, settings.revision, device=device, dtype=dtype, trains=True)
    chosen = recipe_named(recipe, found.family.name)
    made = fitting_plan(found, chosen, people=people, budget_bytes=budget, reserve_bytes=reserve)
    most = people_that_fit(found, chosen, made, budget_bytes=budget)
    step_s = None
    if measure:
        call.terminal.note(f"measuring {PRIOR_STEPS + 1} steps")
        step_s = step_seconds(settings.base, settings.revision, chosen, made)
    call.terminal.document(
        {"base": found.id, "family": found.family.name, "recipe": recipe, "dtype": str(dtype).removeprefix("torch."),
         "budget_bytes": budget, **made.to_json(), "people_that_fit": most,
         "step_s": step_s, "seconds": None if step_s is None else step_s * made.steps}
    )  # fmt: skip
    side_px = chosen.resolution_px or found.family.resolution_px
    title = f"{found.id} ({found.family.name}), {side_px} px, recipe {recipe}, {people} at once"
    call.terminal.say(title)
    parts = {
        "weights": made.weights_bytes, "prompts": made.prompts_bytes, "bank": made.bank_bytes,
        "optimizer": made.optimizer_bytes,
        "gradient": made.gradient_bytes, "activations": made.activation_bytes, "reserve": made.reserve_bytes,
        "total": made.total_bytes, "budget": budget,
    }  # fmt: skip
    for name, size in parts.items():
        call.terminal.say(f"{name:<14}{size / GIB:8.2f} GiB")
    if made.host_bytes:
        call.terminal.say(f"{'in host memory':<14}{made.host_bytes / GIB:8.2f} GiB: {', '.join(found.streaming)}")
    how = "recomputed in the backward pass" if made.memory.recompute else "kept"
    call.terminal.say(f"{made.rows_at_once} of {people * made.rows} rows in one pass, activations {how}")
    call.terminal.say(f"{made.steps} steps, {made.operations_per_person / 1e15:.2f} PFLOP a person")
    if step_s is not None:
        call.terminal.say(
            f"{step_s:.2f} s a step, measured: {step_s * made.steps / 60:.1f} minutes for {people} at once"
        )
    call.terminal.say(f"{most} people fit at once in this way")


def _bytes(size: str) -> int:
    """'12GB' -> bytes. Cards are sold in units of 2**30. Raises UsageError."""
    found = _SIZE.fullmatch(size.strip())
    if found is None or not float(found[1]):
        raise UsageError("expected --memory such as 12GB", param="memory")
    return int(float(found[1]) * 2**30)
