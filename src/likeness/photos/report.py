"""Verdicts on photographs, as plain facts and as JSON.

Knows neither pixels nor limits. The worst reason decides a photograph's verdict.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputRefused
from ..types import Photo, Verdict
from .face import Face

_RANK: dict[Verdict, int] = {"accepted": 0, "warned": 1, "refused": 2}


@dataclass(frozen=True)
class Reason:
    """One thing that is wrong with a photograph or a set."""

    code: str  # stable, for machines
    message: str
    hint: str
    verdict: Verdict = "warned"

    def to_json(self) -> dict[str, object]:
        return {"code": self.code, "verdict": self.verdict, "message": self.message, "hint": self.hint}


@dataclass(frozen=True)
class PhotoReport:
    """What was found about one photograph."""

    file: str
    reasons: tuple[Reason, ...] = ()

    @property
    def verdict(self) -> Verdict:
        return max((reason.verdict for reason in self.reasons), key=_RANK.__getitem__, default="accepted")

    @property
    def hint(self) -> str:
        """What to do first: the worst reason's hint, empty when there is nothing to do."""
        worst = max(self.reasons, key=lambda reason: _RANK[reason.verdict], default=None)
        return worst.hint if worst else ""

    def to_json(self) -> dict[str, object]:
        reasons = [reason.to_json() for reason in self.reasons]
        return {"file": self.file, "verdict": self.verdict, "reasons": reasons, "hint": self.hint}


@dataclass(frozen=True)
class SetReport:
    """What was found about the usable photographs together."""

    count: int  # accepted and warned
    coverage: Mapping[str, Mapping[str, int]]  # aspect -> its value -> photographs
    advice: tuple[Reason, ...] = ()

    @property
    def verdict(self) -> Verdict:
        return max((advice.verdict for advice in self.advice), key=_RANK.__getitem__, default="accepted")

    def to_json(self) -> dict[str, object]:
        coverage = {aspect: dict(counts) for aspect, counts in self.coverage.items()}
        return {"count": self.count, "coverage": coverage, "advice": [advice.to_json() for advice in self.advice]}


class Usable(NamedTuple):
    """A photograph that can be trained on, decoded once."""

    photo: Photo
    image: NDArray[np.uint8]  # (H, W, 3) RGB
    face: Face | None  # None for subjects that are no person


@dataclass(frozen=True, eq=False)
class CheckResult:
    """Everything `check` found; `usable` spares the next step decoding and detection."""

    reports: tuple[PhotoReport, ...]  # in the photographs' order
    set_report: SetReport
    usable: tuple[Usable, ...] = field(repr=False)

    def raise_if_refused(self, *, few_are_enough: bool = False) -> None:
        """The one rule for every way in: the command line, the server's jobs and SageMaker's.

        Args:
            few_are_enough: whether a single usable photograph will do, as it does where none is trained on.

        Raises:
            InputRefused: the set is refused; with the first reason.
        """
        for advice in self.set_report.advice:
            if advice.verdict == "refused" and not (few_are_enough and advice.code == "too_few"):
                raise InputRefused(advice.message, hint=advice.hint, code="PhotosRefused")
        if not self.usable:
            hint = "`likeness check` names the reasons"
            raise InputRefused("expected at least one usable photo, got none", hint=hint, code="PhotosRefused")

    def to_json(self) -> dict[str, object]:
        """The document of `likeness check --json`."""
        return {"photos": [report.to_json() for report in self.reports], "set": self.set_report.to_json()}
