"""Consent on record: the one check that a person may be trained, and the one place where their word is written down.

The check is made on the name and class noun that an adapter will have, at the door and again before photographs are
prepared: an archive may change both in between.
"""

from ..errors import AlreadyExists, ConsentMissing, NotFound, UsageError
from ..types import Subject, checked_subject, means_person
from .catalog import Catalog, now
from .records import SubjectRecord

MOST_CHARACTERS = 2000


def require_word(subject: Subject, consent: str) -> None:
    """Raises ConsentMissing: a person without a word of consent. UsageError: more than 2000 characters."""
    if len(consent) > MOST_CHARACTERS or "\0" in consent:
        raise UsageError(f"expected a consent of at most {MOST_CHARACTERS} characters")
    if subject.is_person and not consent.strip():
        raise ConsentMissing(
            "expected a word that this person agrees, got none", hint="say in `consent` who agreed and when"
        )


def record_subject(catalog: Catalog, tenant: str, subject: Subject, *, consent: str) -> SubjectRecord:
    """Write down a new subject.

    Args:
        consent: who agreed, in the caller's words, at most 2000 characters; deleted with the subject.

    Raises:
        ConsentMissing: a person without a word about it.
        AlreadyExists, UsageError: the name is taken; a value out of its range.
    """
    require_word(checked_subject(subject), consent)
    at = now()
    record = SubjectRecord(tenant, subject.name, subject.class_noun, subject.identifier, consent, at, at)
    catalog.add_subject(record)
    return record


def require_consent(catalog: Catalog, tenant: str, subject: Subject, *, consent: str = "") -> SubjectRecord | None:
    """Refuse a person who has not agreed.

    A subject that is not known yet is written down where it needs consent, or where consent was said. The words of a
    subject that is known stay as they are.

    Returns:
        the record, if this call wrote it.

    Raises:
        ConsentMissing: the class noun means a person, and no person of this name is on record with a word of consent.
        UsageError: a name, class noun or consent out of its range.
    """
    try:
        known = catalog.find_subject(tenant, subject.name)
    except NotFound:
        if not subject.is_person and not consent.strip():
            return None
        try:
            return record_subject(catalog, tenant, subject, consent=consent)
        except AlreadyExists:  # by another request at this moment
            known = catalog.find_subject(tenant, subject.name)
    if subject.is_person and not (means_person(known.class_noun) and known.consent.strip()):
        raise ConsentMissing(
            "expected a subject that is on record as a person who agrees, got one that is on record as a thing",
            hint="delete the subject and create it as a person, with `consent`",
        )
    return None
