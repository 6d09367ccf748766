"""Nobody is trained whose word is not on record: at the door, and again on what the archive made of the order."""

import json
from dataclasses import replace
from typing import Any

import pytest

from fixtures.installation import Installation, archive, picture
from likeness.errors import AdapterBusy, AlreadyExists, ConsentMissing, InputRefused, UsageError
from likeness.jobs import object_keys
from likeness.jobs.job import Claim, Invocation, JobOrder
from likeness.service.example import example_photos
from likeness.storage.catalog import now
from likeness.storage.consent import record_subject
from likeness.storage.records import SubjectRecord
from likeness.types import Subject
from likeness.worker import preparer
from likeness.worker.stages import Failed
from tests.storage.cards import record
from tests.worker import claims

WORD = "Petra agreed on 2026-03-01"


class InThisProcess:
    """The preparer without a process of its own: what it is asked is done at once."""

    def __init__(self, installation: Installation) -> None:
        self._objects = installation.training.objects
        self._said: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []

    def enter(self, job: str) -> None: ...

    def ask(self, job: str, asked: dict[str, Any]) -> None:
        self.asked.append(asked)
        preparer.serve(self, self._objects, {**asked, "job": job})  # type: ignore[arg-type]

    def send(self, **said: Any) -> None:
        self._said.append(said)

    def take(self, job: str, timeout_s: float) -> dict[str, Any] | None:
        return self._said.pop(0) if self._said else None

    done = leave = enter


def sent(config: dict[str, object] | None = None) -> bytes:
    said = {} if config is None else {"config.json": json.dumps(config).encode()}
    return archive({**{f"{seed}.jpg": picture(seed) for seed in range(4)}, **said})


def order(name: str = "petra", noun: str = "woman", **changes: object) -> JobOrder:
    return replace(JobOrder("local", name, "", noun, "fast"), **changes)  # type: ignore[arg-type]


def call() -> Invocation:
    return Invocation("fine-tuning", "id", "", "file:///x/a.out", "file:///x/b.out")


def known(installation: Installation, name: str, noun: str, word: str) -> None:
    record_subject(installation.training.library.catalog, "local", Subject(name, noun), consent=word)


def subjects(installation: Installation) -> dict[str, str]:
    return {one.name: one.consent for one in installation.training.library.catalog.list_subjects("local")}


@pytest.mark.parametrize("word", ["\ud800", "Petra\0", "x" * 2001])
def test_a_consent_that_no_database_keeps_is_refused_at_the_door(installation: Installation, word: str) -> None:
    with pytest.raises(UsageError, match="2000 whole characters without NUL"):
        installation.training.submit(order(), archive=sent({"consent": word}))
    assert installation.training.queue.jobs_of("local") == [] and subjects(installation) == {}


@pytest.mark.parametrize(
    ("sends", "config"),
    [
        (order(), None),
        (order("toy", "toy"), {"name": "petra", "class_noun": "Woman", "consent": "  "}),
        (order("toy", "toy"), {"name": "rex", "class_noun": "person"}),  # on record as a dog
        (order("rex", "woman"), {"consent": WORD}),  # the words of a known subject stay as they are
        (order("petra", "person", invocation=call()), None),
        (order("petra", "dog", invocation=call()), {"class_noun": "man"}),
    ],
)  # fmt: skip
def test_a_person_who_has_not_agreed_is_refused_at_the_door(
    installation: Installation, sends: JobOrder, config: dict[str, object] | None
) -> None:
    known(installation, "rex", "dog", "")
    with pytest.raises(ConsentMissing):
        installation.training.submit(sends, archive=sent(config))
    assert installation.training.queue.jobs_of("local") == []
    assert list(installation.training.objects.list("local/uploads/")) == []
    assert subjects(installation) == {"rex": ""}


def test_consent_of_a_thing_is_none_of_the_person_of_that_name(installation: Installation) -> None:
    known(installation, "rex", "dog", "his owner agreed")
    with pytest.raises(ConsentMissing, match="as an object"):
        installation.training.submit(order("rex", "woman"), archive=sent())


def test_a_person_who_has_agreed_is_taken_at_every_door(installation: Installation) -> None:
    training = installation.training
    known(installation, "anna", "woman", WORD)
    assert training.submit(order("anna"), archive=sent()).order.class_noun == "woman"
    assert training.submit(order(), archive=sent(), consent=WORD).order.name == "petra"
    renamed = training.submit(
        order("toy", "toy"), archive=sent({"name": "eva", "class_noun": "woman", "consent": WORD})
    )
    assert (renamed.order.name, renamed.order.class_noun) == ("eva", "woman")
    assert renamed.order.photos.startswith("local/uploads/eva/")
    invoked = training.submit(order("olga", "person", invocation=call()), archive=sent({"consent": WORD}))
    assert invoked.order.invocation is not None
    assert invoked.order.invocation.input_location == invoked.order.photos
    assert subjects(installation) == {"anna": WORD, "petra": WORD, "eva": WORD, "olga": WORD}
    assert WORD not in renamed.order.document()


def test_the_final_name_is_the_one_that_must_be_free(installation: Installation) -> None:
    training = installation.training
    job = training.submit(order("rex", "dog"), archive=sent())
    with pytest.raises(AdapterBusy):
        training.submit(order("max", "dog"), archive=sent({"name": "rex"}))
    assert training.queue.ids_of("local", "max") == []
    with pytest.raises(InputRefused):
        training.submit(order("max", "dog"), archive=sent({"steps": 0}))
    assert [facts.key for facts in training.objects.list("local/uploads/")] == [job.order.photos]


def test_a_refused_order_records_nobody(installation: Installation) -> None:
    with pytest.raises(Exception, match="seed"):
        installation.training.submit(order(seed=-1), archive=sent(), consent=WORD)
    assert subjects(installation) == {}


def claimed(installation: Installation, sends: JobOrder, content: bytes) -> tuple[Claim, JobOrder]:
    """A job whose archive nobody has looked into, as one that lies elsewhere."""
    training = installation.training
    job = training.queue.submit(replace(sends, photos="local/elsewhere"))
    claim = claims.claimed(training.database, job=job.id)
    training.objects.put(object_keys.photos_key("local", job.id), content)
    return claim, job.order


def prepared(
    installation: Installation, claim: Claim, order: JobOrder, preparer: InThisProcess | None = None
) -> dict[str, Any]:
    made = claims.stages_of(installation.training)
    stages = replace(made, preparer=preparer or InThisProcess(installation))  # type: ignore[arg-type]
    return stages.prepare(claim, order)


@pytest.mark.parametrize(
    ("sends", "config"),
    [
        (order("toy", "toy"), {"class_noun": "woman"}),
        (order("toy", "toy"), {"name": "rex", "class_noun": "woman"}),
        (order("petra", "person", invocation=call()), None),
    ],
)  # fmt: skip
def test_what_the_archive_says_is_checked_before_a_photograph_is_looked_at(
    installation: Installation, sends: JobOrder, config: dict[str, object] | None
) -> None:
    known(installation, "rex", "dog", "")
    claim, asked = claimed(installation, sends, sent(config))
    link = InThisProcess(installation)
    with pytest.raises(ConsentMissing):
        prepared(installation, claim, asked, link)
    assert [one.get("only") for one in link.asked] == ["order"]
    assert not installation.training.objects.has(object_keys.prepared_key("local", claim.job))


def test_words_that_came_with_the_archive_are_recorded(installation: Installation) -> None:
    config: dict[str, object] = {"name": "eva", "class_noun": "woman", "consent": WORD}
    claim, asked = claimed(installation, order("toy", "toy"), sent(config))
    with pytest.raises(Failed, match="PhotosRefused"):  # pictures of nothing
        prepared(installation, claim, asked)
    assert subjects(installation) == {"eva": WORD}
    assert installation.training.queue.ids_of("local", "eva") == [claim.job]


def test_the_name_that_came_with_the_archive_must_be_free(installation: Installation) -> None:
    training = installation.training
    claim, asked = claimed(installation, order("max", "dog"), sent({"name": "rex", "class_noun": "dog"}))
    training.queue.submit(order("rex", "dog"))
    with pytest.raises(AdapterBusy):
        prepared(installation, claim, asked)
    claim, asked = claimed(installation, order("tom", "dog"), sent({"name": "bob", "class_noun": "dog"}))
    training.library.catalog.publish(record("bob"))
    with pytest.raises(AlreadyExists):
        prepared(installation, claim, asked)


def test_a_thing_needs_nobodys_word(installation: Installation) -> None:
    claim, asked = claimed(installation, order("toy", "toy"), sent({"name": "car", "steps": 7}))
    said = prepared(installation, claim, asked)
    assert said["photos"] == 4
    assert installation.training.queue.status(claim.job, "local").order.name == "car"
    assert subjects(installation) == {}


def test_a_subject_is_withdrawn_only_as_it_was_recorded(installation: Installation) -> None:
    catalog = installation.training.library.catalog
    record = record_subject(catalog, "local", Subject("anna"), consent=WORD)
    other = SubjectRecord("local", "anna", "person", "<<TOK>>", WORD, now(), "another time")
    catalog.withdraw_subject(other)
    assert subjects(installation) == {"anna": WORD}
    catalog.withdraw_subject(record)
    assert subjects(installation) == {}


def faces() -> bytes:
    """Four photographs of one virtual man."""
    paths = sorted(example_photos().glob("*.jpg"))[:4]
    return archive({path.name: path.read_bytes() for path in paths})


def test_a_person_is_not_trained_as_a_thing_or_a_style_without_consent(installation: Installation) -> None:
    known(installation, "rex", "dog", "the owner of the dog agreed")
    for name, noun in (("oil", ""), ("rex", ""), ("toy", "toy")):
        claim, asked = claimed(installation, order(name, noun), faces())
        with pytest.raises(Failed, match="PhotosRefused"):
            prepared(installation, claim, asked)
        assert not installation.training.objects.has(object_keys.prepared_key("local", claim.job))
    for name, noun in (("agreed", ""), ("doll", "toy")):
        known(installation, name, noun, WORD)
        claim, asked = claimed(installation, order(name, noun), faces())
        assert prepared(installation, claim, asked) == {"photos": 4}


def test_a_style_without_faces_needs_no_consent(installation: Installation) -> None:
    pictures = archive(
        {f"{seed}.jpg": picture(seed) for seed in range(4)} | {"config.json": json.dumps({"kind": "style"}).encode()}
    )
    job = installation.training.submit(order("oil", "toy"), archive=pictures)
    assert job.order.class_noun == "" and job.order.fine_tune().subject.kind == "style"
    claim, asked = claimed(installation, order("ink", ""), sent())
    assert prepared(installation, claim, asked) == {"photos": 4}
    assert subjects(installation) == {}


def test_consent_that_comes_with_a_style_is_recorded(installation: Installation) -> None:
    training = installation.training
    job = training.submit(order("oil", ""), archive=sent(), consent=WORD)
    assert subjects(installation) == {"oil": WORD}
    assert training.class_noun("local", "oil") == job.order.class_noun == ""
    with pytest.raises(ConsentMissing, match="a style"):  # the consent of a style is none to train a person
        training.submit(order("oil", "woman", replace=True), archive=sent())
