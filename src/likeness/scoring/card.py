"""The score card of an adapter: plain numbers, and what each of them can tell. Knows neither pixels nor torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True)
class LikenessScore:
    """Distances of dlib descriptors, smaller is more alike; see photos.descriptor.

    `photo_distance` is what the base could reach at best: the person's own photographs after the base's encoder and
    decoder, each against the others. `base_distance` is what it reaches knowing nobody: the same prompts and seeds
    without the adapter. A likeness worth the name is nearer to the first than to the second.
    """

    photos: int  # with a face
    photo_distance: float  # median over the photographs, each left out once
    threshold: float  # the largest of those, dlib's limit for one person at most
    portraits: int
    faces: int  # portraits with a face
    distance: float | None  # median over those; None where there is no face at all
    base_distance: float | None
    alike: float  # share of the portraits within the threshold, 0..1

    @property
    def gained(self) -> float | None:
        """How much of the way from the base to the photographs was gone: 0 = nothing, 1 = as alike as they are."""
        if self.distance is None or self.base_distance is None or self.base_distance <= self.photo_distance:
            return None
        return (self.base_distance - self.distance) / (self.base_distance - self.photo_distance)


@dataclass(frozen=True)
class PromptScore:
    """How often the bare base, asked which of the prompts a portrait was made from, says the right one.

    It can tell whether the place or style that was asked for is in the picture as the base understands it. It cannot
    tell what the base never understood, nor whether the picture is good; and it is the same base that made it.
    """

    prompts: int
    recognised: float  # share of the portraits, 0..1; by chance 1 / prompts
    base_recognised: float  # the same for pictures made without the adapter


@dataclass(frozen=True)
class OverfittingScore:
    """Signs that photographs came out again instead of the person."""

    copies: int  # portraits that look almost the same as one photograph or its mirror image
    copied_backgrounds: int  # portraits in a new place whose background is that of one photograph
    loss_gap: float | None  # how much more the adapter learnt of its own photographs than of ones held out, 0..1


@dataclass(frozen=True)
class ScoreCard:
    """Everything that was measured about one adapter."""

    name: str
    adapter_sha256: str
    base_sha256: str
    seed: int
    likeness: LikenessScore | None  # None for subjects without a face
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
    """The median of those that are numbers; None where none is."""
    known = [number for number in numbers if number is not None]
    return median(known) if known else None
