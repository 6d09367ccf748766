"""The catalog's records: adapters, subjects, photographs, images and receipts, one dataclass per row."""

from dataclasses import dataclass

from ..types import AdapterCard


@dataclass(frozen=True)
class AdapterRecord:
    """A published adapter: its card and the key of its object."""

    tenant: str
    card: AdapterCard
    key: str  # of its object
    bytes: int

    @property
    def name(self) -> str:
        return self.card.name


@dataclass(frozen=True)
class SubjectRecord:
    """A subject and its consent."""

    tenant: str
    name: str
    class_noun: str
    identifier: str
    consent: str  # as given by the caller
    consented: str  # ISO 8601, UTC
    created: str


@dataclass(frozen=True)
class PhotoRecord:
    """An uploaded photograph: the result of its check, and the key of its clean copy."""

    tenant: str
    subject: str
    sha256: str  # of the uploaded file
    file: str  # for messages only
    bytes: int  # of the clean copy
    report: str  # JSON, photos.report.PhotoReport
    key: str
    created: str


@dataclass(frozen=True)
class OutputRecord:
    """A stored portrait."""

    tenant: str
    id: str
    subject: str  # the adapter's name, or `base`
    media_type: str
    bytes: int
    key: str
    created: str
    facts: str = "{}"  # JSON, see service.image_files.facts
    is_favourite: bool = False


@dataclass(frozen=True)
class ForgottenItem:
    """The number of deleted items of one kind."""

    kind: str
    count: int  # files, objects or rows
    bytes: int


@dataclass(frozen=True)
class Receipt:
    """Proof of a deletion: time and counts, without content."""

    name: str
    items: tuple[ForgottenItem, ...]
    at: str  # ISO 8601, UTC
