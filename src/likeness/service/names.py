"""The order that asks for an adapter."""

from typing import TYPE_CHECKING

from ..types import checked_seed, checked_subject

if TYPE_CHECKING:
    from ..fine_tuning import FineTuneOrder


def checked_order(order: "FineTuneOrder") -> "FineTuneOrder":
    """The order, if it can end in an adapter; its recipe was checked when it was made. Raises UsageError."""
    checked_subject(order.subject)
    checked_seed(order.seed)
    return order
