"""Builds the asset pack: python -m recipes.base_model.render.build_pack --makehuman M --assets A --mpfb F --out PACK

M, A and F are checkouts of three CC0 repositories of github.com/makehumancommunity: makehuman at a8bc2d54,
makehuman-assets at 8cf9645b (with `git lfs pull`, for the textures) and mpfb2 at 80919fa4. The pack is what
`assets.load_assets` reads:

    assets.npz
      base/vertices (V, 3) float32      the base mesh, decimetres
      base/faces (F, 3) uint16          the body's quads as triangles
      base/uv (F, 3, 2) float32
      base/lip_mask (V,) float16        from 0 to 1
      target/NAME/index (n,) uint16     the vertices above the chest that a morph target moves,
      target/NAME/delta (n, 3) float16  and by how much
      proxy/KIND/NAME/...               of hair, brow, lash, teeth, clothes and eyes: index, weight and offset (n, 3),
                                        faces (f, 3), uv (f, 3, 2), and delete (d,), base vertices that lie under it
      meta_json uint8                   UTF-8: "KIND/NAME" -> x_scale, y_scale, z_scale: two vertices, their distance
    textures/NAME.png                   512 x 512 RGBA

No child or baby targets, no skin textures. File formats: MakeHuman's .obj, .target and .mhclo.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from recipes.base_model.render.assets import LOWEST_Y_DM, TEXTURE_PX

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

TARGET_FOLDERS = (
    *(
        "macrodetails",
        "head",
        "forehead",
        "eyebrows",
        "eyes",
        "nose",
        "mouth",
        "ears",
        "chin",
        "cheek",
        "neck",
        "torso",
    ),
    "expression",
)
UNUSED_TARGETS = ("baby", "child", "height", "proportions")  # adults only; height is not visible in a headshot
# Where the meshes of a kind lie in makehuman-assets; shoes are out of the picture.
PROXY_FOLDERS = {"hair": "hair", "brow": "eyebrows", "lash": "eyelashes", "teeth": "teeth", "clothes": "clothes"}
UNUSED_PROXIES = ("shoes",)
EYES = "high-poly"  # in makehuman itself
TEXTURE_FOLDERS = ("hair", "eyebrows", "eyelashes", "clothes", "eyes/materials", "teeth/materials")
BROWN_EYES = "brown_eye.png"  # in makehuman itself
OTHER_MAPS = ("_normal", "_ao", "_displacement")  # than colour
# Of things that are not drawn, or that the renderer colours by program.
UNUSED_TEXTURES = ("shoes", "fedora", "afro", "bob01", "female_casualsuit02", "male_casualsuit01")
AXES = ("x_scale", "y_scale", "z_scale")


@dataclass(frozen=True, eq=False)
class Mesh:
    vertices: Floats  # (V, 3)
    faces: Indices  # (F, 3)
    uv: Floats  # (F, 3, 2)


def read_mesh(lines: Iterable[str], group: str | None = None) -> Mesh:
    """A Wavefront .obj; of one group of faces only, if named. Polygons become fans of triangles."""
    points, places, corners, current = [], [], [], None
    for line in lines:
        kind, *rest = line.split() or [""]
        if kind == "v":
            points.append([float(x) for x in rest[:3]])
        elif kind == "vt":
            places.append([float(x) for x in rest[:2]])
        elif kind == "g":
            current = rest[0] if rest else None
        elif kind == "f" and group in (None, current):
            polygon = [tuple(int(number) - 1 for number in corner.split("/")[:2]) for corner in rest]
            corners += [(polygon[0], polygon[k], polygon[k + 1]) for k in range(1, len(polygon) - 1)]
    numbers = np.array(corners, np.int64)  # (F, 3, 2): vertex, place in the texture
    return Mesh(np.array(points, np.float32), numbers[..., 0], np.array(places, np.float32)[numbers[..., 1]])


def read_target(lines: Iterable[str], vertices: Floats) -> tuple[NDArray[np.uint16], NDArray[np.float16]]:
    """Index (n,) and delta (n, 3) of a .target, without what stays or lies below the chest, which no picture shows."""
    rows = [line.split() for line in lines if line.strip() and not line.startswith(("#", '"'))]
    index = np.array([int(row[0]) for row in rows], np.int64)
    delta = np.array([[float(x) for x in row[1:4]] for row in rows], np.float32).reshape(-1, 3)
    shown = (vertices[index, 1] > LOWEST_Y_DM) & delta.any(1)
    return index[shown].astype(np.uint16), delta[shown].astype(np.float16)


def read_proxy(lines: Iterable[str]) -> tuple[dict[str, NDArray], dict[str, list[float]]]:
    """Arrays and scales of a .mhclo: three base vertices, their weights and an offset for every vertex of the mesh."""
    index, weight, offset = [], [], []
    deleted: list[int] = []
    scales: dict[str, list[float]] = {}
    section = ""
    for line in lines:
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in AXES:
            scales[words[0]] = [int(words[1]), int(words[2]), float(words[3])]
        elif words[0] in ("verts", "delete_verts"):
            section = words[0]
        elif not words[0].isdigit():
            continue  # a name, a tag, a material, wherever it stands
        elif section == "verts":
            numbers = [float(word) for word in words] if len(words) >= 6 else [float(words[0])] * 3 + [1, 0, 0]
            index.append([int(number) for number in numbers[:3]])
            weight.append(numbers[3:6])
            offset.append(numbers[6:9] if len(numbers) >= 9 else [0.0, 0.0, 0.0])
        elif section == "delete_verts":
            deleted += _ranges(words)
    arrays: dict[str, NDArray] = {
        "index": np.array(index, np.uint16), "weight": np.array(weight, np.float32),
        "offset": np.array(offset, np.float32), "delete": np.array(deleted, np.uint16),
    }  # fmt: skip
    return arrays, scales


def _ranges(words: list[str]) -> Iterator[int]:
    """'3 5 - 7' -> 3, 5, 6, 7."""
    k = 0
    while k < len(words):
        if k + 2 < len(words) and words[k + 1] == "-":
            yield from range(int(words[k]), int(words[k + 2]) + 1)
            k += 3
        else:
            yield int(words[k])
            k += 1


def lip_mask(mesh: Mesh, picture: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Brightness (V,), 0 to 1, of a picture (H, W) at each vertex's places in the texture; the greatest at a seam."""
    height, width = picture.shape
    mask = np.zeros(len(mesh.vertices), np.float16)
    column = np.floor(mesh.uv[..., 0] * (width - 1)).astype(int)  # (F, 3)
    row = np.floor((1 - mesh.uv[..., 1]) * (height - 1)).astype(int)
    np.maximum.at(mask, mesh.faces, (picture[row, column] / 255).astype(np.float16))
    return mask


def pack_arrays(makehuman: Path, assets: Path, mpfb: Path) -> dict[str, NDArray]:
    """All arrays of assets.npz."""
    base = read_mesh(_lines(makehuman / "makehuman/data/3dobjs/base.obj"), "body")
    picture = cv2.imread(str(mpfb / "src/mpfb/data/textures/mpfb_lips.jpg"), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise FileNotFoundError("expected mpfb_lips.jpg in mpfb2's textures")
    arrays: dict[str, NDArray] = {
        "base/vertices": base.vertices, "base/faces": base.faces.astype(np.uint16), "base/uv": base.uv,
        "base/lip_mask": lip_mask(base, np.asarray(picture, np.uint8)),
    }  # fmt: skip
    targets = makehuman / "makehuman/data/targets"
    for folder in TARGET_FOLDERS:
        for path in sorted((targets / folder).rglob("*.target")):
            name = path.relative_to(targets).with_suffix("").as_posix()
            if any(word in name for word in UNUSED_TARGETS):
                continue
            index, delta = read_target(_lines(path), base.vertices)
            if len(index):
                arrays |= {f"target/{name}/index": index, f"target/{name}/delta": delta}
    meta: dict[str, dict[str, list[float]]] = {}
    for kind, path in _proxy_files(makehuman, assets):
        found, meta[f"{kind}/{path.stem}"] = read_proxy(_lines(path))
        mesh = read_mesh(_lines(path.with_name(_object_name(path))))
        found |= {"faces": mesh.faces.astype(np.uint16), "uv": mesh.uv.astype(np.float16)}
        arrays |= {f"proxy/{kind}/{path.stem}/{key}": value for key, value in found.items()}
    arrays["meta_json"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    return arrays


def _proxy_files(makehuman: Path, assets: Path) -> Iterator[tuple[str, Path]]:
    for kind, folder in PROXY_FOLDERS.items():
        for path in sorted((assets / "base" / folder).rglob("*.mhclo")):
            if not path.stem.startswith(UNUSED_PROXIES):
                yield kind, path
    yield "eyes", makehuman / f"makehuman/data/eyes/{EYES}/{EYES}.mhclo"


def _object_name(path: Path) -> str:
    return next(line.split()[1] for line in _lines(path) if line.startswith("obj_file"))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def write_textures(makehuman: Path, assets: Path, out: Path) -> None:
    """Colours of the meshes, 512 x 512 with an alpha channel."""
    paths = [path for folder in TEXTURE_FOLDERS for path in sorted((assets / "base" / folder).rglob("*.png"))]
    paths.append(makehuman / "makehuman/data/eyes/materials" / BROWN_EYES)
    for path in paths:
        if path.stem.endswith(OTHER_MAPS) or path.stem.startswith(UNUSED_TEXTURES):
            continue
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if picture is None:
            raise ValueError(f"{path.name}: expected a picture; `git lfs pull` replaces what only points to one")
        if picture.ndim == 2:
            picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGRA)
        elif picture.shape[-1] == 3:
            picture = cv2.cvtColor(picture, cv2.COLOR_BGR2BGRA)
        small = cv2.resize(picture, (TEXTURE_PX, TEXTURE_PX), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(out / path.name), small)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("makehuman", "assets", "mpfb", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    (options.out / "textures").mkdir(parents=True, exist_ok=True)
    arrays = pack_arrays(options.makehuman, options.assets, options.mpfb)
    np.savez_compressed(options.out / "assets.npz", allow_pickle=False, **arrays)
    write_textures(options.makehuman, options.assets, options.out / "textures")


if __name__ == "__main__":
    main()
