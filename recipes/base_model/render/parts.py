"""The part of the figure at each pixel."""

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
    """Places in `PARTS`, (S, S); the parts of the skin by the anatomy of each triangle's first corner.

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
    shown = buffers.shown()
    return np.where(shown < 0, 0, of_triangle[shown]).astype(np.uint8)
