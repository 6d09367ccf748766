"""Work on the device: images begin, advance and are decoded in batches of one size, as large as memory allows.

When memory runs out the batch is halved and the step is done again in parts. After any other failure the step is done
again image by image, so that only the image that causes the failure fails.
"""

import logging
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..diffusion.base import BaseModel
from ..diffusion.devices import is_out_of_memory, release_memory
from ..diffusion.pixels import to_images
from ..diffusion.sampling import AdapterSlot, Denoising, Router, advance, begin, row_count, square_rows
from ..errors import DeviceFailed, LikenessError
from ..types import ImageRequest
from .batch_limits import Limits
from .batcher import RowLimit, parts_of

PREVIEW_PX = 128  # longest side
log = logging.getLogger("likeness.engine")

T = TypeVar("T")
R = TypeVar("R")


class Device:
    """One base and its banks. Not thread-safe."""

    def __init__(self, base: BaseModel, banks: Router, *, limits: Limits) -> None:
        self.base, self.banks = base, banks
        self.rows, self.images = limits.rows, limits.images

    def begin(self, asked: Sequence[tuple[ImageRequest, Sequence[AdapterSlot]]]) -> list[Denoising | Exception]:
        """Encode prompts and draw the noise."""

        def start(part: Sequence[tuple[ImageRequest, Sequence[AdapterSlot]]]) -> list[Denoising]:
            return begin(self.base, self.banks, [request for request, _ in part], [slots for _, slots in part])

        out, self.rows = apart(
            asked, start, self.rows, rows=lambda one: row_count(one[0]), kind=lambda one: (one[0].width, one[0].height)
        )
        return out

    def advance(self, images: Sequence[Denoising]) -> list[Exception | None]:
        """One step of every image; an image that fails is as before."""

        def step(part: Sequence[Denoising]) -> list[None]:
            advance(self.base, self.banks, part)
            return [None] * len(part)

        out, self.rows = apart(
            images, step, self.rows, rows=lambda image: square_rows(self.base, len(image.prompts), image.x.shape),
            kind=lambda image: image.x.shape,
        )  # fmt: skip
        self.rows = self.rows.after_step()
        return out

    def decode(self, latents: Sequence[Tensor]) -> list[NDArray[np.uint8] | Exception]:
        """Latents (C, h, w) each -> (H, W, 3) RGB each."""
        out, self.images = apart(
            latents, lambda part: to_images(self.base.decode(torch.stack(list(part)))), self.images,
            rows=lambda latent: square_rows(self.base, 1, latent.shape), kind=lambda latent: latent.shape,
        )  # fmt: skip
        self.images = self.images.after_step()
        return out


def apart(
    items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]], limit: RowLimit, *, rows: Callable[[T], int],
    kind: Callable[[T], Hashable] = lambda item: None,
) -> tuple[list[R | Exception], RowLimit]:  # fmt: skip
    """Call `work` on all items, as many of one kind at once as the limit allows; return the results and the new limit.

    Out of memory: the limit is halved and the part is done again in smaller parts. Any other error: the part is done
    again item by item, and the result of an item that fails alone is its error.
    """
    out: list[R | Exception] = [DeviceFailed("not reached")] * len(items)
    counts = [rows(item) for item in items]
    alike: dict[Hashable, list[int]] = {}
    for i, item in enumerate(items):
        alike.setdefault(kind(item), []).append(i)
    parts = deque(group[part] for group in alike.values() for part in parts_of([counts[i] for i in group], limit.now))
    while parts:
        part = parts.popleft()
        try:
            for i, result in zip(part, work([items[i] for i in part]), strict=True):
                out[i] = result
        except Exception as error:
            is_memory = is_out_of_memory(error)
            if is_memory:
                limit = limit.halved(sum(counts[i] for i in part))
                release_memory()
                log.warning("out of memory: batch limit lowered to %d rows", limit.now)
            if len(part) == 1:
                out[part[0]] = _failure(error, is_memory)
            elif is_memory:
                smaller = parts_of([counts[i] for i in part], limit.now)
                parts.extendleft(reversed([part[piece] for piece in smaller]))
            else:
                parts.extendleft([i] for i in reversed(part))
    return out, limit


def small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image with its longest side at most `PREVIEW_PX`."""
    preview = Image.fromarray(image)
    preview.thumbnail((PREVIEW_PX, PREVIEW_PX), Image.Resampling.BOX)
    return np.asarray(preview)


def _failure(error: Exception, is_memory: bool) -> Exception:
    if is_memory:
        return DeviceFailed("the device has no memory for this image", hint="free device memory, or use a smaller base")
    if isinstance(error, LikenessError):
        return error
    log.error("an image failed", exc_info=error)
    failure = DeviceFailed(f"the device failed at this image ({type(error).__name__})")
    failure.__cause__ = error
    return failure
