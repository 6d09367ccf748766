"""Quality of the autoencoder: detail by frequency, identity of the face, and error in decibels."""

import cv2
import numpy as np
import torch
from torch import Tensor

from likeness.photos import check, distance, prepare, read_photos

from .data import psnr_db, to_float
from .exam import Exam
from .faces_gate import photo_renders
from .gates import Figures, Measured
from .likeness_gate import described
from .spectrum import band_ratios, period_two_ratio

BATCH = 32
GATED_BANDS = ("8-16", "16-24", "24-33")
MOST_DESCRIBED = 200


def measure_reconstruction(exam: Exam) -> Figures:
    """Reconstructions of renders in all styles, of photo renders, and of real photographs."""
    renders, photos = exam.held_out[0], as_tensor(photo_renders(exam))
    figures = {"reconstruction of renders": psnr(renders, reconstructed(exam, renders))}
    figures |= detail(photos, made := reconstructed(exam, photos))
    figures["identity of renders"] = identity(exam, photos[:MOST_DESCRIBED], made[:MOST_DESCRIBED])
    if exam.settings.photos is not None:
        real = as_tensor(headshots(exam))
        again = reconstructed(exam, real)
        figures["reconstruction of photos"] = psnr(real, again)
        figures["identity of photos"] = identity(exam, real, again)
    return figures


def as_tensor(pictures: list[np.ndarray]) -> Tensor:
    """(N, 3, H, W) uint8 of pictures (H, W, 3)."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def headshots(exam: Exam) -> list[np.ndarray]:
    """The real photographs, prepared as for a fine-tune of this base, (H, W, 3) at the base's resolution."""
    assert exam.settings.photos is not None
    family = exam.base.family
    side = family.resolution_px
    return [
        np.asarray(cv2.resize(part.image, (side, side), interpolation=cv2.INTER_AREA))
        for usable in check(read_photos([exam.settings.photos]), kind="person").usable
        for part in prepare(usable.image, usable.face, usable.photo.sha256, size_px=2 * side)
        if part.framing in family.framings
    ]


def reconstructed(exam: Exam, images: Tensor) -> Tensor:
    """decode(encode(images)), (N, 3, H, W) uint8 both."""
    parts = [exam.base.decode(exam.base.encode_photo(to_float(part))).cpu() for part in images.split(BATCH)]
    return ((torch.cat(parts) + 1) * 127.5).round().byte()


def psnr(images: Tensor, made: Tensor) -> Measured:
    """Mean over images (N, 3, H, W) uint8."""
    each = psnr_db(to_float(made), to_float(images))
    return Measured(each.mean().item(), len(each), f"worst image {each.min().item():.1f} dB")


def detail(images: Tensor, made: Tensor) -> Figures:
    """Power by frequency of decoded images over that of the images themselves, (N, 3, H, W) uint8."""
    ratios, count = band_ratios(made, images), len(images)
    note = ", ".join(f"{name}: {ratio:.2f}" for name, ratio in ratios.items() if name not in GATED_BANDS)
    return {f"band {name}": Measured(ratios[name], count, note) for name in GATED_BANDS} | {
        "period two": Measured(period_two_ratio(made, images), count)
    }


def identity(exam: Exam, images: Tensor, made: Tensor) -> Measured:
    """Mean distance of dlib's descriptors of an image and its reconstruction; (N, 3, H, W) uint8."""
    pairs = [described(exam, many.permute(0, 2, 3, 1).contiguous().numpy()) for many in (images, made)]
    each = np.array([distance(one, other) for one, other in zip(*pairs, strict=True)])
    found = each[~np.isnan(each)]
    mean = float(found.mean()) if len(found) else float("nan")
    return Measured(mean, len(found), f"a face was found in both for {len(found)} of {len(each)}")
