"""Timing on a shared machine: the variants run in turn, and ratios are computed within a round.

Other load on the machine affects all variants of a round, so the median of the rounds' ratios is more stable than a
ratio of medians. The order changes with each round, so that no variant always runs first.
"""

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

Work = Callable[[], object]
Rounds = Mapping[str, list[float]]  # seconds, one entry per round


def take_turns(works: Mapping[str, Work], rounds: int) -> Rounds:
    """Run all variants once to warm up, then `rounds` times in turn; returns the seconds of each."""
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    order = list(works)
    for k in range(rounds):
        first = k % len(order)
        for name in order[first:] + order[:first]:
            seconds[name].append(_timed(works[name]))
    return seconds


def ratio(rounds: Rounds, slow: str, fast: str) -> float:
    """Median over the rounds of the seconds of `slow` over those of `fast`."""
    return median(a / b for a, b in zip(rounds[slow], rounds[fast], strict=True))


def _timed(work: Work) -> float:
    _wait()
    started_s = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - started_s


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
