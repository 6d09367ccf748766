"""Consent: checks that a person may be trained, and records the consent.

The check uses the final name and class noun of the adapter. It is made when a request arrives and again before
photographs are prepared, because an archive can change both.

A thing or a style needs a consent only where its pictures show faces: without one, `photos.check` refuses each picture
of a style with a face, and those of a thing if half of its pictures show one. So a person is not trained as a thing or
a style without a consent.
"""

from ..errors import AlreadyExists, ConsentMissing, NotFound, UsageError
from ..types import Subject, checked_subject, is_whole, kind_of, means_person
from .catalog import Catalog, now
from .records import SubjectRecord

MOST_CHARACTERS = 2000


def require_word(subject: Subject, consent: str) -> None:
    """Raises ConsentMissing: a person without a consent. UsageError: too long, or see `is_whole`."""
    if len(consent) > MOST_CHARACTERS or not is_whole(consent):
        raise UsageError(
            f"expected a consent of at most {MOST_CHARACTERS} whole characters without NUL, got {len(consent)}"
        )
    if subject.is_person and not consent.strip():
        raise ConsentMissing(
            "expected the consent of this person, got none", hint="state in `consent` who agreed and when"
        )


def record_subject(catalog: Catalog, tenant: str, subject: Subject, *, consent: str) -> SubjectRecord:
    """Record a new subject.

    Args:
        consent: who agreed, in the caller's words, at most 2000 characters; deleted with the subject.

    Raises:
        ConsentMissing: a person without a consent.
        AlreadyExists, UsageError: the name is taken; a value is out of range.
    """
    require_word(checked_subject(subject), consent)
    at = now()
    record = SubjectRecord(tenant, subject.name, subject.class_noun, subject.identifier, consent, at, at)
    catalog.add_subject(record)
    return record


def require_consent(catalog: Catalog, tenant: str, subject: Subject, *, consent: str = "") -> SubjectRecord | None:
    """Refuse a person without recorded consent.

    An unknown subject is recorded if it needs consent, or if a consent is given. The consent of a known subject is not
    changed.

    Returns:
        the record, if this call wrote it.

    Raises:
        ConsentMissing: the class noun means a person, and no person of this name has a recorded consent.
        UsageError: a name, class noun or consent is out of range.
    """
    try:
        known = catalog.find_subject(tenant, subject.name)
    except NotFound:
        if not subject.is_person and not consent.strip():
            return None
        try:
            return record_subject(catalog, tenant, subject, consent=consent)
        except AlreadyExists:  # recorded by a concurrent request
            known = catalog.find_subject(tenant, subject.name)
    if subject.is_person and not (means_person(known.class_noun) and known.consent.strip()):
        raise ConsentMissing(
            "expected a subject recorded as a person with consent, got one recorded as an object or a style",
            hint="delete the subject and create it again as a person, with `consent`",
        )
    return None


def covers_faces(catalog: Catalog, tenant: str, subject: Subject) -> bool:
    """Whether a consent is on record under this name, for a subject of this kind or for a person."""
    try:
        known = catalog.find_subject(tenant, subject.name)
    except NotFound:
        return False
    return kind_of(known.class_noun) in ("person", subject.kind) and bool(known.consent.strip())
