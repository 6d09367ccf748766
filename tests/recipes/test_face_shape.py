"""Measures of faces and of the autoencoder, on meshes and pictures made here."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("numba", reason="the renderer compiles its kernels with numba")

from likeness.photos import Face
from likeness.photos.report import Usable
from likeness.types import Photo, PreparedPhoto
from recipes.base_model import autoencoder_gate, faces_gate
from recipes.base_model.exam import Exam, Settings
from recipes.base_model.face_shape import COMPONENTS, FaceShapes, eye_contrast, jitter, normalised
from recipes.base_model.faces_gate import Look

SIDE = 128
CANONICAL = np.random.default_rng(7).normal(size=(478, 3)) * (30, 40, 20)
CANONICAL[[33, 133, 159, 145]] = [(-30, -10, 0), (-10, -10, 0), (-20, -13, 0), (-20, -7, 0)]
CANONICAL[[362, 263, 386, 374]] = [(10, -10, 0), (30, -10, 0), (20, -13, 0), (20, -7, 0)]


def face_of(points: np.ndarray, *, roll_deg: float = 0.0, yaw_deg: float = 0.0) -> Face:
    left, top = points[:, :2].min(0).astype(int)
    right, bottom = points[:, :2].max(0).astype(int)
    box = (int(left), int(top), int(right), int(bottom))
    return Face(box, points.astype(np.float32), yaw_deg, 0.0, roll_deg, "neutral", 1.0)


def some_face(seed: int, spread: float = 1.0) -> Face:
    """A mesh that differs from the others in 40 ways, and where it is, how large and how it leans."""
    rng = np.random.default_rng(seed)
    ways = np.random.default_rng(1).normal(size=(40, 478, 3))
    points = CANONICAL + spread * np.tensordot(rng.normal(size=40), ways, 1)
    roll = rng.uniform(-20, 20)
    cosine, sine = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    points[:, :2] = points[:, :2] @ np.array([[cosine, sine], [-sine, cosine]])
    return face_of(rng.uniform(0.5, 2) * points + rng.uniform(-50, 50, 3), roll_deg=roll)


def test_place_size_and_lean_do_not_matter() -> None:
    for seed in range(3):
        np.testing.assert_allclose(normalised(some_face(seed, 0.0)), normalised(face_of(CANONICAL)), atol=1e-4)
    assert not np.allclose(normalised(some_face(0)), normalised(some_face(1)), atol=1e-2)


def test_true_faces_are_about_one_away_and_others_further() -> None:
    shapes = FaceShapes.of([some_face(seed) for seed in range(300)])
    assert shapes.axes.shape == (3 * 468, COMPONENTS)
    true = [shapes.distance(some_face(seed)) for seed in range(1000, 1060)]
    assert 0.85 < np.mean(true) < 1.2
    assert min(shapes.distance(some_face(seed, 2.5)) for seed in range(60)) > 1.6 > max(true)
    with pytest.raises(ValueError, match="expected at least 60 faces"):
        FaceShapes.of([some_face(seed) for seed in range(59)])


def test_turned_faces_are_held_against_turned_ones() -> None:
    """In this test's population heads turned by 50 degrees vary three times as much."""
    front = [some_face(seed) for seed in range(200)]
    turned = [replace(some_face(seed, 3.0), yaw_deg=50.0 * (-1) ** seed) for seed in range(200, 300)]
    shapes = FaceShapes.of([*front, *turned])
    wide = [some_face(seed, 3.0) for seed in range(1000, 1040)]
    as_turned = [shapes.distance(replace(face, yaw_deg=-50.0)) for face in wide]
    as_front = [shapes.distance(face) for face in wide]
    usual = [shapes.distance(some_face(seed)) for seed in range(2000, 2040)]
    assert 0.85 < np.mean(as_turned) < 1.2 and 0.85 < np.mean(usual) < 1.2
    assert max(as_turned) < 1.6 < min(as_front)
    assert np.isfinite(shapes.distance(replace(wide[0], yaw_deg=180.0)))


def picture_with_eyes(points: np.ndarray, dark: int) -> np.ndarray:
    picture = np.full((SIDE, SIDE, 3), 180, np.uint8)
    for corners in ((33, 133), (362, 263)):
        middle = points[list(corners), :2].mean(0)
        cv2.circle(picture, tuple(int(c) for c in middle), 5, (dark,) * 3, -1)
    return picture


def test_eye_contrast_is_that_of_the_eyes() -> None:
    points = CANONICAL + SIDE / 2
    strong, weak, none = (eye_contrast(picture_with_eyes(points, dark), face_of(points)) for dark in (20, 100, 180))
    assert strong == pytest.approx(2 * weak, rel=0.02) and none == 0
    elsewhere = picture_with_eyes(points, 180)
    elsewhere[-20:] = np.arange(SIDE)[None, :, None]
    assert eye_contrast(elsewhere, face_of(points)) == 0
    assert eye_contrast(picture_with_eyes(points, 20), face_of(points + 1000)) == 0  # outside of the picture


def test_a_mesh_that_goes_with_the_picture_has_no_jitter() -> None:
    """The finder of this test sees the two eyes as dark blots, and lays the mesh on them."""
    points = CANONICAL + SIDE / 2

    def find(picture: np.ndarray) -> Face | None:
        _, _, _, middles = cv2.connectedComponentsWithStats((picture[..., 0] < 100).astype(np.uint8))
        if len(middles) != 3:
            return None
        right, left = sorted(middles[1:], key=lambda middle: middle[0])
        own = points[[33, 133], :2].mean(0), points[[362, 263], :2].mean(0)
        turn = complex(*(left - right)) / complex(*(own[1] - own[0]))
        matrix = np.array([[turn.real, turn.imag], [-turn.imag, turn.real]])
        laid = points.copy()
        laid[:, :2] = (points[:, :2] - own[0]) @ matrix + right
        return face_of(laid)

    picture = picture_with_eyes(points, 20)
    assert jitter(picture, face_of(points), find) < 0.03
    moved = face_of(points + np.array([6.0, 0, 0]))
    assert jitter(picture, moved, find) > 0.08  # a mesh that was laid elsewhere the first time: 6 of 60
    assert np.isnan(jitter(picture, face_of(points), lambda other: None))
    assert jitter(picture, face_of(points), lambda other: face_of(points)) > 0.1  # one that stays where it was


@pytest.fixture
def exam(tiny_base_folder: Path, tmp_path: Path) -> Exam:
    return Exam(Settings(str(tiny_base_folder), tmp_path, None, tmp_path))


def test_the_figures_of_faces_are_those_of_samples_over_renders(exam: Exam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces_gate, "jitter", lambda picture, face, find: float("nan"))
    shapes = FaceShapes.of([some_face(seed) for seed in range(100)])
    points = CANONICAL + SIDE / 2
    strong, weak = picture_with_eyes(points, 20), picture_with_eyes(points, 100)
    true = [Look(strong, face_of(points, yaw_deg=yaw), None) for yaw in (-10.0, 10.0)]
    front, turned = (Look(weak, face_of(points, yaw_deg=yaw), "none") for yaw in (-4.0, 2.0))
    faceless = Look(weak, None, "none")
    sampled = [front, turned, faceless]
    figures = faces_gate.compared(exam, shapes, sampled, true)
    assert figures["broken faces"].value == pytest.approx(100 / 3) and "0.0 %" in figures["broken faces"].note
    assert figures["yaw"].value == pytest.approx(7) and figures["faces"].value == pytest.approx(200 / 3)
    assert figures["eye contrast"].value == pytest.approx(0.5, rel=0.02) and figures["eye contrast"].samples == 2
    black = np.zeros_like(weak)
    dark = Look(black, front.face, "sunglasses")
    shaded = faces_gate.compared(exam, shapes, [*sampled, dark], true)
    assert shaded["eye contrast"] == figures["eye contrast"] and shaded["faces"].value == pytest.approx(75)
    assert "eye contrast" not in faces_gate.compared(exam, shapes, [dark], true)
    assert "broken faces, glasses" not in shaded  # no true render wears any
    round_ones = [Look(look.picture, look.face, "round glasses") for look in (front, faceless)]
    worn = faces_gate.compared(exam, shapes, [turned, *round_ones], [*true, Look(strong, true[0].face, "sunglasses")])
    assert worn["broken faces, glasses"].value == 50 and worn["broken faces, glasses"].samples == 2
    worse = [*sampled, Look(weak, some_face(3, 6.0), None)]
    assert faces_gate.compared(exam, shapes, worse, true)["broken faces"].value == pytest.approx(50)
    assert faces_gate.compared(exam, shapes, [faceless], true)["broken faces"].value == 100


def test_an_autoencoder_that_changes_nothing_keeps_all(exam: Exam, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(256, (6, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setitem(exam.__dict__, "held_out", (images, [{"style": "photo"}] * 4 + [{"style": "anime"}] * 2))
    described = iter([np.zeros((4, 128)), np.full((4, 128), 0.01)])
    seen: list[tuple[int, ...]] = []

    def descriptors(exam: Exam, pictures: np.ndarray) -> np.ndarray:
        seen.append(pictures.shape)
        found = next(described)
        found[0] = np.nan
        return found

    monkeypatch.setattr(autoencoder_gate, "described", descriptors)
    monkeypatch.setattr(autoencoder_gate, "reconstructed", lambda exam, images: images ^ 1)
    figures = autoencoder_gate.measure_reconstruction(exam)
    assert seen == [(4, SIDE, SIDE, 3)] * 2
    assert figures["identity of renders"].value == pytest.approx(0.01 * 128**0.5)
    assert figures["identity of renders"].samples == 3
    assert figures["reconstruction of renders"].samples == 6 and figures["reconstruction of renders"].value > 45
    for name in ("band 8-16", "band 16-24", "band 24-33", "period two"):
        assert figures[name].value == pytest.approx(1, abs=0.01) and figures[name].samples == 4


def test_reconstructions_go_through_the_base(exam: Exam) -> None:
    images = torch.randint(256, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made = autoencoder_gate.reconstructed(exam, images)
    assert made.shape == images.shape and made.dtype == torch.uint8
    expected = exam.base.decode(exam.base.encode_photo(images.float() / 127.5 - 1))
    torch.testing.assert_close(made.float(), ((expected + 1) * 127.5).round())


def test_real_photographs_are_seen_as_a_fine_tune_gets_them(exam: Exam, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = np.zeros((2 * SIDE, 2 * SIDE), np.uint8)

    def prepared(image: np.ndarray, face: Face, source_sha256: str, *, size_px: int) -> list[PreparedPhoto]:
        return [
            PreparedPhoto(np.full((size_px, size_px, 3), grey, np.uint8), nothing, nothing, framing, source_sha256)
            for framing, grey in (("portrait", 10), ("close", 20), ("aligned", 30))
        ]

    usable = [Usable(Photo(f"{k}.png", b""), nothing, face_of(CANONICAL)) for k in range(2)]
    monkeypatch.setattr(autoencoder_gate, "read_photos", lambda paths: paths)
    monkeypatch.setattr(autoencoder_gate, "check", lambda photos, kind: SimpleNamespace(usable=usable))
    monkeypatch.setattr(autoencoder_gate, "prepare", prepared)
    with_photos = Exam(replace(exam.settings, photos=Path("of-a-friend")))
    found = autoencoder_gate.headshots(with_photos)
    assert [one.shape for one in found] == [(SIDE, SIDE, 3)] * 2 and all((one == 30).all() for one in found)
