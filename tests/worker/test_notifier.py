"""The delivery log: every message is tried until somebody took it, in order, at least once, for a day at most."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from fixtures.waiting import HANG_S, until
from likeness.errors import StorageUnavailable
from likeness.jobs.deliveries import CLAIM_S, Delivery, DeliveryLog
from likeness.jobs.messages import Message
from likeness.jobs.tables import deliveries, open_jobs_database
from likeness.storage.database import Database
from likeness.worker.notifier import (
    AT_ONCE,
    GIVE_UP_AFTER_S,
    LONGEST_PAUSE_S,
    MOST_UNDER_WAY,
    Notifier,
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = open_jobs_database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    yield made
    made.close()


Started = Callable[[Mapping[str, Callable[[Message], None]]], Notifier]


@pytest.fixture
def started(database: Database) -> Iterator[Started]:
    """Makes notifiers by their senders. At the end their threads stop, before the database is closed."""
    made: list[Notifier] = []

    def start(senders: Mapping[str, Callable[[Message], None]]) -> Notifier:
        made.append(Notifier(database, senders))
        return made[-1]

    yield start
    for notifier in made:
        notifier.close()
    join_senders()


def join_senders() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("notifier"):
            thread.join(HANG_S)


def put(database: Database, *messages: Message) -> None:
    for message in messages:
        values = {name: getattr(message, name) for name in Message.__dataclass_fields__}
        now = database.now
        database.run(partial(_insert, deliveries.insert().values(**values, state="waiting", created_s=now, due_s=now)))


def _insert(row: sa.Insert | sa.Update, connection: sa.Connection) -> None:
    connection.execute(row)


def message(id: str, kind: str = "webhook", place: int = 0, job: str = "j") -> Message:
    return Message(id, job, "anna", kind, f"https://example.com/{id}", "{}", place)


def log(database: Database) -> dict[str, Delivery]:
    return {one.id: one for one in DeliveryLog(database).of_job("anna", "j")}


def deliver(notifier: Notifier, database: Database, done: Callable[[], bool]) -> None:
    """Deliver what is due, with every pause over, until it is done."""

    def turn() -> bool:
        now = database.now
        pausing = deliveries.c.attempts > 0, deliveries.c.due_s < now + CLAIM_S / 2  # and not just being sent
        database.run(lambda c: c.execute(deliveries.update().where(*pausing).values(due_s=now)))
        notifier.deliver_due()
        return done()

    until(turn)


def test_what_fails_is_tried_again_until_it_is_taken(database: Database, started: Started) -> None:
    failures = [StorageUnavailable("expected the webhook to answer 2xx, got 503"), OSError("refused")]
    heard: list[str] = []

    def send(message: Message) -> None:
        heard.append(message.id)
        if failures:
            raise failures.pop(0)

    notifier = started({"webhook": send})
    put(database, message("a"))
    assert notifier.deliver_due() == 1
    until(lambda: log(database)["a"].last_error is not None)
    first = log(database)["a"]
    assert (first.state, first.attempts) == ("waiting", 1)
    assert first.last_error == "expected the webhook to answer 2xx, got 503"
    assert first.due_s > first.created_s + 4  # not at once
    assert notifier.deliver_due() == 0
    deliver(notifier, database, lambda: log(database)["a"].state == "delivered")
    assert heard == ["a"] * 3
    assert log(database)["a"].delivered_s is not None
    assert notifier.deliver_due() == 0


def test_nobody_is_told_before_the_result_lies_there(database: Database, started: Started) -> None:
    is_there, order = threading.Event(), []

    def write(message: Message) -> None:
        if not is_there.is_set():
            raise OSError("the disk is full")
        order.append(message.id)

    notifier = started({"object": write, "webhook": lambda message: order.append(message.id)})
    put(database, message("w", place=1), message("o", "object"), message("other", place=1, job="k"))
    notifier.deliver_due()
    until(lambda: order == ["other"] and log(database)["o"].last_error is not None)
    is_there.set()
    deliver(notifier, database, lambda: log(database)["w"].state == "delivered")
    assert order == ["other", "o", "w"]


def test_after_a_day_it_is_given_up_and_a_replay_starts_anew(database: Database, started: Started) -> None:
    heard: list[str] = []

    def send(message: Message) -> None:
        heard.append(message.id)
        if len(heard) == 1:
            raise OSError("refused")

    notifier = started({"webhook": send})
    put(database, message("a"))
    long_ago = database.now - GIVE_UP_AFTER_S
    database.run(lambda c: c.execute(deliveries.update().values(created_s=long_ago)))
    notifier.deliver_due()
    until(lambda: log(database)["a"].state == "given up")
    assert not notifier.has_due()
    assert DeliveryLog(database).replay("ben", "j") == 0
    assert DeliveryLog(database).replay("anna", "j") == 1
    deliver(notifier, database, lambda: log(database)["a"].state == "delivered")
    assert heard == ["a", "a"]


def test_a_message_that_is_due_beyond_every_pause_is_sent_now(database: Database, started: Started) -> None:
    """It was claimed, or put off, before the clock was set back."""
    heard: list[str] = []
    notifier = started({"webhook": lambda message: heard.append(message.id)})
    put(database, message("ahead"), message("paused", job="k"))
    due = {"ahead": LONGEST_PAUSE_S + 60.0, "paused": LONGEST_PAUSE_S - 60.0}
    for id, ahead_s in due.items():
        move = deliveries.update().where(deliveries.c.id == id).values(due_s=database.now + ahead_s)
        database.run(partial(_insert, move))
    assert notifier.deliver_due() == 1
    until(lambda: heard == ["ahead"])


def test_two_notifiers_send_it_once(database: Database, started: Started) -> None:
    heard: list[str] = []
    notifiers = [started({"webhook": lambda message: heard.append(message.id)}) for _ in range(4)]
    put(database, *[message(str(i)) for i in range(20)])
    threads = [threading.Thread(target=notifier.deliver_due) for notifier in notifiers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: all(one.state == "delivered" for one in log(database).values()))
    assert sorted(heard) == sorted(str(i) for i in range(20))


def test_a_sender_that_hangs_holds_up_nobody_else(database: Database, started: Started) -> None:
    over, heard = threading.Event(), []

    def send(message: Message) -> None:
        if message.id == "slow":
            over.wait(HANG_S)
        heard.append(message.id)

    notifier = started({"webhook": send})
    put(database, message("slow", job="k"), message("fast"))
    notifier.deliver_due()
    until(lambda: heard == ["fast"])
    over.set()
    until(lambda: heard == ["fast", "slow"])


def test_what_is_under_way_is_not_taken_again_and_the_queue_is_bounded(database: Database, started: Started) -> None:
    """Eight senders that hang, long past their claims: whatever is due waits in the database, once."""
    over, heard = threading.Event(), []

    def send(message: Message) -> None:
        over.wait(HANG_S)
        heard.append(message.id)

    notifier = started({"webhook": send})
    put(database, *[message(f"{i:02}", job=str(i)) for i in range(MOST_UNDER_WAY + 8)])
    assert notifier.deliver_due() == MOST_UNDER_WAY
    for _ in range(3):
        make_due(database)
        assert notifier.deliver_due() == 0
    over.set()

    def turn() -> bool:
        notifier.deliver_due()
        return len(heard) >= MOST_UNDER_WAY + 8

    until(turn)
    assert sorted(heard) == [f"{i:02}" for i in range(MOST_UNDER_WAY + 8)]


def test_result_objects_do_not_wait_behind_webhooks_that_hang(database: Database, started: Started) -> None:
    over, written = threading.Event(), []

    def hang(message: Message) -> None:
        over.wait(HANG_S)

    notifier = started({"webhook": hang, "object": lambda message: written.append(message.id)})
    put(database, *[message(str(i), job=str(i)) for i in range(2 * MOST_UNDER_WAY)])
    notifier.deliver_due()
    put(database, message("o", "object"))
    notifier.deliver_due()
    try:
        until(lambda: written == ["o"])
    finally:
        over.set()


def test_one_tenants_many_messages_are_not_all_before_another_tenants_one(database: Database, started: Started) -> None:
    heard: list[str] = []
    notifier = started({"webhook": lambda message: heard.append(message.tenant)})
    put(database, *[message(f"{i:03}", job=str(i)) for i in range(4 * MOST_UNDER_WAY)])
    put(database, replace(message("b", job="b"), tenant="ben"))
    assert notifier.deliver_due() == MOST_UNDER_WAY
    until(lambda: len(heard) == MOST_UNDER_WAY)
    assert "ben" in heard[: AT_ONCE + 2]


def make_due(database: Database) -> None:
    """As if every claim were over."""
    database.run(lambda c: c.execute(deliveries.update().values(due_s=database.now - 1)))


def test_a_notifier_that_is_closed_starts_nothing_more_and_leaves_no_queue_for_the_exit(
    database: Database, started: Started
) -> None:
    begun, released, sent = threading.Semaphore(0), threading.Event(), []

    def hanging(said: Message) -> None:
        begun.release()
        released.wait(HANG_S)
        sent.append(said.id)

    notifier = started({"webhook": hanging})
    put(database, *(message(f"m{k}", job=f"j{k}") for k in range(AT_ONCE + 3)))
    assert notifier.deliver_due() == AT_ONCE + 3
    for _ in range(AT_ONCE):
        assert begun.acquire(timeout=HANG_S)
    notifier.close()
    assert notifier.deliver_due() == 0
    released.set()
    join_senders()
    assert len(sent) == AT_ONCE
