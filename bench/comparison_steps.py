"""The process of one contender of `bench.comparison`: takes some training steps and writes what they took as JSON.

python -m bench.comparison_steps STEPS [--count] loop BASE DTYPE RECIPE ROWS PRIOR_ROWS PEOPLE
python -m bench.comparison_steps STEPS [--count] script SCRIPT ARGUMENT...

The last line has `seconds` of each step, `peak_bytes` of the process, `adapter_bytes` and, with --count, `operations`
of the last step. Counting makes a step slower, so it is not timed in the same process.
"""

import json
import random
import resource
import runpy
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from likeness.diffusion.base import load_base
from likeness.diffusion.counting import Counting
from likeness.training.loop import TrainingLoop
from likeness.training.pipeline import adapter_bytes
from likeness.training.recipe import recipe_named

from .train_together import NAMES, random_person

RESULT = "pytorch_lora_weights.safetensors"


class Taken:
    """What the steps took so far."""

    def __init__(self, counting: Counting | None) -> None:
        self.seconds: list[float] = []
        self.operations = 0  # of all steps but the first, which begins with loading
        self._counting, self._since_s, self._counted = counting, time.perf_counter(), 0

    def step_ended(self) -> None:
        now_s = time.perf_counter()
        self.seconds.append(now_s - self._since_s)
        self._since_s = now_s
        if self._counting is not None:
            self._counted = self._counted or self._counting.operations
            self.operations = self._counting.operations - self._counted


def loop_steps(
    steps: int, taken: Taken, base: str, dtype: str, recipe: str, rows: str, prior_rows: str, people: str
) -> int:
    """Ours, with people of random latents. Returns the bytes of an adapter."""
    opened = load_base(base, device=torch.device("cpu"), dtype=getattr(torch, dtype))
    own = recipe_named(recipe, steps=steps, instance_rows=int(rows), prior_rows=int(prior_rows))
    loop = TrainingLoop(opened, capacity=int(people), rank=own.rank)
    for k in range(int(people)):
        loop.join(NAMES[k], own, random_person(opened, k), seed=k)
    for _ in range(steps):
        loop.step()
        taken.step_ended()
    return adapter_bytes(opened, own)


def script_steps(steps: int, taken: Taken, script: str, *arguments: str) -> int:
    """A script that trains with torch's AdamW. Returns the bytes of the adapter that it wrote."""
    if "torchvision" not in sys.modules and find_spec("torchvision") is None:
        sys.modules["torchvision"] = transforms_of_torchvision()
    step: Callable[..., Any] = torch.optim.AdamW.step

    def timed(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        result = step(self, *args, **kwargs)
        taken.step_ended()
        return result

    setattr(torch.optim.AdamW, "step", timed)  # noqa: B010, which the type checker cannot follow
    sys.argv = [script, *arguments, f"--max_train_steps={steps}"]
    runpy.run_path(script, run_name="__main__")
    (out,) = (one.partition("=")[2] for one in arguments if one.startswith("--output_dir="))
    return (Path(out) / RESULT).stat().st_size


def transforms_of_torchvision() -> ModuleType:
    """What the script uses of torchvision, which plain pip installs for another build of torch only."""

    def resize(size: int, interpolation: object) -> Callable[[Image.Image], Image.Image]:
        def apply(image: Image.Image) -> Image.Image:
            scale = size / min(image.size)
            return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)

        return apply

    def random_crop(size: int) -> Callable[[Image.Image], Image.Image]:
        def apply(image: Image.Image) -> Image.Image:
            left, top = random.randint(0, image.width - size), random.randint(0, image.height - size)
            return image.crop((left, top, left + size, top + size))

        return apply

    def compose(each: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
        def apply(image: Any) -> Any:
            for one in each:
                image = one(image)
            return image

        return apply

    module = ModuleType("torchvision")
    module.__spec__ = None
    module.transforms = SimpleNamespace(  # type: ignore[attr-defined]
        Compose=compose, Resize=resize, RandomCrop=random_crop,
        CenterCrop=lambda size: lambda image: ImageOps.fit(image, (size, size)),
        ToTensor=lambda: lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255,
        Normalize=lambda mean, std: lambda pixels: (pixels - mean[0]) / std[0],
        InterpolationMode=SimpleNamespace(LANCZOS="lanczos"),
    )  # fmt: skip
    return module


def main(words: list[str]) -> None:
    steps, words = int(words[0]), words[1:]
    counting = Counting() if words[0] == "--count" else None
    kind, *rest = words[counting is not None :]
    taken = Taken(counting)
    with counting or nullcontext():
        size = loop_steps(steps, taken, *rest) if kind == "loop" else script_steps(steps, taken, *rest)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({
        "seconds": taken.seconds, "peak_bytes": peak_bytes, "adapter_bytes": size,
        "operations": taken.operations // (steps - 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
