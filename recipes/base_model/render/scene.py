"""Attributes that change between images of a person: pose, expression, light, camera, clothes, place and style."""

from dataclasses import dataclass

import numpy as np

from likeness.photos.styles import STYLES
from recipes.base_model.render.people import Person
from recipes.base_model.render.places import PLACES

# Expression units and their strength.
EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smiling": {
        "mouth-corner-puller": 0.8,
        "mouth-retraction": 0.25,
        "eye-left-slit": 0.2,
        "eye-right-slit": 0.2,
    },
    "laughing": {
        "mouth-corner-puller": 0.95,
        "mouth-open": 0.45,
        "mouth-upward-retraction": 0.45,
        "eye-left-slit": 0.35,
        "eye-right-slit": 0.35,
    },
    "surprised": {
        "mouth-open": 0.6,
        "eyebrows-left-up": 0.9,
        "eyebrows-right-up": 0.9,
        "eye-left-opened-up": 0.7,
        "eye-right-opened-up": 0.7,
    },
    "sad": {"mouth-depression": 0.28, "eyebrows-left-inner-up": 0.7, "eyebrows-right-inner-up": 0.7},
    "angry": {
        "eyebrows-left-down": 0.9,
        "eyebrows-right-down": 0.9,
        "mouth-compression": 0.4,
        "nose-compression": 0.35,
        "eye-left-slit": 0.15,
        "eye-right-slit": 0.15,
    },
}
EXPRESSION_SHARES = (0.38, 0.32, 0.12, 0.07, 0.05, 0.06)
OPEN_MOUTHS = ("laughing", "surprised")

# (mesh, name in captions, for men, for women)
CLOTHES = (
    ("male_elegantsuit01", "suit", 2.0, 0.8),
    ("male_casualsuit02", "sweater", 1.0, 0.4),
    ("male_casualsuit03", "shirt", 1.5, 0.0),
    ("male_casualsuit04", "t-shirt", 1.0, 0.0),
    ("male_casualsuit05", "jacket", 1.2, 0.8),
    ("male_casualsuit06", "t-shirt", 0.8, 0.0),
    ("male_worksuit01", "overalls", 0.5, 0.0),
    ("female_casualsuit01", "t-shirt", 0.0, 1.2),
    ("female_elegantsuit01", "blouse", 0.0, 1.6),
    ("female_sportsuit01", "top", 0.0, 1.0),
    ("female_casualsuit02", "sweater", 0.0, 1.0),
)
CLOTHES_NAMES = {mesh: name for mesh, name, _, _ in CLOTHES}
CLOTHES_RGB = {
    "red": (190, 40, 40),
    "blue": (50, 80, 180),
    "green": (50, 130, 70),
    "black": (34, 34, 38),
    "white": (225, 225, 223),
    "yellow": (225, 190, 60),
    "purple": (120, 60, 150),
    "pink": (225, 130, 160),
    "gray": (125, 125, 130),
    "orange": (220, 120, 40),
    "teal": (40, 140, 140),
    "brown": (110, 75, 50),
}
PHOTO_SHARE = 0.6
# One framing, the aligned headshot of `likeness.photos.align`: what does not vary need not be learnt, and a small
# network trained for hours, not weeks, then has its samples for faces. Eyes and mouth of a photograph are found to
# about a hundredth of its side, hence the jitter.
SCALE_JITTER, SHIFT_JITTER, ROLL_JITTER_DEG = 0.025, 0.008, 1.2  # standard deviations
FRONT_DEG, PROFILE_DEG = 15.0, 40.0  # yaw below the first is 'front', above the second 'profile'


@dataclass(frozen=True)
class Scene:
    style: str
    place: str
    expression: str
    strength: float  # of the expression
    clothes: str  # mesh
    clothes_color: str
    yaw_deg: float  # of the head, to the viewer's right
    pitch_deg: float  # down is positive
    roll_deg: float  # against the body; alignment turns the picture until the head is upright again
    body_yaw_deg: float
    light_azimuth_deg: float  # to the viewer's right
    light_elevation_deg: float
    key: float  # strength of the main light
    ambient: float
    warmth: float  # -1 cool to 1 warm
    field_of_view_deg: float
    scale: float  # of the aligned picture, about 1
    shift: tuple[float, float]  # of the aligned picture, in its sides, to the right and down
    tilt_deg: float  # of the aligned picture, clockwise
    seed: int  # of the background and of the style's grain

    @property
    def view(self) -> str:
        turned = abs(self.yaw_deg)
        return "front" if turned < FRONT_DEG else "three-quarter" if turned < PROFILE_DEG else "profile"


def sample_scene(rng: np.random.Generator, person: Person) -> Scene:
    """The scene of one image: three of five are photos; most heads are turned by less than 35 degrees."""
    style = "photo" if rng.random() < PHOTO_SHARE else str(rng.choice([name for name in STYLES if name != "photo"]))
    yaw = _yaw_deg(rng)
    side = float(rng.choice([-1.0, 1.0]))
    return Scene(
        style=style,
        place=str(rng.choice(list(PLACES))),
        expression=str(rng.choice(list(EXPRESSIONS), p=EXPRESSION_SHARES)),
        strength=float(rng.uniform(0.4, 0.85)),
        clothes=sample_clothes(rng, person),
        clothes_color=str(rng.choice(list(CLOTHES_RGB))),
        yaw_deg=yaw,
        pitch_deg=float(np.clip(rng.normal(0, 5), -12, 12)),
        roll_deg=float(np.clip(rng.normal(0, 2.5), -6, 6)),
        body_yaw_deg=0.45 * yaw + float(rng.normal(0, 6)),
        light_azimuth_deg=side * float(rng.uniform(12, 62)),
        light_elevation_deg=float(rng.uniform(12, 50)),
        key=float(rng.uniform(0.55, 0.82)),
        ambient=float(rng.uniform(0.8, 1.15)),
        warmth=float(rng.uniform(-1, 1)),
        field_of_view_deg=float(rng.uniform(16, 26)),
        scale=float(np.exp(rng.normal(0, SCALE_JITTER))),
        shift=(float(rng.normal(0, SHIFT_JITTER)), float(rng.normal(0, SHIFT_JITTER))),
        tilt_deg=float(rng.normal(0, ROLL_JITTER_DEG)),
        seed=int(rng.integers(1 << 30)),
    )


def sample_clothes(rng: np.random.Generator, person: Person) -> str:
    """A mesh of clothes for the person's gender."""
    weights = np.array([row[2] if person.gender == "man" else row[3] for row in CLOTHES])
    return CLOTHES[int(rng.choice(len(CLOTHES), p=weights / weights.sum()))][0]


def _yaw_deg(rng: np.random.Generator) -> float:
    kind, side = rng.random(), float(rng.choice([-1.0, 1.0]))
    if kind < 0.64:
        return float(np.clip(rng.normal(0, 8), -14.5, 14.5))
    return side * float(rng.uniform(15, 35) if kind < 0.92 else rng.uniform(35, 60))
