"""Turns at a device that engines and trainings share, in one process and between processes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from likeness.storage.device_turns import LONGEST_STEP_S, EngineTurns, TrainingTurns

HOLD = """
import sys
from pathlib import Path
from likeness.storage.device_turns import EngineTurns
turns = EngineTurns(Path(sys.argv[1]), "cpu")
turns.want()
print("wanted", flush=True)
sys.stdin.read()
"""


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Home:
    """Engines and trainings of one home folder."""

    def __init__(self, folder: Path, at_end: ExitStack) -> None:
        self.folder, self.clock, self._at_end = folder, Clock(), at_end

    def engine(self, device: str = "cpu") -> EngineTurns:
        turns = EngineTurns(self.folder, device, clock=self.clock)
        self._at_end.callback(turns.close)
        return turns

    def training(self, *, wait_s: float = 30.0) -> TrainingTurns:
        turns = TrainingTurns(self.folder, "cpu", wait_s=wait_s, clock=self.clock)
        self._at_end.callback(turns.close)
        return turns


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with ExitStack() as at_end:
        yield Home(tmp_path, at_end)


def test_no_step_begins_while_any_engine_of_the_device_has_requests(home: Home) -> None:
    training, first, second, other = home.training(), home.engine(), home.engine(), home.engine("cuda-1")
    other.want()
    assert training.begin()
    training.end()
    first.want()
    second.want()
    first.want()
    assert not training.begin()
    first.release()
    assert not training.begin()
    second.release()
    assert training.begin()


def test_engines_and_trainings_do_not_wait_for_their_own_kind(home: Home) -> None:
    trainings = home.training(), home.training()
    assert all(training.begin() for training in trainings)
    for training in trainings:
        training.end()
    for engine in (home.engine(), home.engine()):
        engine.want()
        engine.begin()


def test_an_engine_waits_for_the_end_of_a_step_that_had_begun(home: Home) -> None:
    training, engine, looks = home.training(), home.engine(), 0
    assert training.begin()
    engine.want()

    def look() -> float:
        nonlocal looks
        looks += 1
        if looks == 4:
            training.end()
        return 0.0

    engine._clock = look
    engine.begin()
    assert looks == 4 and not training.begin()
    engine.begin()  # has the device already
    assert looks == 5


def test_an_engine_does_not_wait_for_a_step_that_hangs_nor_without_a_request(home: Home) -> None:
    training, engine = home.training(), home.engine()
    assert training.begin()
    engine.begin()
    engine.want()

    def look() -> float:
        home.clock.now_s += LONGEST_STEP_S / 2
        return home.clock.now_s

    engine._clock = look
    engine.begin()


def test_a_step_that_waited_long_enough_is_taken_beside_the_engine_and_the_next_waits_again(home: Home) -> None:
    training, engine = home.training(wait_s=30.0), home.engine()
    engine.want()
    engine.begin()
    taken = []
    for second in range(100):
        home.clock.now_s = float(second)
        if training.begin():
            taken.append(second)
            training.end()
    assert taken == [30, 60, 90]
    assert home.training(wait_s=0.0).begin()


def test_the_turn_of_a_killed_engine_ends(home: Home) -> None:
    training = home.training()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "wanted\n"
        assert not training.begin()
        process.kill()
        process.wait()
    assert training.begin()
