"""Contact sheet: `python -m recipes.base_model.render.sheet --assets DIR OUT.png`. One row per person."""

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from likeness.photos.styles import STYLES
from recipes.base_model.render.assets import load_assets
from recipes.base_model.render.people import sample_person
from recipes.base_model.render.picture import render
from recipes.base_model.render.scene import sample_scene


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--people", type=int, default=6)
    parser.add_argument("--first", type=int, default=500, help="seed of the first person")
    parser.add_argument("--columns", default=",".join(STYLES), help="styles, separated by commas")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    people = range(options.first, options.first + options.people)
    grid = sheet(options.assets, people, options.columns.split(","), size_px=options.size)
    cv2.imwrite(str(options.out), grid[..., ::-1])


if __name__ == "__main__":
    main()
