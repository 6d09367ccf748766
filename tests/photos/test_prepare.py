"""Frames, masks and backgrounds of prepared photographs."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from likeness.errors import UsageError
from likeness.photos import MediaPipeFaces, decode, prepare, vary_background
from likeness.photos.backgrounds import foreground
from likeness.photos.face import Face
from likeness.photos.matte import covering, guided_filter, only_at
from likeness.photos.prepare import cut_out, frame_of, nearest_aspect, saliency, tall_frame
from likeness.types import Photo, PreparedPhoto

Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def pair(portrait: Image, faces: MediaPipeFaces) -> list[PreparedPhoto]:
    return prepare(portrait, faces.detect(portrait)[0], "f" * 64, size_px=256)


def test_three_framings_of_a_person(pair: list[PreparedPhoto]) -> None:
    assert [one.framing for one in pair] == ["portrait", "close", "aligned"]
    for one in pair:
        assert one.image.shape == (256, 256, 3) and one.matte.shape == one.face.shape == (256, 256)
        assert one.image.dtype == one.matte.dtype == one.face.dtype == np.uint8
        assert one.source_sha256 == "f" * 64


def test_the_face_fills_the_close_frame(pair: list[PreparedPhoto]) -> None:
    rows = np.flatnonzero((pair[1].face > 127).any(axis=1))
    assert 0.6 <= np.ptp(rows) / 256 <= 0.75


def test_masks_agree(pair: list[PreparedPhoto]) -> None:
    """The face is part of the person; upper corners are wall, the centre is not."""
    for one in pair:
        assert (one.matte[one.face > 250] > 200).mean() > 0.98
        assert one.matte[128, 128] == 255 and one.matte[:20, :20].max() < 20
        assert 0 < ((one.face > 10) & (one.face < 245)).mean() < 0.2  # soft, but only at the edge


def test_every_photograph_gives_a_clean_matte(person: list[Photo], faces: MediaPipeFaces) -> None:
    for photo in person:
        image = decode(photo.content)
        portrait = prepare(image, faces.detect(image)[0], photo.sha256, size_px=128)[0]
        assert 0.25 < (portrait.matte > 127).mean() < 0.75
        assert ((portrait.matte > 25) & (portrait.matte < 230)).mean() < 0.08


def test_frames_stay_inside_where_they_fit(portrait: Image, faces: MediaPipeFaces) -> None:
    face = faces.detect(portrait)[0]
    for framing in ("portrait", "close"):
        left, top, side, _ = frame_of(framing, face, portrait.shape)
        assert left >= 0 and top >= 0 and max(left, top) + side <= 512
    left, top, side, _ = frame_of("close", face, (300, 300, 3))  # the frame is larger than this image
    assert side > 300 and left < 0 and left + side > 300


def test_margins_go_on_without_black(scene: Image) -> None:
    cut = cut_out(scene, (-100, -100, 300, 300), (150, 150))
    assert cut.shape == (150, 150, 3) and cut.min() >= scene.min() - 2
    steps = np.abs(np.diff(cut.astype(int), axis=0)).max(axis=(1, 2))
    assert steps[30:60].max() <= 10  # no seam where the photo ends


def test_things_give_one_frame_around_what_strikes_the_eye(scene: Image) -> None:
    (whole,) = prepare(scene, None, "a" * 64, size_px=150)
    assert whole.framing == "whole" and whole.matte.min() == 255 and whole.face.max() == 0
    assert whole.image[0, -1, 0] >= scene[0, 379, 0]  # red grows with the column: the block's last one is in the frame
    assert saliency(scene).sum(axis=0).argmax() in range(44, 61)


@pytest.mark.parametrize("shape", [(10, 300, 3), (300, 10, 3), (1, 1, 3), (64, 64, 3)])
def test_any_shape_of_thing(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    assert prepare(image, None, "", size_px=32)[0].image.shape == (32, 32, 3)


ASPECTS = ((18, 14), (19, 13), (14, 18), (13, 19))


@pytest.mark.parametrize(
    ("aspect", "bucket"),
    [(1.0, (16, 16)), (1.1, (16, 16)), (1.25, (18, 14)), (4 / 3, (18, 14)), (1.5, (19, 13)), (9.0, (19, 13)),
     (0.75, (14, 18)), (0.1, (13, 19))],
)  # fmt: skip
def test_the_nearest_bucket(aspect: float, bucket: tuple[int, int]) -> None:
    assert nearest_aspect(aspect, ASPECTS) == bucket
    assert nearest_aspect(aspect, ()) == (16, 16)


def test_buckets_have_about_one_area_and_sides_that_networks_take() -> None:
    for height, width in ASPECTS:
        assert 0.94 < height * width / 256 <= 1
        assert all(side * px // 16 % 16 == 0 for side in (height, width) for px in (256, 512, 768, 1024))


@pytest.mark.parametrize(("shape", "size"), [((400, 300), (144, 112)), ((240, 400), (104, 152))])
def test_a_thing_in_a_bucket_shows_more_of_the_picture(shape: tuple[int, int], size: tuple[int, int]) -> None:
    """Red grows with the column, green with the row: the crop says where each pixel is from."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    picture = np.stack([columns // 2, rows // 2, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    square, full = prepare(picture, None, "a" * 64, size_px=128, aspects=ASPECTS)
    assert (square.framing, square.image.shape) == ("whole", (128, 128, 3))
    assert (full.framing, full.image.shape) == ("full", (*size, 3))
    assert full.crop is not None and square.crop is not None
    assert full.crop.height * full.crop.width > 1.2 * square.crop.height * square.crop.width
    assert max(full.crop.height / shape[0], full.crop.width / shape[1]) == 1
    for one in (square, full):
        assert one.crop is not None and (one.crop.source_height, one.crop.source_width) == shape
        corner = np.array([one.crop.left, one.crop.top]) / 2
        assert np.abs(one.image[0, 0, :2] - corner).max() <= 3
        far = np.array([one.crop.left + one.crop.width, one.crop.top + one.crop.height]) / 2
        assert np.abs(one.image[-1, -1, :2] - far).max() <= 3


def test_squares_are_the_same_with_and_without_buckets(scene: Image) -> None:
    (before,) = prepare(scene, None, "a" * 64, size_px=64)
    after = prepare(scene, None, "a" * 64, size_px=64, aspects=ASPECTS)
    assert np.array_equal(before.image, after[0].image) and before.crop == after[0].crop
    square = prepare(scene[:200, :200], None, "a" * 64, size_px=64, aspects=ASPECTS)
    assert [one.framing for one in square] == ["whole"]


def test_a_tall_frame_keeps_the_face_s_distance_from_the_edge_and_shows_more_below() -> None:
    face = Face((900, 600, 1100, 900), np.zeros((478, 3), np.float32), 0, 0, 0, "neutral", 1)
    shape = (3000, 2000, 3)
    left, top, side, _ = frame_of("portrait", face, shape)
    frame = tall_frame(face, shape, (19, 13))
    assert frame is not None and frame[1] == top
    assert frame[2] * frame[3] == pytest.approx(side**2 * 19 * 13 / 256, rel=0.01)
    assert frame[1] + frame[3] > top + side and frame[0] > left
    assert tall_frame(face, shape, (16, 16)) is None
    assert tall_frame(face, (800, 2000, 3), (18, 14)) is None  # no room below


def test_an_upright_photograph_of_a_person_has_one_more_framing(demo_photos: Path, faces: MediaPipeFaces) -> None:
    image = decode(sorted(demo_photos.glob("*.jpg"))[0].read_bytes())
    middle, across = image.shape[1] // 2, image.shape[0] * 7 // 9
    upright = np.ascontiguousarray(image[:, middle - across // 2 : middle + across // 2])
    face = faces.detect(upright)[0]
    squares = prepare(upright, face, "f" * 64, size_px=128)
    made = prepare(upright, face, "f" * 64, size_px=128, aspects=ASPECTS)
    assert [one.framing for one in made] == ["portrait", "close", "aligned", "tall"]
    for before, after in zip(squares, made[:3], strict=True):
        assert np.array_equal(before.image, after.image) and np.array_equal(before.matte, after.matte)
    tall = made[3]
    assert tall.image.shape == (144, 112, 3) and tall.matte.shape == tall.face.shape == (144, 112)
    assert (tall.matte[tall.face > 250] > 200).mean() > 0.98


@pytest.mark.parametrize("size_px", [0, 31, 5000])
def test_size_is_checked(size_px: int, scene: Image) -> None:
    with pytest.raises(UsageError):
        prepare(scene, None, "", size_px=size_px)


def cut_person() -> PreparedPhoto:
    """A red disc on green with a soft edge: the truth is known everywhere."""
    rows, columns = np.mgrid[0:96, 0:96]
    alpha = np.clip((30 - np.hypot(rows - 48, columns - 48)) / 4 + 0.5, 0, 1)
    image = alpha[..., None] * [200, 20, 20] + (1 - alpha[..., None]) * [20, 200, 20]
    matte = np.rint(alpha * 255).astype(np.uint8)
    return PreparedPhoto(np.rint(image).astype(np.uint8), matte, np.zeros_like(matte), "portrait", "0" * 64)


def test_backgrounds_are_seeded_and_vary() -> None:
    prepared = cut_person()
    pictures = [vary_background(prepared, np.random.default_rng(seed)).image for seed in range(8)]
    again = vary_background(prepared, np.random.default_rng(3)).image
    np.testing.assert_array_equal(pictures[3], again)
    assert len({picture.tobytes() for picture in pictures}) == 8


def test_only_the_background_changes() -> None:
    prepared = cut_person()
    for seed in range(8):
        varied = vary_background(prepared, np.random.default_rng(seed))
        inside = prepared.matte == 255
        assert np.abs(varied.image[inside].astype(int) - prepared.image[inside]).max() <= 2
        assert varied.matte is prepared.matte and varied.source_sha256 == prepared.source_sha256


def test_edges_lose_the_old_background() -> None:
    prepared = cut_person()
    edge = (prepared.matte > 100) & (prepared.matte < 220)
    before = prepared.image[edge][:, 1].astype(float)
    after = foreground(prepared.image, prepared.matte)[edge][:, 1]
    assert before.mean() > 60 and np.abs(after - 20).mean() < 0.35 * np.abs(before - 20).mean()


def test_nothing_to_vary_without_a_matte(scene: Image) -> None:
    (whole,) = prepare(scene, None, "", size_px=64)
    rng = np.random.default_rng(0)
    assert vary_background(whole, rng) is whole
    assert rng.integers(1 << 30) == np.random.default_rng(0).integers(1 << 30)


def test_guided_filter_keeps_what_it_should() -> None:
    """Equal guide and plane with a strong edge come back nearly unchanged; a flat guide averages."""
    step = np.zeros((40, 40), np.float32)
    step[:, 20:] = 1
    np.testing.assert_allclose(guided_filter(step, step, 3), step, atol=0.01)
    flat = guided_filter(np.zeros((40, 40), np.float32), step, 3)
    assert 0.3 < flat[20, 20] < 0.7


def test_other_people_leave_the_matte() -> None:
    two = np.zeros((100, 100), np.float32)
    two[20:80, 10:40], two[20:80, 60:90] = 1, 1
    kept = only_at(two, (25.0, 50.0))
    assert kept[50, 25] == 1 and kept[:, 60:90].max() == 0
    np.testing.assert_array_equal(only_at(two, (50.0, 50.0)), two)


def nobody(image: Image) -> NDArray[np.float32]:
    return np.zeros(image.shape[:2], np.float32)


def somebody_else(image: Image) -> NDArray[np.float32]:
    """A person in the lower left corner."""
    plane = nobody(image)
    plane[-200:, :120] = 1
    return plane


@pytest.mark.parametrize("segmenter", [nobody, somebody_else])
def test_a_person_whom_the_segmenter_misses_keeps_the_background(
    segmenter: Callable[[Image], NDArray[np.float32]], portrait: Image, faces: MediaPipeFaces,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # The package's name for the module is the function's.
    monkeypatch.setattr(sys.modules["likeness.photos.prepare"], "person_probability", segmenter)
    for one in prepare(portrait, faces.detect(portrait)[0], "f" * 64, size_px=128):
        assert one.matte.min() == 255 and one.face.max() == 255
        assert vary_background(one, np.random.default_rng(0)) is one


def test_a_matte_has_to_cover_the_face() -> None:
    face = np.zeros((40, 40), np.uint8)
    face[10:30, 10:30] = 255
    half = np.zeros_like(face)
    half[:20] = 255
    assert covering(face, face) is face  # just the face will do
    for missed in (half, np.zeros_like(face)):
        assert covering(missed, face).min() == 255
        prepared = PreparedPhoto(np.zeros((40, 40, 3), np.uint8), missed, face, "portrait", "0" * 64)
        assert vary_background(prepared, np.random.default_rng(0)) is prepared
    assert covering(half, np.zeros_like(face)) is half  # a subject without a face
