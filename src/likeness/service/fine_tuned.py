"""What a training returns."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..types import AdapterCard, PreparedPhoto

if TYPE_CHECKING:
    from ..photos import CheckResult


@dataclass(frozen=True, eq=False)
class FineTuned:
    """A published adapter and how it came about."""

    card: AdapterCard
    checked: "CheckResult"
    prepared: tuple[PreparedPhoto, ...]
    losses: tuple[float, ...]  # of every step
    stage_seconds: dict[str, float]
