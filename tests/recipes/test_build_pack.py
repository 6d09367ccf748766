"""The converter of MakeHuman's files, on small ones written by hand."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("numba", reason="the pack's reader lies beside kernels that numba compiles")

from recipes.base_model.render import build_pack
from recipes.base_model.render.assets import LOWEST_Y_DM, TEXTURE_PX, read_proxy, read_targets

OBJ = """# a square of the body, and something else
v 0 0 0
v 1 0 0
v 1 8 0
v 0 8 0
vt 0.0 0.0
vt 1.0 0.0
vt 1.0 1.0
vt 0.0 1.0
g body
f 1/1 2/2 3/3 4/4
g helper-tights
f 1/1 2/2 3/3
"""
TARGET = """# basemesh hm08
0 .5 0 0
2 0 0 0
2 -.002 .25 0
3 0 0 1e-3
"""
MHCLO = """# a hat
basemesh hm08
name hat
obj_file hat.obj
x_scale 0 1 1.5
z_scale 1 2 2.5
y_scale 0 3 8.0
material hat.mhmat
verts 0
tag young
 0  1  2 0.25 0.25 0.5 0.1 -.2 0.3
3
 1 2 3 1 0 -0.5 0 0 0
delete_verts
0 2 - 3
"""


def test_polygons_become_triangles_of_the_named_group() -> None:
    mesh = build_pack.read_mesh(OBJ.splitlines(), "body")
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert mesh.uv[1].tolist() == [[0, 0], [1, 1], [0, 1]]
    assert len(build_pack.read_mesh(OBJ.splitlines()).faces) == 3


def test_a_target_keeps_what_moves_above_the_chest() -> None:
    vertices = build_pack.read_mesh(OBJ.splitlines()).vertices
    index, delta = build_pack.read_target(TARGET.splitlines(), vertices)
    assert vertices[0, 1] < LOWEST_Y_DM < vertices[2, 1]
    assert index.tolist() == [2, 3] and index.dtype == np.uint16
    np.testing.assert_allclose(delta, [[-0.002, 0.25, 0.0], [0.0, 0.0, 1e-3]], atol=1e-4)
    index, delta = build_pack.read_target(["# nothing"], vertices)
    assert index.shape == (0,) and delta.shape == (0, 3)


def test_a_proxy_hangs_on_three_vertices_or_lies_on_one() -> None:
    arrays, scales = build_pack.read_proxy(MHCLO.splitlines())
    assert arrays["index"].tolist() == [[0, 1, 2], [3, 3, 3], [1, 2, 3]]
    assert arrays["weight"].tolist() == [[0.25, 0.25, 0.5], [1, 0, 0], [1, 0, -0.5]]
    np.testing.assert_allclose(arrays["offset"], [[0.1, -0.2, 0.3], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert arrays["delete"].tolist() == [0, 2, 3]
    assert scales == {"x_scale": [0, 1, 1.5], "z_scale": [1, 2, 2.5], "y_scale": [0, 3, 8.0]}


def test_the_lips_are_where_the_picture_is_bright() -> None:
    picture = np.zeros((5, 5), np.uint8)
    picture[0, 4] = 51  # the upper right corner is vertex 2
    mask = build_pack.lip_mask(build_pack.read_mesh(OBJ.splitlines(), "body"), picture)
    np.testing.assert_allclose(mask, [0, 0, 0.2, 0], atol=1e-3)


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    """Three checkouts with the least that the converter asks for; the arguments that name them."""
    data, meshes = tmp_path / "mh/makehuman/data", tmp_path / "assets/base"
    written = {
        data / "3dobjs/base.obj": OBJ, data / "targets/nose/nose-long.target": TARGET,
        data / "targets/nose/nose-height-incr.target": TARGET, data / "targets/head/head-child.target": TARGET,
        data / "targets/armslegs/arm.target": TARGET, data / "targets/chin/nothing.target": "0 1 0 0\n",
        meshes / "hair/hat/hat.mhclo": MHCLO, meshes / "hair/hat/hat.obj": OBJ,
        meshes / "clothes/shoes01/shoes01.mhclo": MHCLO,
        data / "eyes/high-poly/high-poly.mhclo": MHCLO, data / "eyes/high-poly/hat.obj": OBJ,
    }  # fmt: skip
    for path, text in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    pictures = [
        tmp_path / "mpfb/src/mpfb/data/textures/mpfb_lips.jpg", data / "eyes/materials/brown_eye.png",
        meshes / "hair/hat/hat_diffuse.png", meshes / "hair/hat/hat_normal.png",
    ]  # fmt: skip
    for path in pictures:
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((8, 8, 3), 200, np.uint8))
    told = {"makehuman": "mh", "assets": "assets", "mpfb": "mpfb", "out": "pack"}
    return [word for name, folder in told.items() for word in (f"--{name}", str(tmp_path / folder))]


def test_a_pack_is_what_the_renderer_reads(sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["build_pack", *sources])
    build_pack.main()
    with np.load(tmp_path / "pack/assets.npz") as pack:
        targets = read_targets(pack)
        assert list(targets) == ["nose/nose-long"] and targets["nose/nose-long"][0].tolist() == [2, 3]
        meta = json.loads(bytes(pack["meta_json"]))
        assert list(meta) == ["hair/hat", "eyes/high-poly"]
        hat = read_proxy(pack, "hair/hat", meta["hair/hat"])
        assert hat.scales == ((0, 1, 1.5), (0, 3, 8.0), (1, 2, 2.5)) and hat.faces.shape == (3, 3)
        assert pack["base/faces"].shape == (2, 3) and pack["base/lip_mask"].max() > 0.7
    textures = sorted((tmp_path / "pack/textures").iterdir())
    assert [path.name for path in textures] == ["brown_eye.png", "hat_diffuse.png"]
    assert cv2.imread(str(textures[1]), cv2.IMREAD_UNCHANGED).shape == (TEXTURE_PX, TEXTURE_PX, 4)


def test_a_texture_that_only_points_to_one_is_refused(sources: list[str], tmp_path: Path) -> None:
    (tmp_path / "assets/base/hair/hat/hat_diffuse.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="git lfs pull"):
        build_pack.write_textures(tmp_path / "mh", tmp_path / "assets", tmp_path / "out")
