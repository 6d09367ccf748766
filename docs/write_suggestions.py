"""Make the pictures of the studio's suggestions with the built-in base: python docs/write_suggestions.py [--sheet FILE]

Run it after a change of the base's weights. `--sheet` writes a row of candidates for each suggestion instead, with
seeds from 0; the chosen ones stand in SEEDS. The pictures show nobody in particular.
"""

import argparse
import re
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from likeness.config import Settings
from likeness.service import build
from likeness.types import JPEG, ImageRequest

FOLDER = Path(__file__).parents[1] / "src/likeness/web/suggestions"
SAMPLE = re.compile(r'file: "(?P<file>[^"]+)".*prompt: "(?P<prompt>[^"]+)"')
PEOPLE = ("young woman with brown hair", "man with a beard", "woman with black hair", "young man with blonde hair")
SEEDS = {
    "mountains.jpg": 4, "oil.jpg": 4, "space.jpg": 1, "comic.jpg": 2, "beach.jpg": 6, "popart.jpg": 4,
    "library.jpg": 4, "sketch.jpg": 1, "neon.jpg": 4, "watercolor.jpg": 4, "bronze.jpg": 3, "marble.jpg": 3,
}  # fmt: skip
CANDIDATES = 8


def prompt_about(person: str, prompt: str) -> str:
    is_described = " smiling {me}" in prompt  # has its article
    return prompt.replace("{me}", person if is_described else f"a {person}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="where the candidates go")
    args = parser.parse_args()
    samples = [match.groupdict() for match in SAMPLE.finditer((FOLDER / "samples.js").read_text())]
    prompts = [prompt_about(PEOPLE[k % len(PEOPLE)], one["prompt"]) for k, one in enumerate(samples)]
    seeds = [range(CANDIDATES) if args.sheet else [SEEDS[one["file"]]] for one in samples]
    requests = [ImageRequest(prompt, seed=seed) for prompt, some in zip(prompts, seeds, strict=True) for seed in some]
    with tempfile.TemporaryDirectory() as home:
        likeness = build(Settings(home=Path(home)))
        try:
            made = likeness.generate(requests)
            if args.sheet:
                tiles = np.stack([one.image for one in made])  # (samples * seeds, H, W, 3)
                side = tiles.shape[1]
                rows = tiles.reshape(len(samples), CANDIDATES, side, side, 3).transpose(0, 2, 1, 3, 4)
                Image.fromarray(rows.reshape(len(samples) * side, CANDIDATES * side, 3)).save(args.sheet)
            else:
                for sample, image in zip(samples, made, strict=True):
                    (FOLDER / sample["file"]).write_bytes(likeness.encode(image, JPEG))
        finally:
            likeness.close()


if __name__ == "__main__":
    main()
