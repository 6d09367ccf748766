"""What an adapter may be called, and the order that asks for one."""

from typing import TYPE_CHECKING

from ..errors import UsageError
from ..types import Subject, checked_name, checked_seed, checked_subject

if TYPE_CHECKING:
    from ..fine_tuning import FineTuneOrder

BARE_BASE = "base"  # instead of an adapter's name: none


def adapter_name(name: str) -> str:
    """The name, if an adapter may have it. Raises UsageError."""
    if checked_name(name) == BARE_BASE:
        raise UsageError(f"the name {BARE_BASE} means no adapter", hint="choose another name")
    return name


def adapter_subject(subject: Subject) -> Subject:
    """The subject, if an adapter may be of it. Raises UsageError."""
    adapter_name(subject.name)
    return checked_subject(subject)


def checked_order(order: "FineTuneOrder") -> "FineTuneOrder":
    """The order, if it can end in an adapter; its recipe was checked when it was made. Raises UsageError."""
    adapter_subject(order.subject)
    checked_seed(order.seed)
    return order
