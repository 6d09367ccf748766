"""Similarity of an image to a person's photographs: distances of face descriptors.

An image's distance is the median of its distances to the photographs, as in `photos.identity`, so that one unusual
photograph has little effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputRefused
from ..photos import SAME_PERSON, FaceDetector, MediaPipeFaces, choose, descriptor, distance
from ..types import PreparedPhoto

LEAST_PHOTOS = 3
_MOST_FACES = 4  # per image
_SIDE_PX = 512  # small images are enlarged: face detector and descriptor are trained on photographs

Image = NDArray[np.uint8]  # (H, W, 3) RGB
Identity = NDArray[np.float64]  # (128,)


def identity_of(image: Image, detector: FaceDetector) -> Identity | None:
    """The descriptor of the most important face; None without a face."""
    found = _identities_of(image, detector, most=1)
    return found[0] if found else None


def _identities_of(image: Image, detector: FaceDetector, most: int) -> list[Identity]:
    """Descriptors of a limited number of faces, the most important first."""
    if image.shape[0] < _SIDE_PX:
        image = np.asarray(cv2.resize(image, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    return [descriptor(image, face) for face in detector.detect(image)[:most]]


@dataclass(frozen=True, eq=False)
class Reference:
    """The identity of a person: the descriptors of the photographs with a face."""

    photos: tuple[Identity, ...]

    @classmethod
    def of(cls, prepared: Sequence[PreparedPhoto], *, detector: FaceDetector | None = None) -> "Reference":
        """From prepared photographs; only the portrait framing, so that no photograph counts twice.

        Raises:
            InputRefused: fewer than three with a face.
            MissingPart: LiteRT, dlib or a model is not installed.
        """
        finder = detector or MediaPipeFaces()
        every = [_identities_of(photo.image, finder, most=_MOST_FACES) for photo in portraits_of(prepared)]
        found = [faces for faces in every if faces]
        # The largest face of a crop may be another person's.
        known = tuple(faces[place] for faces, place in zip(found, choose(found).faces, strict=True))
        if len(known) < LEAST_PHOTOS:
            raise InputRefused(
                f"expected at least {LEAST_PHOTOS} photographs with a face, got {len(known)}",
                hint="the score needs photographs of a person with a visible face",
                code="PhotosRefused",
            )
        return cls(known)

    def distance_of(self, identity: Identity) -> float:
        """The median distance to the photographs."""
        return float(np.median([distance(identity, photo) for photo in self.photos]))

    def left_out(self, place: int, identity: Identity | None = None) -> float:
        """The median distance of one photograph, or of `identity` in its place, to all others."""
        one = self.photos[place] if identity is None else identity
        return float(np.median([distance(one, other) for k, other in enumerate(self.photos) if k != place]))


def portraits_of(prepared: Sequence[PreparedPhoto]) -> list[PreparedPhoto]:
    """One framing of each photograph: head and shoulders, or the whole image."""
    return [photo for photo in prepared if photo.framing in ("portrait", "whole")]


def threshold_of(distances: Sequence[float]) -> float:
    """The largest leave-one-out distance, at most dlib's limit for one person."""
    return min(max(distances), SAME_PERSON)


def ranked(images: Sequence[Image], reference: Reference, *, detector: FaceDetector | None = None) -> list[int]:
    """Indices of the images, the most similar first; those without a face last, in their order."""
    finder = detector or MediaPipeFaces()
    found = [identity_of(image, finder) for image in images]
    far = [np.inf if one is None else reference.distance_of(one) for one in found]
    return [int(place) for place in np.argsort(far, kind="stable")]
