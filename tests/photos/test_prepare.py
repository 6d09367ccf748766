"""Frames, masks and backgrounds of prepared photographs."""

import numpy as np
import pytest
from numpy.typing import NDArray

from likeness.errors import UsageError
from likeness.photos import MediaPipeFaces, decode, prepare, vary_background
from likeness.photos.backgrounds import foreground
from likeness.photos.matte import guided_filter, only_at
from likeness.photos.prepare import cut_out, frame_of, saliency
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
        left, top, side = frame_of(framing, face, portrait.shape)
        assert left >= 0 and top >= 0 and max(left, top) + side <= 512
    left, top, side = frame_of("close", face, (300, 300, 3))  # the frame is larger than this image
    assert side > 300 and left < 0 and left + side > 300


def test_margins_go_on_without_black(scene: Image) -> None:
    cut = cut_out(scene, (-100, -100, 300), 150)
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
