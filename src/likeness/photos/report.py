"""Verdicts on photographs, as dataclasses and as JSON.

Independent of pixels and limits. The most severe reason is the verdict of a photograph.
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
    """One problem of a photograph or a set."""

    code: str  # stable, for programs
    message: str
    hint: str
    verdict: Verdict = "warned"

    def to_json(self) -> dict[str, object]:
        return {"code": self.code, "verdict": self.verdict, "message": self.message, "hint": self.hint}


@dataclass(frozen=True)
class PhotoReport:
    """The findings about one photograph."""

    file: str
    reasons: tuple[Reason, ...] = ()

    @property
    def verdict(self) -> Verdict:
        return max((reason.verdict for reason in self.reasons), key=_RANK.__getitem__, default="accepted")

    @property
    def hint(self) -> str:
        """What to do first: the hint of the most severe reason, or an empty text."""
        worst = max(self.reasons, key=lambda reason: _RANK[reason.verdict], default=None)
        return worst.hint if worst else ""

    def to_json(self) -> dict[str, object]:
        reasons = [reason.to_json() for reason in self.reasons]
        return {"file": self.file, "verdict": self.verdict, "reasons": reasons, "hint": self.hint}


@dataclass(frozen=True)
class SetReport:
    """The findings about the usable photographs as a set."""

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
    """A decoded photograph that can be used for training."""

    photo: Photo
    image: NDArray[np.uint8]  # (H, W, 3) RGB
    face: Face | None  # None for subjects other than people
    identity: NDArray[np.float64] | None = None  # (128,) the descriptor of that face


@dataclass(frozen=True, eq=False)
class CheckResult:
    """All findings of `check`; with `usable`, the next step does not decode and detect again."""

    reports: tuple[PhotoReport, ...]  # in the photographs' order
    set_report: SetReport
    usable: tuple[Usable, ...] = field(repr=False)

    def raise_if_refused(self, *, few_are_enough: bool = False) -> None:
        """The rule for refusing a set, shared by the command line, the server's jobs and SageMaker.

        Args:
            few_are_enough: whether one usable photograph is enough, as it is when nothing is trained.

        Raises:
            InputRefused: the set is refused; the message has the first reason.
        """
        for advice in self.set_report.advice:
            if advice.verdict == "refused" and not (few_are_enough and advice.code == "too_few"):
                raise InputRefused(advice.message, hint=advice.hint, code="PhotosRefused")
        if not self.usable:
            hint = "`likeness check` shows the reasons"
            raise InputRefused("expected at least one usable photograph, got none", hint=hint, code="PhotosRefused")

    def to_json(self) -> dict[str, object]:
        """The document of `likeness check --json`."""
        return {"photos": [report.to_json() for report in self.reports], "set": self.set_report.to_json()}
