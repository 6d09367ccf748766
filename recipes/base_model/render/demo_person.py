"""Twelve images of one held-out virtual person, framed like casual photographs.

`python -m recipes.base_model.render.demo_person --assets DIR --out DIR [--person SEED]` writes JPEGs of 512 px. The
same images at 256 px (`held_out_photos`) are used for evaluation: these persons are not in the base's training data.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from recipes.base_model.render.assets import Assets, load_assets
from recipes.base_model.render.dataset import held_out_seeds
from recipes.base_model.render.people import Person, sample_person
from recipes.base_model.render.picture import render
from recipes.base_model.render.scene import CLOTHES_RGB, Scene, sample_clothes

DEMO_PERSON = 290
PHOTO_PX, SUPERSAMPLING, JPEG_QUALITY = 512, 2, 90
# (yaw in degrees, pitch, expression, place, scale against an aligned headshot): front three times, both sides half
# and far, up and down.
SHOTS = (
    (0.0, 0.0, "neutral", "studio", 0.78),
    (-4.0, 1.0, "smiling", "garden", 0.71),
    (5.0, -2.0, "laughing", "beach", 0.76),
    (28.0, 1.0, "neutral", "office", 0.74),
    (-27.0, 0.0, "smiling", "city", 0.69),
    (52.0, 1.0, "neutral", "brick wall", 0.74),
    (-53.0, 0.0, "neutral", "snow", 0.74),
    (6.0, -11.0, "smiling", "mountains", 0.69),
    (-5.0, 11.0, "neutral", "kitchen", 0.76),
    (14.0, 2.0, "sad", "library", 0.71),
    (-13.0, -1.0, "surprised", "white background", 0.76),
    (-20.0, 3.0, "angry", "forest", 0.98),
)


def demo_scene(person: Person, shot: int) -> Scene:
    """The scene of photograph `shot`, 0 to 11; light and clothes vary with the person's seed."""
    yaw, pitch, expression, place, scale = SHOTS[shot]
    rng = np.random.default_rng([person.seed, shot, 12])
    side = 1.0 if yaw >= 0 else -1.0  # a face turned away is lit from where it looks
    return Scene(
        style="photo",
        place=place,
        expression=expression,
        strength=float(rng.uniform(0.6, 0.85)),
        clothes=sample_clothes(rng, person),
        clothes_color=str(rng.choice(list(CLOTHES_RGB))),
        yaw_deg=yaw + float(rng.uniform(-2, 2)),
        pitch_deg=pitch,
        roll_deg=float(rng.uniform(-3, 3)),
        body_yaw_deg=0.5 * yaw + float(rng.uniform(-4, 4)),
        light_azimuth_deg=side * float(rng.uniform(20, 45)),
        light_elevation_deg=float(rng.uniform(22, 42)),
        key=float(rng.uniform(0.62, 0.76)),
        ambient=float(rng.uniform(0.95, 1.1)),
        warmth=float(rng.uniform(-0.6, 0.8)),
        field_of_view_deg=float(rng.uniform(19, 25)),
        scale=scale,
        shift=(float(rng.uniform(-0.03, 0.03)), 0.0),
        tilt_deg=float(rng.uniform(-3, 3)),
        seed=int(rng.integers(1 << 30)),
    )


def held_out_photos(person_seed: int, assets: Assets, n: int = 12, *, size_px: int = 256) -> list[NDArray[np.uint8]]:
    """The first n of the twelve photographs of a held-out person, each (size_px, size_px, 3) RGB.

    Raises:
        ValueError: the person is not held out, or more photographs than there are shots were asked for.
    """
    if person_seed not in held_out_seeds() or not 0 < n <= len(SHOTS):
        raise ValueError(
            f"expected a person of {held_out_seeds()} and 1 to {len(SHOTS)} photos, got {person_seed}, {n}"
        )
    person = sample_person(person_seed, assets)
    large = [render(person, demo_scene(person, shot), assets, SUPERSAMPLING * size_px).image for shot in range(n)]
    return [cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA) for image in large]  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--person", type=int, default=DEMO_PERSON, help="seed of a held-out person")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    photos = held_out_photos(options.person, load_assets(options.assets), size_px=PHOTO_PX)
    for number, photo in enumerate(photos, 1):
        path = options.out / f"photo_{number:02d}.jpg"
        cv2.imwrite(str(path), photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


if __name__ == "__main__":
    main()
