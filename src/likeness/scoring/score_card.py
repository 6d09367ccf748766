"""The score card of an adapter: numbers, and their meaning and limits. Independent of pixels and torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True)
class LikenessScore:
    """Distances of dlib descriptors, smaller is more similar; see photos.descriptor.

    `photo_distance` is the best that the base can reach: the person's photographs after the base's encoder and decoder,
    each against the others. `base_distance` is the baseline: the same prompts and seeds without the adapter. A good
    adapter's distance is closer to the first than to the second.
    """

    photos: int  # with a face
    photo_distance: float  # median over the photographs, leave-one-out
    threshold: float  # the largest leave-one-out distance, at most dlib's limit for one person
    portraits: int
    faces: int  # portraits with a face
    distance: float | None  # median over those; None if no portrait has a face
    base_distance: float | None
    alike: float  # share of the portraits within the threshold, 0..1

    @property
    def gained(self) -> float | None:
        """Progress from baseline to photographs: 0: as the baseline, 1: as similar as the photographs."""
        if self.distance is None or self.base_distance is None or self.base_distance <= self.photo_distance:
            return None
        return (self.base_distance - self.distance) / (self.base_distance - self.photo_distance)


@dataclass(frozen=True)
class PromptScore:
    """How often the base, used as a classifier, recognises the prompt of a portrait.

    This measures whether place and style of the prompt are visible to the base. It does not measure concepts that the
    base does not know, nor image quality. Note that the same base made the image.
    """

    prompts: int
    recognised: float  # share of the portraits, 0..1; chance is 1 / prompts
    base_recognised: float  # the same for images made without the adapter


@dataclass(frozen=True)
class OverfittingScore:
    """Memorisation: signs that photographs are reproduced."""

    copies: int  # portraits that nearly equal a photograph or its mirror image
    copied_backgrounds: int  # portraits with the background of a photograph although the prompt names a place
    loss_gap: float | None  # improvement on training photographs minus that on held-out ones, 0..1


@dataclass(frozen=True)
class ScoreCard:
    """All measurements of one adapter."""

    name: str
    adapter_sha256: str
    base_sha256: str
    seed: int
    likeness: LikenessScore | None  # None for things and styles
    prompt: PromptScore
    overfitting: OverfittingScore
    seconds: float

    def to_json(self) -> dict[str, object]:
        """The document of `likeness score --json`."""
        document = asdict(self)
        if self.likeness is not None:
            document["likeness"]["gained"] = self.likeness.gained
        return document


def middle(numbers: Sequence[float | None]) -> float | None:
    """The median of the numbers; None if there are none."""
    known = [number for number in numbers if number is not None]
    return median(known) if known else None
