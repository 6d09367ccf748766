"""A photograph -> training images with their masks: squares, and one in the aspect bucket that is nearest to it.

A person has three framings: head and shoulders, the face alone, and the aligned headshot of `align`. The family of the
base says which of them are trained on. Other subjects have one framing, around the most salient region. A frame that
extends beyond the photograph is filled with a blurred continuation of the edge, because black bars would be learned.

Aspect buckets (NovelAI 2022; Podell et al. 2023, section 2.3): bases that learned images of several aspects, all of
about one area, need not lose what a square crop cuts off. An upright photograph of a person gives a head and shoulders
with more of the body too, and one of another subject nearly the whole picture.

Sources: Hou, Zhang, 'Saliency detection: a spectral residual approach', CVPR 2007.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..types import PREPARED_PX, Advance, Crop, PreparedPhoto, Watch, unwatched
from .align import face_alignment
from .face import Face
from .glasses import wears_glasses
from .matte import covering, only_at, person_probability, refine
from .report import CheckResult

_CLOSE_FILL = 0.61  # the face's share of the frame's side, as in the built-in base's training images
_PORTRAIT_FILL = 0.42
# row of the face's centre, as a share of the side from the top: leaves room for hair and shoulders
_FACE_ROW = {"portrait": 0.47, "close": 0.54}
_ROOM_TO_TURN = 1.5  # side of the upright square that contains the aligned square at any rotation
_SALIENCY_SIDE_PX = 64

Pixels = NDArray[np.integer | np.floating]  # array types that cv2 accepts
Frame = tuple[int, int, int, int]  # left, top, width, height in pixels; may reach beyond the image
Aspect = tuple[int, int]  # height and width of a bucket, in sixteenths of the square's side
_SQUARE: Aspect = (16, 16)


def prepare_usable(
    checked: CheckResult, *, size_px: int = PREPARED_PX, aspects: Sequence[Aspect] = (), watch: Watch = unwatched
) -> tuple[PreparedPhoto, ...]:
    """Training images of every usable photograph, in order. Raises as `prepare`."""
    prepared: list[PreparedPhoto] = []
    for done, one in enumerate(checked.usable, start=1):
        prepared += prepare(one.image, one.face, one.photo.sha256, size_px=size_px, aspects=aspects)
        watch(Advance("prepare", done, len(checked.usable)))
    return tuple(prepared)


def prepare(
    image: NDArray[np.uint8], face: Face | None, source_sha256: str, *,
    size_px: int = PREPARED_PX, aspects: Sequence[Aspect] = (),
) -> list[PreparedPhoto]:  # fmt: skip
    """Training images of one photograph.

    Args:
        image: (H, W, 3) RGB, 0..255.
        face: the person's face; None for other subjects.
        source_sha256: of the photograph's bytes.
        size_px: side of the square results; those in a bucket have about the same area.
        aspects: the buckets of the base, besides the square; (): squares only.

    Returns:
        `portrait`, `close` and `aligned` for a person, `whole` otherwise; then `tall` or `full`, if the photograph is
        nearer to another bucket than to the square.

    Raises:
        UsageError: `size_px` is out of 32..2048.
        MissingPart: the matte of a person needs LiteRT and a model, which are not installed.
    """
    if not 32 <= size_px <= 2048:
        raise UsageError(f"expected size_px of 32 to 2048, got {size_px}", hint="512 is right for most bases")
    height, width = image.shape[:2]
    bucket = nearest_aspect(height / width, aspects)
    size = bucket[0] * size_px // 16, bucket[1] * size_px // 16
    if face is None:
        squares = [_whole(image, source_sha256, "whole", (size_px, size_px))]
        return squares if bucket == _SQUARE else [*squares, _whole(image, source_sha256, "full", size)]
    squares = list(_framings(image, face, source_sha256, size_px=size_px))
    frame = tall_frame(face, image.shape, bucket)
    found = squares if frame is None else [*squares, _tall(image, face, source_sha256, frame, size)]
    glasses = wears_glasses(image, face)
    return [replace(one, glasses=glasses) for one in found]


def nearest_aspect(aspect: float, buckets: Sequence[Aspect]) -> Aspect:
    """The bucket, the square included, whose height / width is nearest to `aspect` by their ratio."""
    return min((_SQUARE, *buckets), key=lambda one: abs(math.log(one[0] / one[1] / aspect)))


def frame_of(framing: str, face: Face, shape: tuple[int, ...]) -> Frame:
    """The square of a framing, shifted into the image as far as possible."""
    height, width = shape[:2]
    left, top, right, bottom = face.box_px
    close = face.size_px / _CLOSE_FILL
    # A tight photograph does not show the shoulders: a narrower portrait is better than invented margins.
    portrait = max(min(face.size_px / _PORTRAIT_FILL, min(height, width)), close)
    side = max(round(close if framing == "close" else portrait), 1)
    x = (left + right) / 2 - side / 2
    y = (top + bottom) / 2 - side * _FACE_ROW[framing]
    return _moved_inside(x, width, side), _moved_inside(y, height, side), side, side


def tall_frame(face: Face, shape: tuple[int, ...], bucket: Aspect) -> Frame | None:
    """Head and shoulders and more of the body, of the portrait's area; None: no room, or no bucket for it.

    The face has the distance from the upper edge that it has in the portrait.
    """
    height, width = shape[:2]
    _, _, side, _ = frame_of("portrait", face, shape)
    across, down = round(side * bucket[1] / 16), round(side * bucket[0] / 16)
    if bucket[0] <= bucket[1] or across > width or down > height:
        return None
    left, top, right, bottom = face.box_px
    x = (left + right) / 2 - across / 2
    y = (top + bottom) / 2 - side * _FACE_ROW["portrait"]
    return _moved_inside(x, width, across), _moved_inside(y, height, down), across, down


def cut_out(image: NDArray[np.uint8], frame: Frame, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A frame of the image, (*size, 3); margins beyond the edge are a blurred continuation of it."""
    left, top, across, down = frame
    height, width = image.shape[:2]
    pads = (max(-top, 0), max(top + down - height, 0), max(-left, 0), max(left + across - width, 0))
    inside = image[max(top, 0) : top + down, max(left, 0) : left + across]
    padded = cv2.copyMakeBorder(inside, *pads, borderType=cv2.BORDER_REPLICATE)
    resized = np.asarray(_resized(padded, size), dtype=np.uint8)
    if not any(pads):
        return resized
    margin = cv2.copyMakeBorder(
        np.zeros(inside.shape[:2], np.float32), *pads, borderType=cv2.BORDER_CONSTANT, value=(1.0,)
    )
    sigma = max(max(size) / 40, 1.0)
    # Soft, so that no edge is learned at the seam.
    share = np.clip(cv2.GaussianBlur(_resized(margin, size), (0, 0), sigma / 4), 0, 1)[..., None]
    mixed = cv2.GaussianBlur(resized, (0, 0), sigma) * share + resized * (1 - share)
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def face_mask(face: Face, frame: Frame, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The face's oval (*size,), 255 inside: hull of the landmarks, a little wider, soft-edged."""
    left, top, across, down = frame
    points = (face.landmarks[:, :2] - (left, top)) * (size[1] / across, size[0] / down)
    canvas = np.zeros(size, dtype=np.uint8)
    cv2.fillConvexPoly(canvas, cv2.convexHull(np.rint(points).astype(np.int32)), (255,))
    extent = face.size_px * size[0] / down
    reach = max(round(extent * 0.03), 1)
    wider = cv2.dilate(canvas, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2))
    return np.asarray(cv2.GaussianBlur(wider, (0, 0), max(extent * 0.02, 0.5)), dtype=np.uint8)


def saliency(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Saliency (64, 64), 0..1, by the spectral residual: the log spectrum minus its average, inverted (eq. 4 to 8)."""
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(luma, (_SALIENCY_SIDE_PX,) * 2, interpolation=cv2.INTER_AREA).astype(np.float32)
    spectrum = np.fft.fft2(small)
    log_amplitude = np.log(np.abs(spectrum) + 1e-6).astype(np.float32)
    residual = log_amplitude - cv2.blur(log_amplitude, (3, 3))
    back = np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))
    found = cv2.GaussianBlur((np.abs(back) ** 2).astype(np.float32), (0, 0), 2.5)
    return np.asarray(found / max(float(found.max()), 1e-12), dtype=np.float32)


def _framings(image: NDArray[np.uint8], face: Face, source_sha256: str, *, size_px: int) -> Iterator[PreparedPhoto]:
    wide = frame_of("portrait", face, image.shape)
    coarse = _person_in(image, face, wide)  # the segmenter needs the shoulders, so it gets the wide frame only
    for framing in ("portrait", "close"):
        frame = frame_of(framing, face, image.shape)
        yield _framed(image, face, source_sha256, framing, frame, (size_px, size_px), coarse=coarse, wide=wide)
    yield _aligned(image, face, source_sha256, size_px=size_px, coarse=coarse, wide=wide)


def _tall(
    image: NDArray[np.uint8], face: Face, source_sha256: str, frame: Frame, size: tuple[int, int]
) -> PreparedPhoto:
    left, top, across, down = frame
    wide = round(left + across / 2 - down / 2), top, down, down
    coarse = _person_in(image, face, wide)
    return _framed(image, face, source_sha256, "tall", frame, size, coarse=coarse, wide=wide)


def _person_in(image: NDArray[np.uint8], face: Face, wide: Frame) -> NDArray[np.float32]:
    """The probability of the face's person in a square frame, (512, 512)."""
    coarse = person_probability(cut_out(image, wide, (512, 512)))
    left, top, side, _ = wide
    middle = [(face.landmarks[:, axis].mean() - corner) * 512 / side for axis, corner in ((0, left), (1, top))]
    return only_at(coarse, (middle[0], middle[1]))


def _framed(
    image: NDArray[np.uint8], face: Face, source_sha256: str, framing: str, frame: Frame, size: tuple[int, int], *,
    coarse: NDArray[np.float32], wide: Frame,
) -> PreparedPhoto:  # fmt: skip
    """A frame with its masks, the matte from the probability in the frame `wide`."""
    picture = cut_out(image, frame, size)
    mask = face_mask(face, frame, size)
    matte = covering(refine(_refit(coarse, wide, frame, size), picture), mask)
    return PreparedPhoto(picture, matte, mask, framing, source_sha256, _crop(image, frame))


def _crop(image: NDArray[np.uint8], frame: Frame) -> Crop:
    left, top, across, down = frame
    return Crop(image.shape[0], image.shape[1], top, left, down, across)


def _aligned(
    image: NDArray[np.uint8], face: Face, source_sha256: str, *,
    size_px: int, coarse: NDArray[np.float32], wide: Frame,
) -> PreparedPhoto:  # fmt: skip
    """Crops and reduces an upright square around the headshot, then rotates it: rotating first would alias."""
    across = face_alignment(face.landmarks)  # pixels -> unit square
    back = cv2.invertAffineTransform(across)
    side = round(_ROOM_TO_TURN * float(np.hypot(*back[:, 0])))
    middle = back @ (0.5, 0.5, 1.0)
    window: Frame = (round(middle[0] - side / 2), round(middle[1] - side / 2), side, side)
    room_px = round(_ROOM_TO_TURN * size_px)
    step = side / room_px  # of one pixel of the window
    to_image = np.array([[step, 0, window[0]], [0, step, window[1]], [0, 0, 1]])
    turn = size_px * across @ to_image  # window pixels -> aligned pixels
    # Pixel centres are at half-integers in both.
    turn[:, 2] += turn[:, :2] @ (0.5, 0.5) - 0.5

    def turned(plane: Pixels, flags: int) -> Pixels:
        return cv2.warpAffine(plane, turn, (size_px, size_px), flags=flags, borderMode=cv2.BORDER_REPLICATE)

    picture = np.asarray(turned(cut_out(image, window, (room_px, room_px)), cv2.INTER_CUBIC), dtype=np.uint8)
    probability = turned(_refit(coarse, wide, window, (room_px, room_px)), cv2.INTER_LINEAR)
    mask = turned(face_mask(face, window, (room_px, room_px)), cv2.INTER_LINEAR)
    inside = np.asarray(mask, dtype=np.uint8)
    matte = covering(refine(np.asarray(probability, dtype=np.float32), picture), inside)
    return PreparedPhoto(picture, matte, inside, "aligned", source_sha256)


def _refit(plane: NDArray[np.float32], old: Frame, new: Frame, size: tuple[int, int]) -> NDArray[np.float32]:
    """A plane of the square frame `old`, resampled for the frame `new`."""
    scale = plane.shape[0] / old[2]
    steps = [new[2] / size[1] * scale, new[3] / size[0] * scale]
    shift = [(new[axis] - old[axis]) * scale + 0.5 * steps[axis] - 0.5 for axis in (0, 1)]  # pixel centres
    back = np.array([[steps[0], 0, shift[0]], [0, steps[1], shift[1]]], dtype=np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(plane, back, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE))


def _whole(image: NDArray[np.uint8], source_sha256: str, framing: str, size: tuple[int, int]) -> PreparedPhoto:
    """The largest part of the picture with the aspect of `size` that has most of what is salient."""
    height, width = image.shape[:2]
    aspect = size[0] / size[1]
    across, down = min(width, max(round(height / aspect), 1)), min(height, max(round(width * aspect), 1))
    is_wide = width - across > height - down  # which way the frame can move
    long, kept = (width, across) if is_wide else (height, down)
    profile = saliency(image).sum(axis=0 if is_wide else 1)  # (64,) along that side
    window = max(round(_SALIENCY_SIDE_PX * kept / long), 1)
    sums = np.convolve(profile, np.ones(window), mode="valid")
    best = np.flatnonzero(sums >= sums.max() * (1 - 1e-6))
    start = round(float(best.mean()) * (long - kept) / max(len(sums) - 1, 1))
    frame = (start, 0, across, down) if is_wide else (0, start, across, down)
    full = np.full(size, 255, dtype=np.uint8)
    crop = _crop(image, frame)
    return PreparedPhoto(cut_out(image, frame, size), full, np.zeros_like(full), framing, source_sha256, crop)


def _moved_inside(start: float, limit: int, side: int) -> int:
    return round(min(max(start, 0), limit - side) if side <= limit else (limit - side) / 2)


def _resized(picture: Pixels, size: tuple[int, int]) -> Pixels:
    method = cv2.INTER_AREA if picture.shape[0] > size[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, size[::-1], interpolation=method))
