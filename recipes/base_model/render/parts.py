"""Which part of a figure each pixel shows: what the renderer knows exactly, and the U-Net learns to tell."""

import numpy as np
from numpy.typing import NDArray

from recipes.base_model.render import anatomy
from recipes.base_model.render.assets import Assets
from recipes.base_model.render.figure import BROW, CLOTH, EYE, FRAME, HAIR, LASH, LENS, TEETH, Figure
from recipes.base_model.render.raster import Buffers

PARTS = ("background", "skin", "eye", "brow", "mouth", "nose", "hair", "beard", "clothes", "glasses")
_OF_MATERIAL = {EYE: "eye", LASH: "eye", BROW: "brow", TEETH: "mouth", HAIR: "hair", CLOTH: "clothes"}
_OF_MATERIAL |= {FRAME: "glasses", LENS: "glasses"}
_NEAR = 0.4  # of an anatomical mask: inside of the part


def part_map(figure: Figure, buffers: Buffers, assets: Assets, *, beard_field: int | None) -> NDArray[np.uint8]:
    """Places in `PARTS`, (S, S), of what is nearest and no more than half sheer; skin by its triangles' first corners.

    beard_field: column of the anatomical fields that the beard covers; None: no beard.
    """
    of_triangle = np.full(len(figure.triangles), PARTS.index("skin"), np.uint8)
    for material, part in _OF_MATERIAL.items():
        of_triangle[figure.material == material] = PARTS.index(part)
    skin = np.flatnonzero(of_triangle == PARTS.index("skin"))
    fields = assets.fields[figure.triangles[skin, 0]]
    masks = {"hair": anatomy.SCALP, "nose": anatomy.NOSE, "mouth": anatomy.LIPS}
    if beard_field is not None:
        masks = {"beard": beard_field} | masks
    for part, column in masks.items():
        of_triangle[skin[fields[:, column] > _NEAR]] = PARTS.index(part)
    sheer, alpha = buffers.sheer_triangle[..., 0], buffers.sheer_rest[..., 0, 2]
    nearest = np.where(alpha > 0.5, sheer, buffers.triangle)
    return np.where(nearest < 0, 0, of_triangle[nearest]).astype(np.uint8)


def coverage(parts: NDArray[np.uint8], cells: int) -> NDArray[np.uint8]:
    """(S, S) parts -> (len(PARTS), cells, cells): the share of each cell that shows the part, 0..255."""
    side = parts.shape[0] // cells
    shown = parts[None] == np.arange(len(PARTS), dtype=np.uint8)[:, None, None]
    shares = shown.reshape(len(PARTS), cells, side, cells, side).mean((2, 4))
    return np.rint(255 * shares).astype(np.uint8)
