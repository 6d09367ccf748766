"""What the catalog knows of adapters, subjects, photographs, pictures and deletions: one row each, as plain values."""

from dataclasses import dataclass

from ..types import AdapterCard


@dataclass(frozen=True)
class AdapterRecord:
    """A published adapter: its card, and where its bytes are."""

    tenant: str
    card: AdapterCard
    key: str  # of its object
    bytes: int

    @property
    def name(self) -> str:
        return self.card.name


@dataclass(frozen=True)
class SubjectRecord:
    """Who is to be learnt, and who has agreed to it."""

    tenant: str
    name: str
    class_noun: str
    identifier: str
    consent: str  # as it was given
    consented: str  # ISO 8601, UTC
    created: str


@dataclass(frozen=True)
class PhotoRecord:
    """An uploaded photograph: what was found about it, and where its clean copy is."""

    tenant: str
    subject: str
    sha256: str  # of what was received
    file: str  # for messages only
    bytes: int  # of the clean copy
    report: str  # JSON, photos.report.PhotoReport
    key: str
    created: str


@dataclass(frozen=True)
class OutputRecord:
    """A portrait that was kept."""

    tenant: str
    id: str
    subject: str  # the adapter's name, or `base`
    media_type: str
    bytes: int
    key: str
    created: str


@dataclass(frozen=True)
class ForgottenItem:
    """One kind of thing that was deleted."""

    kind: str
    count: int  # files, objects or rows
    bytes: int


@dataclass(frozen=True)
class Receipt:
    """Proof of a deletion: what went and when, and nothing of what it was."""

    name: str
    items: tuple[ForgottenItem, ...]
    at: str  # ISO 8601, UTC
