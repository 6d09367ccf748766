"""The pictures of an engine before they are rounded to 8 bits: a base that remembers what it decoded."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from likeness.diffusion.base import BaseModel
from likeness.diffusion.pixels import to_images
from likeness.types import GeneratedImage


@dataclass(frozen=True, eq=False)
class RecordingBase(BaseModel):
    """A base whose decoder keeps each picture's float pixels under its rounded ones."""

    decoded: dict[bytes, Tensor] = field(default_factory=dict)

    def decode(self, latents: Tensor) -> Tensor:
        pixels = super().decode(latents)
        for image, floats in zip(to_images(pixels), pixels, strict=True):
            self.decoded[image.tobytes()] = floats.clone()
        return pixels

    def pixels_of(self, image: GeneratedImage) -> NDArray[np.float64]:
        """(3, H, W) in [-1, 1], as they were before rounding."""
        return self.decoded[image.image.tobytes()].double().cpu().numpy()


@contextmanager
def recording(base: BaseModel) -> Iterator[RecordingBase]:
    """The same networks, with a memory for as long as the block lasts."""
    recorder = RecordingBase(
        base.id, base.sha256, base.family, base.schedule, base.tokenizer, base.text_encoder, base.unet, base.vae
    )
    try:
        yield recorder
    finally:
        recorder.decoded.clear()


def difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The largest, in units of the [0, 1] range of a picture."""
    return float(np.abs(a - b).max() / 2)
