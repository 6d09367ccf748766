"""A virtual person, determined by a seed.

Adults only: the pack's child targets are never used, and age 0 means about 22 years. Gender, age group and
ethnicity are balanced. Shapes are MakeHuman morph-target mixtures; the attributes here are the same in all images of
a person; scene.py has those that change between images.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.base_model.render import anatomy
from recipes.base_model.render.assets import Assets
from recipes.base_model.render.mesh import vertex_normals

GENDERS = ("man", "woman")
ETHNICITIES = ("european", "asian", "african", "latin", "indian")
AGE_GROUPS = ("young", "middle-aged", "old")
BEARDS = ("none", "stubble", "full beard", "goatee", "mustache")
GLASSES = ("none", "round glasses", "rectangular glasses", "sunglasses")
EYE_COLORS = ("blue", "brown", "green", "gray")

# Mixture of MakeHuman's three races, and the race whose expression targets fit best.
RACE_MIX = {
    "european": (1.0, 0.0, 0.0),
    "asian": (0.0, 1.0, 0.0),
    "african": (0.0, 0.0, 1.0),
    "latin": (0.55, 0.3, 0.15),
    "indian": (0.6, 0.15, 0.25),
}
RACES = ("caucasian", "asian", "african")

SKIN_TONES = {
    "european": ((236, 196, 172), (226, 180, 152), (214, 164, 134), (240, 205, 186)),
    "asian": ((226, 184, 148), (216, 174, 136), (206, 160, 122)),
    "african": ((142, 98, 72), (116, 78, 58), (98, 66, 50), (160, 114, 86)),
    "latin": ((208, 160, 126), (194, 144, 110), (182, 132, 98)),
    "indian": ((178, 128, 92), (160, 112, 80), (192, 142, 104)),
}
HAIR_RGB = {
    "black": (30, 26, 26),
    "dark brown": (60, 42, 31),
    "brown": (98, 66, 44),
    "auburn": (122, 58, 36),
    "red": (168, 76, 36),
    "blonde": (206, 170, 112),
    "light blonde": (228, 204, 156),
    "gray": (142, 142, 142),
    "white": (204, 204, 200),
}
EYE_TEXTURES = {
    "blue": ("blue_eye", "deepblue_eye", "lightblue_eye"),
    "brown": ("brown_eye", "brownlight_eye"),
    "green": ("green_eye", "bluegreen_eye"),
    "gray": ("grey_eye", "ice_eye"),
}
# (mesh or None, name in captions, weight for men, weight for women, may be curly)
HAIR_CUTS = (
    ("short01", "short", 3.0, 0.5, False),
    ("short02", "short", 2.5, 0.3, False),
    ("short03", "short", 2.0, 1.0, False),
    ("short04", "short", 2.5, 0.3, False),
    ("short02", "curly", 1.2, 0.6, True),
    (None, "buzz cut", 1.6, 0.15, False),
    (None, "bald", 1.3, 0.0, False),
    ("afro01", "afro", 0.3, 0.3, True),
    ("long01", "long", 0.35, 3.5, False),
    ("long01", "curly", 0.15, 1.8, True),
    ("bob02", "bob", 0.0, 1.5, False),
    ("bob01", "bob", 0.0, 1.6, False),
    ("braid01", "braided", 0.0, 2.0, False),
    ("ponytail01", "ponytail", 0.0, 2.4, False),
)
DETAIL_SPREAD = {
    "nose": 0.25,
    "mouth": 0.20,
    "eyes": 0.20,
    "cheek": 0.33,
    "chin": 0.30,
    "forehead": 0.2,
    "eyebrows": 0.4,
    "ears": 0.3,
    "head": 0.15,
    "neck": 0.15,
}
OPPOSITES = (
    ("decr", "incr"),
    ("down", "up"),
    ("in", "out"),
    ("backward", "forward"),
    ("compress", "uncompress"),
    ("concave", "convex"),
)
UNUSED_DETAILS = (
    *("neck-trans", "neck-back", "mouth-trans-in", "mouth-trans-out", "nose-trans-in", "nose-trans-out"),
    *("shape-pointed", "ear-trans", "ear-wing", "laugh", "head-trans", "head-age", "head-scale-depth", "neck-double"),
)
HEAD_SHAPES = ("oval", "round", "square", "rectangular", "diamond", "triangular", "invertedtriangular")
# Leanings that keep random faces pleasant: corners of the mouth up, softer features for women.
LEANINGS = {
    "man": {("mouth", "mouth-angles"): 0.12, ("chin", "chin-width"): 0.1},
    "woman": {
        ("mouth", "mouth-angles"): 0.15,
        ("eyes", "eye-scale"): 0.25,
        ("mouth", "mouth-lowerlip-volume"): 0.2,
        ("nose", "nose-scale-horiz"): -0.2,
        ("nose", "nose-volume"): -0.15,
        ("chin", "chin-width"): -0.2,
        ("chin", "chin-bones"): -0.25,
        ("eyebrows", "eyebrows-trans"): 0.35,
        ("neck", "neck-scale-horiz"): -0.25,
    },
}
NAMED_SHARE = 0.6
LETTERS = 26


@dataclass(frozen=True)
class Hair:
    mesh: str | None  # None: buzz cut or bald
    name: str  # as captions say it
    color: str
    rgb: tuple[float, float, float]
    volume: float  # 1 is the mesh as it is
    length: float  # of what hangs below the chin
    curl: float  # amplitude, decimetres
    mirrored: bool  # parting on the other side


@dataclass(frozen=True, eq=False)
class Person:
    seed: int
    name: str | None  # three letters, or none
    gender: str
    ethnicity: str
    age: float  # 0 (about 22 years) to 1 (about 80)
    weights: dict[str, float]  # morph targets
    vertices: NDArray[np.float32]  # (V, 3) neutral, decimetres
    tone: tuple[float, float, float]  # skin, linear RGB in [0, 1]
    hair: Hair
    beard: str
    glasses: str
    eye_color: str
    eye_texture: str
    brow: int  # 1 to 12
    lip_color: float
    lipstick: bool
    freckles: bool
    blush: float
    blotches: float

    @property
    def age_group(self) -> str:
        return AGE_GROUPS[min(2, int(self.age * 3))]


def sample_person(seed: int, assets: Assets) -> Person:
    """The person of this seed, seed >= 0. Deterministic; costs about 10 ms."""
    rng = np.random.default_rng([seed, 20])
    gender = GENDERS[int(rng.integers(2))]
    ethnicity = ETHNICITIES[int(rng.integers(len(ETHNICITIES)))]
    age = float(rng.uniform(0, 1))
    weights = _shape(rng, gender, ethnicity, age, assets)
    beard = _choice(rng, BEARDS, (0.48, 0.16, 0.18, 0.09, 0.09)) if gender == "man" else "none"
    eye_color = _choice(rng, EYE_COLORS, (0.35, 0.3, 0.2, 0.15)) if ethnicity == "european" else "brown"
    eye_textures = EYE_TEXTURES[eye_color]
    tones = SKIN_TONES[ethnicity]
    tone = np.array(tones[rng.integers(len(tones))]) * rng.uniform(0.94, 1.04) + rng.normal(0, 3, 3)
    lipstick = bool(gender == "woman" and rng.random() < 0.35)
    return Person(
        seed=seed,
        name=name_of(seed),
        gender=gender,
        ethnicity=ethnicity,
        age=age,
        weights=weights,
        vertices=_neutral(weights, beard, assets),
        tone=_rgb(tone),
        hair=_hair(rng, gender, ethnicity, age),
        beard=beard,
        glasses=_choice(rng, GLASSES, (0.68, 0.12, 0.14, 0.06)),
        eye_color=eye_color,
        eye_texture=eye_textures[int(rng.integers(len(eye_textures)))],
        brow=int(rng.integers(1, 13)),
        lip_color=float(rng.uniform(0, 0.3) if gender == "man" else rng.uniform(0.2, 0.9)),
        lipstick=lipstick,
        freckles=bool(ethnicity == "european" and rng.random() < 0.15),
        blush=float(rng.uniform(0.1, 0.5)),
        blotches=float(rng.uniform(0.2, 0.8)),
    )


def name_of(seed: int) -> str | None:
    """Three letters for about 60 % of persons, each used once among the first 29,000 seeds; never 'tok'."""
    rank = int(np.floor((seed + 1) * NAMED_SHARE))
    if rank == int(np.floor(seed * NAMED_SHARE)):
        return None
    code = (rank * 7919 + 4001) % LETTERS**3  # 7919 is coprime to 26^3, so ranks below 26^3 never meet
    letters = "".join(chr(ord("a") + code // LETTERS**power % LETTERS) for power in (2, 1, 0))
    return None if letters == "tok" else letters


def apply_targets(vertices: NDArray[np.float32], weights: dict[str, float], assets: Assets) -> NDArray[np.float32]:
    """A copy of `vertices` (V, 3) moved by the weighted morph targets; names that the pack lacks move nothing."""
    moved = vertices.copy()
    for name, weight in weights.items():
        if abs(weight) > 1e-3 and name in assets.targets:
            index, delta = assets.targets[name]
            moved[index] += delta * np.float32(weight)
    return moved


def _neutral(weights: dict[str, float], beard: str, assets: Assets) -> NDArray[np.float32]:
    vertices = apply_targets(assets.vertices, weights, assets)
    if beard == "full beard":  # a beard has thickness
        normals = vertex_normals(vertices, assets.faces)
        vertices += normals * (0.07 * assets.fields[:, anatomy.FULL_BEARD])[:, None]
    return vertices


def _shape(rng: np.random.Generator, gender: str, ethnicity: str, age: float, assets: Assets) -> dict[str, float]:
    weights = _macro_weights(rng, gender, ethnicity, age)
    for (part, stem), (low, high) in _detail_pairs(assets).items():
        value = rng.normal(0, DETAIL_SPREAD[part]) + LEANINGS[gender].get((part, stem), 0.0)
        value = float(np.clip(value, -0.75, 0.75))
        if "bag" in stem:
            value = 0.4 * value + 0.2 * age
        for name in low if value < 0 else high:
            weights[name] = abs(value)
    weights[f"head/head-{HEAD_SHAPES[rng.integers(len(HEAD_SHAPES))]}"] = float(rng.uniform(0, 0.5))
    return weights


def _macro_weights(rng: np.random.Generator, gender: str, ethnicity: str, age: float) -> dict[str, float]:
    """MakeHuman's macro targets: products of race, gender, age, muscle and weight shares."""
    race = np.array(RACE_MIX[ethnicity]) * 0.82 + 0.18 * rng.dirichlet([1, 1, 1])
    main = 1.0 - min(0.2, abs(rng.normal(0, 0.05)))
    genders = {"male": main, "female": 1 - main} if gender == "man" else {"male": 1 - main, "female": main}
    oldness = 0.9 * age**1.3
    ages = {"young": 1 - oldness, "old": oldness}
    muscle = _three_way("muscle", float(rng.uniform(0.1, 0.85 if gender == "man" else 0.5)))
    weight = _three_way("weight", float(rng.beta(2.2, 3.0)))
    weights: dict[str, float] = {}
    for gender_key, gender_share in genders.items():
        for age_key, age_share in ages.items():
            for race_key, race_share in zip(RACES, race, strict=True):
                weights[f"macrodetails/{race_key}-{gender_key}-{age_key}"] = race_share * gender_share * age_share
            for muscle_key, muscle_share in muscle.items():
                for weight_key, weight_share in weight.items():
                    name = f"macrodetails/universal-{gender_key}-{age_key}-{muscle_key}-{weight_key}"
                    weights[name] = gender_share * age_share * muscle_share * weight_share
    return {name: float(share) for name, share in weights.items()}


def _three_way(noun: str, value: float) -> dict[str, float]:
    shares = (max(0.0, 1 - 2 * value), 1 - abs(2 * value - 1), max(0.0, 2 * value - 1))
    return {f"{degree}{noun}": share for degree, share in zip(("min", "average", "max"), shares, strict=True)}


@functools.cache
def _detail_pairs(assets: Assets) -> dict[tuple[str, str], tuple[list[str], list[str]]]:
    """Opposite targets by (part, stem), left and right tied: {('eyes', 'eye-scale'): ([...decr], [...incr])}."""
    pairs: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for name in sorted(assets.targets):
        part, _, leaf = name.partition("/")
        if part not in DETAIL_SPREAD or any(mark in leaf for mark in UNUSED_DETAILS):
            continue
        stem = leaf.removeprefix("l-").removeprefix("r-")
        for low, high in OPPOSITES:
            if stem.endswith("-" + low):
                pairs.setdefault((part, stem[: -len(low) - 1]), ([], []))[0].append(name)
            elif stem.endswith("-" + high):
                pairs.setdefault((part, stem[: -len(high) - 1]), ([], []))[1].append(name)
    return pairs


def _hair(rng: np.random.Generator, gender: str, ethnicity: str, age: float) -> Hair:
    weights = np.array([cut[2] if gender == "man" else cut[3] for cut in HAIR_CUTS])
    if ethnicity == "african":
        weights *= [6.0 if cut[4] else 2.5 if cut[0] is None else 0.8 for cut in HAIR_CUTS]
    mesh, name, _, _, curly = HAIR_CUTS[rng.choice(len(HAIR_CUTS), p=weights / weights.sum())]
    color = _hair_color(rng, ethnicity, age)
    rgb = np.array(HAIR_RGB[color]) * rng.uniform(0.85, 1.15) + rng.normal(0, 3) * np.array([1.0, 0.3, -0.6])
    return Hair(
        mesh=mesh,
        name=name,
        color=color,
        rgb=_rgb(rgb),
        volume=float(rng.uniform(1.0, 1.10)),
        length=float(rng.uniform(0.45, 1.1)),
        curl=float(rng.uniform(0.05, 0.09)) if curly else float(rng.choice([0.0, 0.02, 0.035])),
        mirrored=bool(rng.random() < 0.5),
    )


def _hair_color(rng: np.random.Generator, ethnicity: str, age: float) -> str:
    if age > 0.6 and rng.random() < 0.8:
        return "gray" if rng.random() < 0.5 else "white"
    if ethnicity == "european":
        return list(HAIR_RGB)[int(rng.integers(7))]
    return _choice(rng, ("black", "dark brown", "brown"), (0.6, 0.28, 0.12))


def _choice(rng: np.random.Generator, items: tuple[str, ...], shares: tuple[float, ...]) -> str:
    return items[int(rng.choice(len(items), p=shares))]


def _rgb(value: NDArray) -> tuple[float, float, float]:
    red, green, blue = (float(c) for c in np.clip(value, 12, 250) / 255)
    return red, green, blue
