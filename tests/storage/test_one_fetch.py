"""Objects that several processes want at once, with a store that waits until it is told to answer."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from fixtures.waiting import until
from likeness.errors import NotFound
from likeness.storage.objects import FileObjects
from likeness.storage.one_fetch import FOLDER, OneFetch, shared_get

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks locks and handles up in /proc")

PROCESS = """
import os, sys
from pathlib import Path
from likeness.storage.one_fetch import OneFetch

home = Path(sys.argv[1])

class Slow:
    def get(self, key):
        with open(home / "reads", "a") as reads:
            reads.write(f"{os.getpid()}\\n")
        sys.stdin.readline()
        return key.encode() * 1000

    def has(self, key):
        return True

print(len(OneFetch(Slow(), home).get("anna")), flush=True)
"""


class Process:
    """One that wants an object."""

    def __init__(self, home: Path) -> None:
        words = [sys.executable, "-c", PROCESS, str(home)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a lock. Source: proc(5), /proc/locks."""
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        return any(line[1] == "->" and int(line[5]) == self.process.pid for line in lines)

    def answer(self) -> None:
        """Let the store answer it."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def got(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextmanager
def two(home: Path) -> Iterator[tuple[Process, Process]]:
    """The first one fetches, the second one waits for it."""
    first = Process(home)
    processes = [first]
    try:
        until(lambda: readers(home) == [first.process.pid])
        processes.append(Process(home))
        until(lambda: processes[1].is_waiting)
        yield first, processes[1]
    finally:
        for one in processes:
            one.process.kill()
            one.process.communicate()


def readers(home: Path) -> list[int]:
    """Process ids, one of each read of the store."""
    with suppress(FileNotFoundError):
        return [int(line) for line in (home / "reads").read_text().split()]
    return []


def test_two_processes_read_the_store_once_and_leave_nothing(tmp_path: Path) -> None:
    with two(tmp_path) as (first, second):
        first.answer()
        assert (first.got(), second.got()) == ("4000", "4000")
        assert first.process.wait() == second.process.wait() == 0
        assert readers(tmp_path) == [first.process.pid]
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_another_process_fetches_when_the_first_is_killed(tmp_path: Path) -> None:
    with two(tmp_path) as (first, second):
        first.process.kill()
        until(lambda: readers(tmp_path)[1:] == [second.process.pid])
        second.answer()
        assert second.got() == "4000" and second.process.wait() == 0
    assert list((tmp_path / FOLDER).iterdir()) == []


class Store:
    """Answers when it may."""

    def __init__(self) -> None:
        self.objects, self.reads = {"anna": b"weights"}, 0
        self.is_asked, self.may_answer = Event(), Event()

    def get(self, key: str) -> bytes:
        self.reads += 1
        if key not in self.objects:
            raise NotFound("expected an object, got none", code="ObjectNotFound")
        found = self.objects[key]
        self.is_asked.set()
        assert self.may_answer.wait(600)
        return found

    def has(self, key: str) -> bool:
        return key in self.objects


def test_what_was_deleted_while_it_was_fetched_is_not_handed_on(tmp_path: Path) -> None:
    store = Store()
    fetches, got = OneFetch(store, tmp_path), list[object]()

    def want() -> None:
        try:
            got.append(fetches.get("anna"))
        except NotFound as error:
            got.append(error.code)

    first = Thread(target=want)
    first.start()
    assert store.is_asked.wait(600)
    place = next((tmp_path / FOLDER).iterdir())
    second = Thread(target=want)
    second.start()
    until(lambda: len(holders(place)) == 2)
    del store.objects["anna"]
    store.may_answer.set()
    first.join()
    second.join()
    assert set(got) == {b"weights", "ObjectNotFound"} and store.reads == 2
    assert list((tmp_path / FOLDER).iterdir()) == []


def holders(place: Path) -> list[str]:
    """Handles of this process that are open on the folder."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if os.readlink(entry) == str(place):
                found.append(entry.name)
    return found


def test_what_a_killed_process_left_is_deleted_by_the_next_and_what_is_wanted_stays(tmp_path: Path) -> None:
    left = tmp_path / FOLDER / "left"
    left.mkdir(parents=True)
    (left / "content").write_bytes(b"weights")
    store = Store()
    reader = Thread(target=lambda: OneFetch(store, tmp_path).get("anna"))
    reader.start()
    assert store.is_asked.wait(600)
    OneFetch(store, tmp_path)
    (wanted,) = (tmp_path / FOLDER).iterdir()
    assert wanted.name != "left"
    store.may_answer.set()
    reader.join()


def test_objects_in_a_folder_are_read_where_they_are(tmp_path: Path) -> None:
    objects = FileObjects(tmp_path / "objects")
    objects.put("anna", b"weights")
    assert shared_get(objects, tmp_path)("anna") == b"weights"
    assert not (tmp_path / FOLDER).exists()
