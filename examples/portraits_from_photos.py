"""Photographs in, portraits out: python examples/portraits_from_photos.py PHOTOS... (or those of the demo)"""

import sys
from contextlib import closing
from pathlib import Path

from likeness.config import settings_from
from likeness.photos import read_photos
from likeness.service import build
from likeness.service.example import example_photos
from likeness.service.image_files import save_all
from likeness.training.recipe import FineTuneOrder, recipe_named
from likeness.types import ImageRequest, Subject, blend_of


def main(paths: list[Path], *, recipe: str = "fast", steps: int | None = None) -> list[Path]:
    order = FineTuneOrder(
        Subject("example", class_noun="man"), recipe_named(recipe, **({"steps": steps} if steps else {})), replace=True
    )
    prompts = ["photo of {me} on a beach", "a pencil sketch of {me}"]
    with closing(build(settings_from())) as likeness:
        tuned = likeness.train(read_photos(paths), order)
        print(f"trained on {tuned.card.photos} photographs in {tuned.card.seconds:.0f} s")
        images = likeness.generate([ImageRequest(prompt, adapters=blend_of("example"), seed=7) for prompt in prompts])
        return list(save_all(images, Path("portraits"), likeness.encode))


if __name__ == "__main__":
    for path in main([Path(argument) for argument in sys.argv[1:]] or [example_photos()]):
        print(path)
