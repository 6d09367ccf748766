"""Contact sheet: `python -m recipes.base_model.render.sheet --assets DIR OUT.png`. One row per person.

With `--tones` a row has one person in one scene with skins of six tones, as in `tests/photos/skin_tones.jpg`.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from likeness.photos.styles import STYLES
from recipes.base_model.render.assets import load_assets
from recipes.base_model.render.demo_person import demo_scene
from recipes.base_model.render.people import SKIN_TONES, sample_person
from recipes.base_model.render.picture import render
from recipes.base_model.render.scene import sample_scene

TONES = (("european", 3), ("asian", 1), ("latin", 2), ("indian", 1), ("african", 0), ("african", 2))  # in SKIN_TONES
TONES_OF = {36: 0, 102: 3, 116: 6, 283: 9}  # a European woman, an Asian man, an African woman, an Indian man


def sheet(assets_folder: Path, people: range, columns: list[str], size_px: int = 128) -> np.ndarray:
    """A grid (people * size, columns * size, 3); a column is a style, or '' for whatever is drawn."""
    assets = load_assets(assets_folder)
    rows = []
    for seed in people:
        person, rng, row = sample_person(seed, assets), np.random.default_rng([seed, 5]), []
        for style in columns:
            scene = sample_scene(rng, person)
            picture = render(person, replace(scene, style=style or scene.style), assets, max(256, 2 * size_px))
            row.append(cv2.resize(picture.image, (size_px, size_px), interpolation=cv2.INTER_AREA))
        rows.append(np.hstack(row))
    return np.vstack(rows)


def tones(assets_folder: Path, people: Mapping[int, int] = TONES_OF, *, size_px: int = 160) -> np.ndarray:
    """A grid (people * size, tones * size, 3): everything but the tone of the skin is the same in a row.

    Args:
        people: seed -> photograph of `demo_person.SHOTS`.
    """
    assets = load_assets(assets_folder)
    rows = []
    for seed, shot in people.items():
        person, row = sample_person(seed, assets), []
        for ethnicity, number in TONES:
            red, green, blue = (value / 255 for value in SKIN_TONES[ethnicity][number])
            image = render(replace(person, tone=(red, green, blue)), demo_scene(person, shot), assets, 512).image
            row.append(cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA))
        rows.append(np.hstack(row))
    return np.vstack(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--people", type=int, default=6)
    parser.add_argument("--first", type=int, default=500, help="seed of the first person")
    parser.add_argument("--columns", default=",".join(STYLES), help="styles, separated by commas")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--tones", action="store_true", help="skins of six tones instead of styles")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    people = range(options.first, options.first + options.people)
    if options.tones:
        grid = tones(options.assets)
    else:
        grid = sheet(options.assets, people, options.columns.split(","), size_px=options.size)
    cv2.imwrite(str(options.out), grid[..., ::-1])


if __name__ == "__main__":
    main()
