"""Loads the asset pack: base mesh, morph targets, fitted proxies (hair, eyes, clothes, ...) and textures.

The pack is `assets.npz` and `textures/*.png` (512 x 512 RGBA), all CC0 (MakeHuman). It knows neither persons
nor images. Hair and clothes textures are reduced to brightness, because their colour is chosen per image.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from recipes.base_model.render import anatomy

TEXTURE_PX = 512
LOWEST_Y_DM = 2.6  # the pack is cut here: pictures end at the chest
WIDEST_X_DM = 3.4
HAIR_MARKS = ("short0", "bob0", "braid", "long0", "pony")


@dataclass(frozen=True, eq=False)
class Proxy:
    """A mesh fitted to three base vertices per vertex, as in MakeHuman's .mhclo files."""

    index: NDArray[np.int32]  # (N, 3) base vertices
    weights: NDArray[np.float32]  # (N, 3) barycentric
    offset: NDArray[np.float32]  # (N, 3) decimetres, scaled by `scales`
    scales: tuple[tuple[int, int, float] | None, ...]  # per axis: two base vertices and their canonical distance
    faces: NDArray[np.int32]  # (F, 3)
    uv: NDArray[np.float32]  # (F, 3, 2)
    hidden: NDArray[np.int32]  # base vertices that lie under it


@dataclass(frozen=True, eq=False)
class Assets:
    vertices: NDArray[np.float32]  # (V, 3)
    faces: NDArray[np.int32]  # (F, 3), head and shoulders
    uv: NDArray[np.float32]  # (F, 3, 2)
    fields: NDArray[np.float32]  # (V, anatomy.FIELDS)
    head_weight: NDArray[np.float32]  # (V,)
    targets: dict[str, tuple[NDArray[np.int32], NDArray[np.float32]]]  # name -> (vertex index, delta)
    proxies: dict[tuple[str, str], Proxy]  # (kind, name)
    textures: NDArray[np.uint8]  # (T, 512, 512, 4)
    texture_index: dict[str, int]
    noise: NDArray[np.float32]  # (512, 512) smooth, tileable, standard normal


@functools.cache
def load_assets(folder: Path) -> Assets:
    """Reads `folder/assets.npz` and `folder/textures`. Raises FileNotFoundError when either is missing."""
    pack = np.load(folder / "assets.npz")
    vertices = pack["base/vertices"].astype(np.float32)
    faces = pack["base/faces"].astype(np.int32)
    corners = vertices[faces]
    near = (corners[:, :, 1].max(1) > LOWEST_Y_DM) & (np.abs(corners[:, :, 0]).max(1) < WIDEST_X_DM)
    noise = smooth_noise(0, 3, 3)
    textures, texture_index = _textures(folder / "textures", noise)
    meta: dict[str, dict[str, Any]] = json.loads(bytes(pack["meta_json"]))
    return Assets(
        vertices=vertices,
        faces=faces[near],
        uv=pack["base/uv"].astype(np.float32)[near],
        fields=anatomy.field_table(vertices, pack["base/lip_mask"].astype(np.float32)),
        head_weight=anatomy.head_weight(vertices),
        targets=read_targets(pack),
        proxies={_kind_and_name(key): read_proxy(pack, key, entry) for key, entry in meta.items()},
        textures=textures,
        texture_index=texture_index,
        noise=noise,
    )


def smooth_noise(seed: int, sigma_x: float, sigma_y: float) -> NDArray[np.float32]:
    """Tileable blurred noise, (512, 512), mean 0 and standard deviation 1."""
    raw = np.random.default_rng(seed).standard_normal((TEXTURE_PX, TEXTURE_PX)).astype(np.float32)
    pad = int(3 * max(sigma_x, sigma_y)) + 1
    tiled = cv2.copyMakeBorder(raw, pad, pad, pad, pad, cv2.BORDER_WRAP)
    blurred = cv2.GaussianBlur(tiled, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y)[pad:-pad, pad:-pad]
    return np.ascontiguousarray((blurred - blurred.mean()) / blurred.std())


def _kind_and_name(key: str) -> tuple[str, str]:
    kind, name = key.split("/")
    return kind, name


def read_targets(pack: Any) -> dict[str, tuple[NDArray[np.int32], NDArray[np.float32]]]:
    names = [
        key[len("target/") : -len("/index")] for key in pack.files if key.endswith("/index") and key[:7] == "target/"
    ]
    return {
        n: (pack[f"target/{n}/index"].astype(np.int32), pack[f"target/{n}/delta"].astype(np.float32)) for n in names
    }


def read_proxy(pack: Any, key: str, entry: dict[str, Any]) -> Proxy:
    base = f"proxy/{key}"
    scales = tuple(tuple(entry[axis]) if axis in entry else None for axis in ("x_scale", "y_scale", "z_scale"))
    return Proxy(
        index=pack[base + "/index"].astype(np.int32),
        weights=pack[base + "/weight"].astype(np.float32),
        offset=pack[base + "/offset"].astype(np.float32),
        scales=scales,
        faces=pack[base + "/faces"].astype(np.int32),
        uv=pack[base + "/uv"].astype(np.float32),
        hidden=pack[base + "/delete"].astype(np.int32),
    )


def _textures(folder: Path, noise: NDArray[np.float32]) -> tuple[NDArray[np.uint8], dict[str, int]]:
    paths = sorted(folder.glob("*.png"))
    if not paths:
        raise FileNotFoundError(f"no textures (*.png) in {folder}")
    layers = [_read_texture(path) for path in paths]
    strands = smooth_noise(1, 1.2, 40)
    curls = np.clip(215 + 60 * noise, 0, 255)
    layers.append(_gray_texture(110 + 30 * noise, curls))
    layers.append(_gray_texture(115 + 24 * strands, np.full_like(strands, 255)))
    names = [path.stem for path in paths] + ["curls", "strands"]
    return np.ascontiguousarray(np.stack(layers)), {name: i for i, name in enumerate(names)}


def _read_texture(path: Path) -> NDArray[np.uint8]:
    bgra = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if bgra is None or bgra.shape != (TEXTURE_PX, TEXTURE_PX, 4):
        raise ValueError(f"{path.name}: expected a {TEXTURE_PX} x {TEXTURE_PX} RGBA picture")
    rgba = np.ascontiguousarray(bgra[..., [2, 1, 0, 3]], dtype=np.uint8)
    if any(mark in path.stem for mark in HAIR_MARKS):
        return _even_hair(rgba)
    if "eyebrow" in path.stem:
        return _dense_brow(rgba)
    if "suit" in path.stem:
        return _plain_cloth(rgba, two_tone=path.stem.startswith(("male_elegant", "male_work")))
    return rgba


def _even_hair(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Brightness only, scaled to one mean, so that a colour looks the same on every hair mesh."""
    light = rgba[..., :3].astype(np.float32).mean(-1)
    even = light * (115 / max(1.0, float(light[rgba[..., 3] > 128].mean())))
    # Blurred, since a portrait shows every second or third texel only and would turn strands to stipple. Transparent
    # texels do not count, or the ends of strands would be dark.
    opaque = rgba[..., 3] / np.float32(255) + np.float32(1e-3)
    soft = cv2.GaussianBlur(even * opaque, (0, 0), 2) / cv2.GaussianBlur(opaque, (0, 0), 2)
    return _gray_texture(115 + 0.7 * (soft - 115), cv2.GaussianBlur(rgba[..., 3], (0, 0), 1.5))


def _dense_brow(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Merges single hairs, which would be scattered dots at the size of an image."""
    alpha = 1.5 * cv2.GaussianBlur(rgba[..., 3].astype(np.float32), (0, 0), 5)
    return _gray_texture(np.zeros_like(alpha), np.clip(alpha, 0, 255))


def _plain_cloth(rgba: NDArray[np.uint8], two_tone: bool) -> NDArray[np.uint8]:
    """Low-frequency brightness: stripes and logos vanish. A suit keeps its white shirt (a sharp second tone)."""
    light = rgba[..., :3].astype(np.float32).mean(-1)
    if two_tone:
        return _gray_texture(cv2.GaussianBlur(cv2.medianBlur(light.astype(np.uint8), 9), (0, 0), 3), rgba[..., 3])
    blurred = cv2.GaussianBlur(cv2.medianBlur(light.astype(np.uint8), 21), (0, 0), 12).astype(np.float32)
    return _gray_texture(115 + 0.3 * (blurred - blurred.mean()), rgba[..., 3])


def _gray_texture(light: NDArray, alpha: NDArray) -> NDArray[np.uint8]:
    gray = np.clip(light, 0, 255).astype(np.uint8)
    return np.dstack([gray, gray, gray, alpha.astype(np.uint8)])
