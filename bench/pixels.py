"""Images of an engine before rounding to 8 bits: a base that records its decoded images."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from likeness.diffusion.base import BaseModel
from likeness.diffusion.pixels import to_images
from likeness.diffusion.stable_diffusion import StableDiffusion
from likeness.types import GeneratedImage


@dataclass(frozen=True, eq=False)
class RecordingBase(StableDiffusion):
    """A base whose decoder records the float pixels of each image, keyed by the rounded ones."""

    decoded: dict[bytes, Tensor] = field(default_factory=dict)

    def decode(self, latents: Tensor) -> Tensor:
        pixels = super().decode(latents)
        for image, floats in zip(to_images(pixels), pixels, strict=True):
            self.decoded[image.tobytes()] = floats.clone()
        return pixels

    def pixels_of(self, image: GeneratedImage) -> NDArray[np.float64]:
        """(3, H, W) in [-1, 1], before rounding."""
        return self.decoded[image.image.tobytes()].double().cpu().numpy()


@contextmanager
def recording(base: BaseModel) -> Iterator[RecordingBase]:
    """The same networks, recording within the block."""
    recorder = RecordingBase(base.id, base.sha256, base.family, base.schedule, base.tokenizers, base.parts)
    try:
        yield recorder
    finally:
        recorder.decoded.clear()


def difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The largest difference, in units of an image's [0, 1] range."""
    return float(np.abs(a - b).max() / 2)
