"""Predicts memory and operations of a training before it starts, counted on fake tensors.

One step of the recipe runs through the training loop with a base of fake tensors (shapes and types, no numbers): the
bytes that are alive at once are those of a real step, whatever the architecture. Not counted: the device's context,
workspaces of its libraries and fragmentation, for which `RESERVE_BYTES` is added.
"""

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..diffusion.base import fake_base, untrained_base
from ..diffusion.counting import Counting
from ..diffusion.devices import (
    available_bytes,
    counts_memory,
    memory_for,
    pick_device,
    pick_dtype,
)
from ..diffusion.model import BaseModel
from ..errors import OutOfMemory
from .data import stand_in
from .loop import PRIOR_STEPS, Group, StepMemory, TrainingLoop
from .recipe import MOST_PEOPLE, FineTuneRecipe

GIB = 2**30
SHARE = 0.9  # of the available memory, for a plan that is within a tenth of what is then measured
RESERVE_BYTES = int(0.9 * GIB)  # of an accelerator: context 0.4 to 0.6 GiB, workspaces, fragmentation


@dataclass(frozen=True)
class Plan:
    """The prediction for some people who train in one loop."""

    people: int
    rows: int  # of one person in a step
    memory: StepMemory
    weights_bytes: int  # of the base's networks on the device
    host_bytes: int  # of its networks in host memory
    prompts_bytes: int  # encoded captions of all people
    bank_bytes: int  # factors of all people
    optimizer_bytes: int  # two moments of all people
    gradient_bytes: int
    activation_bytes: int  # most that are alive at once during a step
    reserve_bytes: int  # see RESERVE_BYTES
    step_operations: int  # floating point operations of a step of all people
    steps: int

    @property
    def rows_at_once(self) -> int:
        """In one forward and backward pass."""
        return min(self.memory.rows or self.people * self.rows, self.people * self.rows)

    @property
    def total_bytes(self) -> int:
        parts = (self.weights_bytes, self.prompts_bytes, self.bank_bytes, self.optimizer_bytes, self.gradient_bytes)
        return sum(parts) + self.activation_bytes + self.reserve_bytes

    @property
    def operations_per_person(self) -> int:
        """Of all steps, without class images and encoding."""
        return self.steps * self.step_operations // self.people

    def to_json(self) -> dict[str, object]:
        return {
            "people": self.people, "rows_per_person": self.rows, "rows_at_once": self.rows_at_once,
            "recompute": self.memory.recompute, "total_bytes": self.total_bytes, "weights_bytes": self.weights_bytes,
            "host_bytes": self.host_bytes, "prompts_bytes": self.prompts_bytes,
            "bank_bytes": self.bank_bytes, "optimizer_bytes": self.optimizer_bytes,
            "gradient_bytes": self.gradient_bytes, "activation_bytes": self.activation_bytes,
            "activation_bytes_per_row": self.activation_bytes // self.rows_at_once,
            "reserve_bytes": self.reserve_bytes, "steps": self.steps, "step_operations": self.step_operations,
            "operations_per_person": self.operations_per_person,
        }  # fmt: skip


def plan_of(
    base: BaseModel, recipe: FineTuneRecipe, *, people: int, memory: StepMemory, reserve_bytes: int = RESERVE_BYTES
) -> Plan:
    """The prediction for one way to use memory.

    Args:
        base: from `fake_base`.
        reserve_bytes: 0 on a CPU.
    """
    with next(base.parts["vae"].parameters()).fake_mode:
        loop = TrainingLoop(base, capacity=people, rank=recipe.rank, memory=memory)
    try:
        with Counting() as joined:
            people_in = [loop.join(str(k), recipe, stand_in(base, recipe.resolution_px), seed=k) for k in range(people)]
        with Counting() as drawn:
            batches = [loop.draw(job) for job in people_in]
        # a group for each shape of the rows
        groups: list[Group] = [list(zip(people_in, alike, strict=True)) for alike in zip(*batches, strict=True)]
        counts = [_count(loop, group) for group in groups]
        rows = sum(len(batch.t) for batch in itertools.chain(*batches))
        flat = loop.bank.flat.nbytes
    finally:
        loop.close()
    prompts = sum(job.prompts.states.nbytes for job in people_in if job.prompts is not None)
    peak = max(joined.peak_bytes - prompts, drawn.peak_bytes, *(peak for peak, _ in counts))
    host = base.host_bytes
    return Plan(
        people=people, rows=rows // people, memory=memory, weights_bytes=sum(base.sizes.values()) - host,
        host_bytes=host, prompts_bytes=prompts, bank_bytes=flat,
        optimizer_bytes=2 * flat, gradient_bytes=flat, activation_bytes=peak, reserve_bytes=reserve_bytes,
        step_operations=sum(operations for _, operations in counts) + drawn.operations // PRIOR_STEPS,
        steps=recipe.steps,
    )  # fmt: skip


def _count(loop: TrainingLoop, group: Group) -> tuple[int, int]:
    """Most bytes at once and operations for the rows of one shape, by the first and the last pass."""
    parts = list(loop.parts(group))
    both = parts[:1] if len(parts) == 1 else [parts[0], parts[-1]]
    counts = []
    for part in both:
        gradient = torch.zeros_like(loop.bank.flat)
        with Counting() as counted:
            loop.bank.add_gradient(torch.stack(loop.losses(part)).sum(), gradient)
        counts.append(counted)
    rows, counted_rows = (sum(len(batch.t) for _, batch in some) for some in (group, itertools.chain(*both)))
    return max(one.peak_bytes for one in counts), sum(one.operations for one in counts) * rows // counted_rows


def fitting_plan(
    base: BaseModel, recipe: FineTuneRecipe, *, people: int, budget_bytes: int, reserve_bytes: int = RESERVE_BYTES
) -> Plan:
    """The way with the fewest operations that fits.

    Raises:
        OutOfMemory: none fits; the message has the numbers.
    """
    rows = people * (recipe.instance_rows + recipe.prior_rows)
    for memory in ways(rows):
        plan = plan_of(base, recipe, people=people, memory=memory, reserve_bytes=reserve_bytes)
        if plan.total_bytes <= budget_bytes:
            return plan
    raise OutOfMemory(
        f"expected {plan.total_bytes / GIB:.1f} GiB of memory to train {people} at once with this base and recipe, "
        f"got {budget_bytes / GIB:.1f}",
        hint="train fewer people at once, or choose a smaller base, a smaller rank or a device with more memory",
    )


def ways(rows: int) -> Iterator[StepMemory]:
    """Every `StepMemory` from the fewest operations to the least memory, for steps of `rows` rows."""
    memory: StepMemory | None = StepMemory()
    while memory is not None:
        yield memory
        memory = memory.smaller(rows)


def people_that_fit(base: BaseModel, recipe: FineTuneRecipe, plan: Plan, *, budget_bytes: int) -> int:
    """How many people fit at once with the `StepMemory` of `plan`, by the memory of one more person."""
    more = plan_of(base, recipe, people=plan.people + 1, memory=plan.memory, reserve_bytes=plan.reserve_bytes)
    return plan.people + max(0, budget_bytes - plan.total_bytes) // (more.total_bytes - plan.total_bytes)


def step_seconds(base: str, revision: str | None, recipe: FineTuneRecipe, plan: Plan) -> float:
    """The time of a step of `plan` on this machine's device, with random weights: a mean, after one more to warm up.

    The mean is over `PRIOR_STEPS` steps, since one of as many predicts the class images of all.

    Raises:
        OutOfMemory: the step does not fit on the device.
        NotFound, CorruptBase: see `untrained_base`.
    """
    device = pick_device()
    with memory_for(f"a step of {plan.rows_at_once} rows at once on the {device.type}", hint="plan for fewer people"):
        loop = TrainingLoop(
            untrained_base(base, revision, device=device, dtype=pick_dtype(device)),
            capacity=plan.people, rank=recipe.rank, memory=plan.memory,
        )  # fmt: skip
        try:
            data = stand_in(loop.base, recipe.resolution_px)
            for k in range(plan.people):
                loop.join(str(k), recipe, data, seed=k)
            loop.step()
            started_s = time.perf_counter()
            for _ in range(PRIOR_STEPS):
                loop.step()  # reads the losses, so the device has finished
            return (time.perf_counter() - started_s) / PRIOR_STEPS
        finally:
            loop.close()


def plan_here(
    base: str, revision: str | None, recipe: FineTuneRecipe, *, people: int | None = None
) -> tuple[int, StepMemory]:
    """How many people this machine's device trains at once, and how. For use before the base is loaded.

    On a CPU memory is not the limit: a joint step gains little beyond a few people a core.

    Args:
        base, revision: see `diffusion.base.locate`.
        people: None: as many as fit with all rows of all people in one pass, or one.

    Raises:
        OutOfMemory: they do not fit in any way; the message has the numbers.
        NotFound, CorruptBase: see `fake_base`.
    """
    device = pick_device()
    if not counts_memory(device):
        return people or max(1, min(8, 2 * (os.cpu_count() or 1))), StepMemory()
    fake = fake_base(base, revision, device=device, dtype=pick_dtype(device), trains=True)
    budget = int(SHARE * available_bytes(device))
    plan = fitting_plan(fake, recipe, people=people or 1, budget_bytes=budget)
    if people is not None or plan.memory.rows is not None:
        return plan.people, plan.memory
    return min(MOST_PEOPLE, people_that_fit(fake, recipe, plan, budget_bytes=budget)), plan.memory
