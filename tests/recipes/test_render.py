"""The renderer of the base model's training images. Needs the MakeHuman asset pack beside the checkout."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("numba", reason="the renderer compiles its kernels with numba")

from likeness.photos.align import EYES_ROW
from likeness.photos.styles import STYLES
from recipes.base_model.prompts import photo_prompts, says_glasses
from recipes.base_model.render import captions, dataset, demo_person, picture
from recipes.base_model.render.assets import Assets, load_assets
from recipes.base_model.render.figure import HAIR, build_figure
from recipes.base_model.render.parts import PARTS
from recipes.base_model.render.people import AGE_GROUPS, ETHNICITIES, Person, name_of, sample_person
from recipes.base_model.render.picture import RenderedImage, attributes, render
from recipes.base_model.render.places import PLACES
from recipes.base_model.render.raster import rasterise
from recipes.base_model.render.scene import Scene, sample_scene

PACK = Path(__file__).resolve().parents[2] / "../shared/makehuman"
SAMPLED = 300


@pytest.fixture(scope="module")
def assets() -> Assets:
    if not (PACK / "assets.npz").exists():
        pytest.skip("the MakeHuman asset pack is not beside the checkout")
    return load_assets(PACK)


@pytest.fixture(scope="module")
def people(assets: Assets) -> list[Person]:
    return [sample_person(seed, assets) for seed in range(1000, 1000 + SAMPLED)]


def front(person: Person, seed: int = 4) -> Scene:
    scene = sample_scene(np.random.default_rng(seed), person)
    upright = replace(scene, yaw_deg=0.0, pitch_deg=0.0, roll_deg=0.0, body_yaw_deg=0.0)
    return replace(upright, style="photo", place="white background", scale=1.0, shift=(0.0, 0.0), tilt_deg=0.0)


@pytest.fixture(scope="module")
def portrait(assets: Assets) -> tuple[Person, RenderedImage]:
    person = next(p for p in (sample_person(s, assets) for s in range(500, 540)) if p.glasses == "none")
    return person, render(person, front(person), assets, 128)


def test_prompts_of_photos_ask_for_glasses_as_often_as_renders_have_them(assets: Assets) -> None:
    asked = photo_prompts(100, assets)
    assert [prompt.text for prompt in photo_prompts(5, assets)] == [prompt.text for prompt in asked[:5]]
    assert {prompt.asked["style"] for prompt in asked} == {"photo"}
    bare = [prompt for prompt in asked if prompt.asked["glasses"] == "none"]
    assert 55 < len(bare) < 80 and not any(says_glasses(prompt.text) for prompt in bare)


def test_same_seed_same_person_and_same_picture(assets: Assets, portrait: tuple[Person, RenderedImage]) -> None:
    person, first = portrait
    again = sample_person(person.seed, assets)
    assert again.hair == person.hair
    assert np.array_equal(again.vertices, person.vertices)
    second = render(again, front(again), assets, 128)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.mask, second.mask)


def test_other_seed_other_face(people: list[Person]) -> None:
    moved = np.abs(people[0].vertices - people[1].vertices).max()
    assert moved > 0.05  # decimetres


def test_only_adult_targets(people: list[Person]) -> None:
    used = {name for person in people for name in person.weights}
    assert not [name for name in used if "child" in name or "baby" in name]
    assert any("young" in name for name in used)  # MakeHuman's word for young adults


def test_people_are_balanced(people: list[Person]) -> None:
    genders = Counter(p.gender for p in people)
    ages = Counter(p.age_group for p in people)
    ethnicities = Counter(p.ethnicity for p in people)
    assert min(genders.values()) > 0.4 * SAMPLED
    assert set(ages) == set(AGE_GROUPS)
    assert min(ages.values()) > 0.25 * SAMPLED
    assert set(ethnicities) == set(ETHNICITIES)
    assert min(ethnicities.values()) > 0.13 * SAMPLED


def test_beards_are_for_men(people: list[Person]) -> None:
    assert {p.beard for p in people if p.gender == "woman"} == {"none"}
    assert len({p.beard for p in people if p.gender == "man"}) == 5


def test_names_are_unique_and_not_the_users_token() -> None:
    names = [name for name in (name_of(seed) for seed in range(25_500)) if name is not None]
    assert len(set(names)) == len(names)
    assert 0.55 * 25_500 < len(names) < 0.65 * 25_500
    assert all(len(name) == 3 and name.isascii() and name.islower() for name in names)
    assert "tok" not in {name_of(seed) for seed in range(100_000)}


def test_three_of_five_are_photos_and_heads_are_mostly_turned_a_little(people: list[Person]) -> None:
    scenes = [sample_scene(np.random.default_rng(p.seed), p) for p in people]
    styles = Counter(s.style for s in scenes)
    assert 0.5 * SAMPLED < styles["photo"] < 0.7 * SAMPLED
    assert set(styles) == set(STYLES)
    turned = np.abs([s.yaw_deg for s in scenes])
    assert turned.max() <= 60 and 0.85 < (turned <= 35).mean() < 0.98
    assert {s.place for s in scenes} == set(PLACES)


@pytest.mark.parametrize("yaw_deg", [-40.0, 0.0, 25.0])
def test_eyes_lie_at_fixed_places_however_the_head_is_turned(yaw_deg: float, assets: Assets) -> None:
    person = sample_person(500, assets)
    scene = replace(front(person), yaw_deg=yaw_deg, pitch_deg=6.0, roll_deg=8.0)
    _, screen = picture.project(build_figure(person, scene, assets), scene, 200)
    right, left = (screen[list(rows), :2].mean(0) for rows in (picture.RIGHT_EYE, picture.LEFT_EYE))
    assert (right + left) / 2 == pytest.approx((100, 200 * EYES_ROW), abs=0.01)
    assert abs(np.degrees(np.arctan2(*(left - right)[::-1]))) < 6  # a nodding, turned head foreshortens one side


def test_parts_lie_where_they_belong(portrait: tuple[Person, RenderedImage]) -> None:
    _, rendered = portrait
    rows, columns = np.indices(rendered.parts.shape) / len(rendered.parts)
    middle = {part: rows[rendered.parts == PARTS.index(part)].mean() for part in ("brow", "eye", "nose", "mouth")}
    assert list(middle) == sorted(middle, key=middle.__getitem__)
    assert middle["eye"] == pytest.approx(EYES_ROW, abs=0.04)
    assert ((rendered.parts == 0) == ~rendered.mask).all()
    assert abs(columns[rendered.parts == PARTS.index("nose")].mean() - 0.5) < 0.03


def test_captions_use_the_vocabulary_only(people: list[Person]) -> None:
    known, rng = set(captions.vocabulary()), np.random.default_rng(0)
    for person in people:
        told = attributes(person, sample_scene(rng, person))
        for _ in range(5):
            words = [word.strip(",") for word in captions.compose(told, rng).split()]
            strange = [word for word in words if word not in known and word != f"<<{person.name}>>"]
            assert not strange


def test_a_name_replaces_what_is_innate(people: list[Person]) -> None:
    person = next(p for p in people if p.name and p.beard == "full beard" and p.hair.mesh)
    told, rng = attributes(person, front(person)), np.random.default_rng(0)
    texts = [captions.compose(told, rng) for _ in range(600)]
    named = [text for text in texts if "<<" in text]
    assert 0.25 * len(texts) < len(named) < 0.45 * len(texts)
    innate = ("beard", "hair", "eyes", *AGE_GROUPS, *ETHNICITIES)
    assert not [text for text in named if any(word in text.replace(",", "").split() for word in innate)]
    assert [text for text in texts if "beard" in text]


def test_every_style_is_said(people: list[Person]) -> None:
    rng = np.random.default_rng(0)
    for style in STYLES:
        told = attributes(people[0], replace(front(people[0]), style=style))
        sayings = [*captions.STYLE_NOUNS[style], style]
        for _ in range(30):
            text = captions.compose(told, rng)
            assert any(saying in text for saying in sayings)


def test_training_never_plans_a_held_out_person(assets: Assets, tmp_path: Path) -> None:
    plan = dataset.Plan(PACK, tmp_path, dataset.training_people(25_000), 5, 1, 128)
    shards = [plan.shard_people(shard) for shard in range(plan.shard_count)]
    planned = [seed for shard in shards for seed in shard]
    assert sorted(planned) == list(range(500, 25_500))
    assert not set(planned) & set(dataset.held_out_seeds())
    assert max(len(shard) for shard in shards) * plan.views <= dataset.SHARD_IMAGES
    assert set(dataset.training_people(500, held_out=True)) == set(dataset.held_out_seeds())


def test_a_shard_is_whole_and_reads_back(assets: Assets, tmp_path: Path) -> None:
    plan = dataset.Plan(PACK, tmp_path, dataset.training_people(2), 3, 1, 64)
    assert dataset.write_shard(plan, 0) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["shard_00000.npz"]
    with np.load(plan.shard_path(0)) as shard:
        assert shard["images"].shape == (6, 64, 64, 3)
        assert shard["images"].dtype == np.uint8
        assert np.unpackbits(shard["masks"], axis=-1).shape == (6, 64, 64)
        told = json.loads(bytes(shard["attributes"]))
        assert sorted(shard["person"]) == [500, 500, 500, 501, 501, 501]
    assert len(told) == 6
    assert all(row["style"] in STYLES for row in told)


def test_a_portrait_has_a_figure_and_a_face(portrait: tuple[Person, RenderedImage]) -> None:
    person, rendered = portrait
    assert rendered.image.shape == (128, 128, 3)
    assert rendered.image.dtype == np.uint8
    assert 0.25 < rendered.mask.mean() < 0.9
    assert not rendered.mask[:4].any()
    assert rendered.mask[64, 64]
    face = rendered.image[52:90, 48:80].astype(float).reshape(-1, 3)
    chroma = face / face.sum(1, keepdims=True)
    expected = np.array(person.tone) / sum(person.tone)
    assert (np.abs(chroma - expected).max(1) < 0.08).mean() > 0.5


@pytest.mark.parametrize("style", STYLES)
def test_every_style_changes_the_picture_but_not_the_mask(
    style: str, assets: Assets, portrait: tuple[Person, RenderedImage]
) -> None:
    person, plain = portrait
    styled = render(person, replace(front(person), style=style), assets, 128)
    difference = np.abs(styled.image.astype(int) - plain.image.astype(int)).mean()
    assert (difference == 0) if style == "photo" else (difference > 8)
    overlap = (styled.mask & plain.mask).sum() / (styled.mask | plain.mask).sum()
    assert overlap > 0.98


def test_the_demo_is_held_out(assets: Assets) -> None:
    assert demo_person.DEMO_PERSON in dataset.held_out_seeds()
    photos = demo_person.held_out_photos(demo_person.DEMO_PERSON, assets, 2, size_px=64)
    assert [photo.shape for photo in photos] == [(64, 64, 3)] * 2
    with pytest.raises(ValueError, match="expected a person"):
        demo_person.held_out_photos(500, assets)


def test_hair_ends_in_shades_not_in_dots(assets: Assets, people: list[Person]) -> None:
    person = next(p for p in people if p.hair.mesh == "long01" and p.glasses == "none")
    figure = build_figure(person, front(person), assets)
    _, screen = picture.project(figure, front(person), 128)
    buffers = rasterise(
        screen,
        figure.triangles,
        figure.uv,
        alpha_texture=figure.alpha_texture,
        textures=assets.textures,
        size_px=128,
    )
    assert (buffers.sheer_rest[..., 0, 2] > 0).sum() > 200
    nearest = buffers.sheer_triangle[..., 0]
    hair = (figure.material[nearest] == HAIR) & (nearest >= 0)
    assert 0.2 < buffers.sheer_rest[hair][:, 0, 2].mean() < 0.9


def test_eyes_are_seen_through_clear_lenses_and_not_through_dark_ones(assets: Assets, people: list[Person]) -> None:
    person = next(p for p in people if p.glasses == "none" and not p.freckles)
    plain, clear, dark = (
        render(replace(person, glasses=kind), front(person), assets, 128)
        for kind in ("none", "round glasses", "sunglasses")
    )
    eye, frame = PARTS.index("eye"), PARTS.index("glasses")
    eyes = (plain.parts == eye) & (clear.parts == eye)
    assert eyes.sum() > 0.6 * (plain.parts == eye).sum()
    lighter = np.abs(clear.image[eyes].astype(int) - plain.image[eyes].astype(int)).mean()
    darker = (plain.image[eyes].astype(int) - dark.image[eyes].astype(int)).mean()
    assert lighter < 25
    assert darker > 40
    assert (dark.parts[eyes] == frame).all()
    assert (clear.parts == frame).sum() > 100


def test_light_on_skin_is_smooth(assets: Assets, people: list[Person]) -> None:
    """Shadows end softly and skin has no stipple: neighbours on the cheek differ by a few percent at the most."""
    person = next(p for p in people if p.gender == "woman" and p.glasses == "none" and not p.freckles and p.age < 0.3)
    scene = replace(front(person), light_azimuth_deg=60.0, light_elevation_deg=45.0)
    light = render(person, scene, assets, 256)
    skin = cv2.erode((light.parts == PARTS.index("skin")).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    gray = cv2.cvtColor(light.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    rough = np.abs(gray - cv2.medianBlur(gray, 3))[skin]
    assert skin.sum() > 3000
    assert np.percentile(rough, 99) < 10
    assert rough.mean() < 2.5
