"""Renders one person in one scene: mesh, camera, shadow map, shading, place and style."""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from likeness.photos.align import EYES_ROW, alignment
from likeness.photos.styles import STYLES
from recipes.base_model.render import albedo, anatomy, lighting, shade
from recipes.base_model.render.assets import Assets
from recipes.base_model.render.figure import BROW, EYE, LASH, LENS, Figure, build_figure
from recipes.base_model.render.mesh import vertex_normals
from recipes.base_model.render.parts import part_map
from recipes.base_model.render.people import Person
from recipes.base_model.render.places import PLACES, defocused, noise
from recipes.base_model.render.raster import Buffers, rasterise
from recipes.base_model.render.scene import CLOTHES_NAMES, CLOTHES_RGB, Scene

Array = NDArray[np.float32]
CAMERA_WIDTH_DM = 3.2  # of what the camera sees at the head's distance, before the picture is aligned
# Vertices of the base mesh: the middle of the upper and of the lower lid, and the corners of the mouth. Where the face
# mesh sees an eye lies on the skin, not in the eyeball.
RIGHT_EYE, LEFT_EYE, MOUTH_CORNERS = (3, 42), (6787, 6826), (424, 7187)
GRAY_CARD = 0.4  # brightness of skin that is exposed as it is, linear
KEY, AROUND = 1.30, 0.19  # strength of the main light and of the light from all around
DIRECTIONS = np.array([1.15, 0.7, 0.9, 0.9, 1.0])  # light from above, below, left, right, front
BROW_SHADES = {"white": 0.45, "gray": 0.5, "blonde": 0.35, "light blonde": 0.3, "red": 0.5}  # brows are darker
SUBSTANCES = {"bronze statue": albedo.BRONZE, "marble statue": albedo.MARBLE}
TWO_TONE_CLOTHES = ("suit", "overalls")
# beard -> column of the anatomical fields, opacity
BEARD_LOOKS = {
    "none": (anatomy.FULL_BEARD, 0.0),
    "stubble": (anatomy.FULL_BEARD, 0.28),
    "full beard": (anatomy.FULL_BEARD, 0.88),
    "goatee": (anatomy.GOATEE, 0.86),
    "mustache": (anatomy.MOUSTACHE, 0.86),
}
FRAMES_RGB = ((13, 13, 15), (13, 13, 15), (90, 52, 28), (120, 122, 126), (110, 22, 28))  # of glasses
SKIN_BALANCE = (1.0, 0.91, 1.0)  # the tones are those of renders with yellower light
FILM_WHITE = 2.0  # square root of the radiance that a picture can hold
SHAVEN = 0.03  # a shaven man's shadow of a beard


@dataclass(frozen=True, eq=False)
class RenderedImage:
    image: NDArray[np.uint8]  # (S, S, 3) RGB
    mask: NDArray[np.bool_]  # (S, S) the figure
    parts: NDArray[np.uint8]  # (S, S) places in parts.PARTS
    attributes: dict[str, Any]  # what captions.py speaks of


def render(person: Person, scene: Scene, assets: Assets, size_px: int = 256) -> RenderedImage:
    """One picture, deterministic in its arguments. About 45 ms at 256 px."""
    figure = build_figure(person, scene, assets)
    eye, screen = project(figure, scene, size_px)
    buffers = rasterise(
        screen,
        figure.triangles,
        figure.uv,
        alpha_texture=figure.alpha_texture,
        textures=assets.textures,
        size_px=size_px,
    )
    rng = np.random.default_rng([scene.seed, 3])
    place = _place(scene.place, rng, size_px)
    light = _light(figure, scene, assets, tone=person.tone, eye=eye, place=place)
    radiance, coverage = shade.shade(buffers, _surface(figure, assets), _look(person, scene), light)
    canvas = place + (_developed(radiance) - place) * coverage[..., None]
    mask = coverage > 0.5
    image = STYLES[scene.style]((np.clip(canvas, 0, 1) * 255).astype(np.uint8), mask, rng)
    beard_field, beard_amount = BEARD_LOOKS[person.beard]
    parts = part_map(figure, buffers, assets, beard_field=beard_field if beard_amount > 0.5 else None)
    return RenderedImage(image, mask, parts, attributes(person, scene))


def _developed(radiance: Array) -> Array:
    """Display values in [0, 1] of linear radiance (S, S, 3): a film's curve, nearly straight with a long shoulder."""
    index = np.sqrt(np.maximum(radiance, 0)) * (len(FILM) / FILM_WHITE)
    return FILM[np.minimum(index, len(FILM) - 1).astype(np.int32)]


def _film_curve() -> Array:
    exposed = 1.04 * np.linspace(0, FILM_WHITE, 2048)
    shown = exposed / (1 + (exposed / 1.04) ** 4.5) ** (1 / 4.5)
    return np.clip(shown - 0.03 * np.sin(2 * np.pi * np.minimum(shown, 1)) * (1 - shown), 0, 1).astype(np.float32)


def _place(name: str, rng: np.random.Generator, size_px: int) -> Array:
    """The place as the camera sees it, (S, S, 3) in [0, 1]: unevenly lit and out of focus."""
    painted = PLACES[name].paint(rng, size_px) * (1 + 0.025 * noise(rng, size_px, 40 * size_px / 256))[..., None]
    return np.clip(defocused(painted, PLACES[name].defocus * rng.uniform(0.75, 1.25)), 0, 1)


def attributes(person: Person, scene: Scene) -> dict[str, Any]:
    """The attributes of the image, in the words of captions.py."""
    bald = person.hair.name == "bald"
    return {
        "style": scene.style,
        "place": scene.place,
        "gender": person.gender,
        "age": person.age_group,
        "ethnicity": person.ethnicity,
        "hair": person.hair.name,
        "hair_color": None if bald else person.hair.color,
        "beard": person.beard,
        "glasses": person.glasses,
        "clothes": CLOTHES_NAMES[scene.clothes],
        "clothes_color": scene.clothes_color,
        "expression": scene.expression,
        "view": scene.view,
        "eye_color": person.eye_color,
        "lipstick": person.lipstick,
        "name": person.name,
    }


def project(figure: Figure, scene: Scene, size_px: int) -> tuple[Array, Array]:
    """Camera position (3,) and screen points (V, 3) of the aligned picture: x px, y px, distance in decimetres."""
    distance = CAMERA_WIDTH_DM / 2 / math.tan(math.radians(scene.field_of_view_deg) / 2)
    relative = figure.vertices - figure.head_centre
    depth = distance - relative[:, 2]
    seen = relative[:, :2] * np.array([1, -1], np.float32) * (distance / depth)[:, None]  # decimetres at the head
    right, left, mouth = (seen[list(rows)].mean(0) for rows in (RIGHT_EYE, LEFT_EYE, MOUTH_CORNERS))
    across = alignment(right, left, mouth)
    angle = math.radians(scene.tilt_deg)
    turn = scene.scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    eyes = np.array([0.5, EYES_ROW])
    placed = (seen @ across[:, :2].T + across[:, 2] - eyes) @ turn.T + eyes + scene.shift  # in sides
    eye = figure.head_centre + np.array([0, 0, distance])
    return eye.astype(np.float32), np.column_stack([placed * size_px, depth]).astype(np.float32)


def _surface(figure: Figure, assets: Assets) -> shade.Surface:
    return shade.Surface(
        vertices=figure.vertices,
        normals=vertex_normals(figure.vertices, figure.triangles),
        triangles=figure.triangles,
        uv=figure.uv,
        material=figure.material,
        color_texture=figure.color_texture,
        hollow=figure.hollow,
        fields=assets.fields,
        textures=assets.textures,
        noise=assets.noise,
    )


def _look(person: Person, scene: Scene) -> albedo.Look:
    tone, hair = _linear(person.tone), _linear(person.hair.rgb)
    tone = (0.93 * tone + 0.07 * tone.mean()) * np.array(SKIN_BALANCE, np.float32)
    beard_field, beard_amount = BEARD_LOOKS[person.beard]
    if person.gender == "man" and person.beard == "none":
        beard_amount = SHAVEN
    brow = hair * BROW_SHADES.get(person.hair.color, 0.8) + 0.006
    lips = _linear((0.70, 0.25, 0.28)) if person.lipstick else tone * np.array([0.82, 0.42, 0.42], np.float32)
    return albedo.Look(
        substance=SUBSTANCES.get(scene.style, albedo.FLESH),
        tone=_vector(tone),
        lips=_vector(lips),
        hair=_vector(hair),
        brow=_vector(brow),
        cloth=_vector(_linear(np.array(CLOTHES_RGB[scene.clothes_color]) / 255)),
        frame=_vector(_linear(np.array(FRAMES_RGB[person.seed % len(FRAMES_RGB)]) / 255)),
        lip_amount=0.45 + 0.4 * person.lip_color,
        beard_field=beard_field,
        beard_amount=beard_amount,
        scalp_amount={"bald": 0.0, "buzz cut": 0.72}.get(person.hair.name, 0.85),
        blush=person.blush,
        blotches=person.blotches,
        age=person.age,
        freckles=float(person.freckles),
        brown_eyes=float(person.eye_color == "brown"),
        two_tone=float(CLOTHES_NAMES[scene.clothes] in TWO_TONE_CLOTHES),
        dark_lenses=float(person.glasses == "sunglasses"),
        phase=(person.seed % 97 * 0.37, person.seed % 89 * 0.37, person.seed % 83 * 0.37),
    )


def _linear(display: Any) -> Array:
    """Linear RGB (3,) of display values in [0, 1]; a square is close enough to the sRGB curve."""
    return np.square(np.asarray(display, np.float32))


def _vector(values: NDArray) -> albedo.Vector:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _light(
    figure: Figure, scene: Scene, assets: Assets, *, tone: albedo.Vector, eye: Array, place: Array
) -> lighting.Light:
    """Key light as the scene says, light from all around as the place (S, S, 3) looks."""
    tint = PLACES[scene.place]
    azimuth, elevation = math.radians(scene.light_azimuth_deg), math.radians(scene.light_elevation_deg)
    flat = math.cos(elevation)
    direction = np.array([math.sin(azimuth) * flat, math.sin(elevation), math.cos(azimuth) * flat], np.float32)
    right = np.cross([0, 1, 0], direction)
    right /= np.linalg.norm(right)
    frame = np.stack([right, np.cross(direction, right), direction]).astype(np.float32)
    exposure = (GRAY_CARD / _linear(tone).mean()) ** 0.15  # a camera meters the face
    around = exposure * AROUND * scene.ambient * np.array(tint.ambient) * _light_of(place)
    above, below, left, right_, front = (_vector(color) for color in around)
    warm = np.array([1 + 0.06 * scene.warmth, 1, 1 - 0.08 * scene.warmth])
    return lighting.Light(
        direction=_vector(direction),
        frame=(_vector(frame[0]), _vector(frame[1]), _vector(frame[2])),
        key=_vector(exposure * KEY * warm * scene.key * np.array(tint.key)),
        around=(above, below, left, right_, front),
        shadow=_shadow_map(figure, frame, assets).depth,
        centre=_vector(figure.head_centre),
        eye=_vector(eye),
    )


def _light_of(place: Array) -> Array:
    """Light from a place (S, S, 3) on a figure: from above, below, left, right and the front, (5, 3), about 1."""
    small = cv2.resize(place, (12, 12), interpolation=cv2.INTER_AREA) ** 2
    sides = np.stack(
        [part.reshape(-1, 3).mean(0) for part in (small[:4], small[8:], small[:, :3], small[:, 9:], small)]
    )
    whole = sides[4].mean() + 1e-3
    bright = (sides.mean(1, keepdims=True) / whole) ** 0.5
    hue = sides / (sides.mean(1, keepdims=True) + 1e-3)
    return np.asarray((0.8 + 0.2 * hue) * bright * DIRECTIONS[:, None] * np.clip(whole / 0.3, 0.3, 1.6) ** 0.2)


def _shadow_map(figure: Figure, frame: Array, assets: Assets) -> Buffers:
    """Distances from the light to the figure, without small parts, whose shadows would be noise."""
    seen = (figure.vertices - figure.head_centre) @ frame.T
    size, width = lighting.SHADOW_PX, lighting.SHADOW_WIDTH_DM
    x, y = (seen[:, 0] / width + 0.5) * size, (0.5 - seen[:, 1] / width) * size
    screen = np.stack([x, y, lighting.SHADOW_DEPTH_DM - seen[:, 2]], 1).astype(np.float32)
    casts = ~np.isin(figure.material, (EYE, BROW, LASH, LENS))
    return rasterise(
        screen,
        figure.triangles[casts],
        figure.uv[casts],
        alpha_texture=figure.alpha_texture[casts],
        textures=assets.textures,
        size_px=size,
        layers=0,
    )


FILM = _film_curve()
