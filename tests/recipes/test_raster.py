"""The rasteriser and the places alone: no asset pack is needed."""

import numpy as np
import pytest

pytest.importorskip("numba", reason="the renderer compiles its kernels with numba")

from recipes.base_model.render.assets import TEXTURE_PX
from recipes.base_model.render.places import PLACES, defocused
from recipes.base_model.render.raster import OPAQUE, Buffers, rasterise

SIZE_PX = 16
FULL = 0  # the only texture: alpha 255 everywhere


def wall(distance: float, opacity: float) -> tuple[np.ndarray, np.ndarray]:
    """Screen points (4, 3) and uv (2, 3, 3) of a square that fills the picture."""
    near, far = -1.0, SIZE_PX + 2.3  # its diagonal meets no centre of a pixel
    corners = [[near, near], [near, far], [far, far + 0.37], [far, near]]
    screen = np.array([[x, y, distance] for x, y in corners], np.float32)
    uv = np.zeros((2, 3, 3), np.float32)
    uv[..., 2] = opacity
    return screen, uv


def draw(walls: list[tuple[float, float]], layers: int = 4) -> Buffers:
    """Buffers of (distance, opacity) squares, drawn in this order; opacity 1 and above is solid geometry."""
    pieces = [wall(distance, opacity) for distance, opacity in walls]
    quad = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    return rasterise(
        np.concatenate([screen for screen, _ in pieces]),
        np.concatenate([quad + 4 * k for k in range(len(walls))]),
        np.concatenate([uv for _, uv in pieces]),
        alpha_texture=np.repeat([OPAQUE if opacity >= 1 else FULL for _, opacity in walls], 2).astype(np.int32),
        textures=np.full((1, TEXTURE_PX, TEXTURE_PX, 4), 255, np.uint8),
        size_px=SIZE_PX,
        layers=layers,
    )


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_sheer_layers_are_sorted_by_distance_whatever_the_order_of_triangles(order: tuple[int, ...]) -> None:
    walls = [(2.0, 0.3), (3.0, 0.6), (4.0, 1.0), (5.0, 0.5)]
    buffers = draw([walls[k] for k in order])
    assert np.unique(buffers.sheer_depth[..., 0]) == pytest.approx([2.0], abs=1e-3)
    assert np.unique(buffers.sheer_depth[..., 1]) == pytest.approx([3.0], abs=1e-3)
    assert (buffers.sheer_triangle[..., 2:] == -1).all()  # what is behind the solid wall is not there
    assert buffers.sheer_rest[..., 0, 2] == pytest.approx(0.3, abs=0.01)
    assert np.unique(buffers.depth) == pytest.approx([4.0], abs=1e-3)


def test_the_nearest_sheer_layers_are_kept() -> None:
    buffers = draw([(distance, 0.2) for distance in (9.0, 3.0, 7.0, 2.0, 8.0, 4.0)])
    assert buffers.sheer_depth[5, 5] == pytest.approx([2.0, 3.0, 4.0, 7.0], abs=1e-3)


def test_a_pixel_shows_what_brings_its_opacity_to_a_half() -> None:
    assert (draw([(2.0, 0.3), (3.0, 1.0)]).shown() // 2 == 1).all()  # the solid wall
    assert (draw([(2.0, 0.3), (2.5, 0.4), (3.0, 1.0)]).shown() // 2 == 1).all()  # the second veil: 0.58
    assert (draw([(2.0, 0.7), (3.0, 1.0)]).shown() // 2 == 0).all()
    assert (draw([(2.0, 0.3)]).shown() == -1).all()


def test_without_layers_half_an_opacity_is_solid() -> None:
    assert (draw([(2.0, 0.6), (3.0, 1.0)], layers=0).triangle // 2 == 0).all()
    assert (draw([(2.0, 0.3), (3.0, 1.0)], layers=0).triangle // 2 == 1).all()


def test_blur_grows_with_the_picture() -> None:
    image = np.zeros((256, 256, 3), np.float32)
    image[96:160, 96:160] = 2.0  # a lamp
    small, large = defocused(image, 6), defocused(np.kron(image, np.ones((2, 2, 1), np.float32)), 6)
    assert np.abs(large[::2, ::2] - small).mean() < 0.02
    assert small.mean() == pytest.approx(image.mean(), rel=0.02)
    assert 0.5 < small[128, 96, 0] < 1.5  # half of the aperture sees it
    assert small[128, 128] == pytest.approx(2.0, rel=0.01)
    assert defocused(image, 0) is image


@pytest.mark.parametrize("place", PLACES)
def test_places_are_sharp_pictures_of_any_size_and_the_same_again(place: str) -> None:
    for size_px in (64, 256):
        first, again = (PLACES[place].paint(np.random.default_rng(3), size_px) for _ in range(2))
        assert first.shape == (size_px, size_px, 3)
        assert first.dtype == np.float32
        assert np.isfinite(first).all()
        assert np.array_equal(first, again)
        assert 0.02 < first.mean() < 1
