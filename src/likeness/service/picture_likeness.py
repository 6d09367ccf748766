"""How similar the face of one kept image is to the stored photographs of its subject.

The measure is that of `scoring.likeness`: the median distance of face descriptors. Those of the photographs come from
their check, whose memory (`examined`) is emptied when the subject is deleted.
"""

import io
from dataclasses import dataclass
from statistics import median

import numpy as np
from PIL import Image

from ..errors import InputRefused, NotFound
from ..storage.library import AdapterLibrary
from ..types import BARE_BASE
from . import kept
from .subjects import Subjects


@dataclass(frozen=True)
class PictureLikeness:
    """Distances of face descriptors: 0 is the same image, about 0.6 the limit of one person."""

    distance: float  # of the image to the photographs, median
    photo_distance: float  # of the photographs to each other, median
    is_same: bool  # whether a comparison of faces takes it for the same person


def picture_likeness(subjects: Subjects, library: AdapterLibrary, tenant: str, id: str) -> PictureLikeness:
    """Compare one kept image with the photographs of its subject.

    Raises:
        NotFound: there is no such image.
        InputRefused: no descriptor can be computed: an image of the base alone, a subject without three photographs
            with a face, or no face in the image.
    """
    from ..photos import SAME_PERSON, MediaPipeFaces
    from ..scoring.likeness import LEAST_PHOTOS, Reference, identity_of

    record = kept.record_of(library, tenant, id)
    if record.subject == BARE_BASE:
        raise InputRefused("an image of the base alone has no subject", code="PhotosRefused")
    try:
        _, checked = subjects.check(tenant, record.subject)
    except NotFound:
        raise InputRefused("its subject has no stored photographs", code="PhotosRefused") from None
    known = tuple(one.identity for one in checked.usable if one.identity is not None)
    if len(known) < LEAST_PHOTOS:
        raise InputRefused(
            f"expected at least {LEAST_PHOTOS} stored photographs with a face, got {len(known)}", code="PhotosRefused"
        )
    with Image.open(io.BytesIO(library.objects.get(record.key))) as picture:
        identity = identity_of(np.asarray(picture.convert("RGB")), MediaPipeFaces())
    if identity is None:
        raise InputRefused("no face was found in the image", code="PhotosRefused")
    reference = Reference(known)
    distance = reference.distance_of(identity)
    among = median(reference.left_out(place) for place in range(len(known)))
    return PictureLikeness(distance, among, distance <= SAME_PERSON)
