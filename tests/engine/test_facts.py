"""The engine's counters."""

import pytest

from likeness.engine.facts import Tally


def test_throughput_is_rows_over_seconds_and_not_a_mean_of_rates() -> None:
    tally = Tally()
    assert tally.row_steps_per_s is None
    for _ in range(200):
        tally.turn(10, 1.0)
        tally.turn(10, 0.1)
    assert tally.row_steps_per_s == pytest.approx(20 / 1.1, rel=0.2)  # the rates' mean is 55


def test_an_idle_turn_of_no_length_divides_by_nothing() -> None:
    tally = Tally()
    tally.turn(4, 0.0)
    assert tally.row_steps_per_s is not None
