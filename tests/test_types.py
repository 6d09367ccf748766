"""Class nouns that mean people, in any spelling."""

import pytest

from likeness.types import Subject, means_person

PEOPLE = (
    "person", "Woman", "MAN", "old man", "boy scout", "woman with a hat", "child", "guy", "little Girl", "kid", "baby",
    "baby boy", "young lady", "grandma", " man ", "fire-man", "teenager",
)  # fmt: skip
THINGS = (
    "dog",
    "toy",
    "baby elephant",
    "face mask",
    "kid glove",
    "mandolin",
    "human skeleton",
    "woodman's-axe",
    "",
    "猫",
)


@pytest.mark.parametrize("noun", PEOPLE)
def test_people(noun: str) -> None:
    assert means_person(noun) and Subject("anna", noun).is_person


@pytest.mark.parametrize("noun", THINGS)
def test_things(noun: str) -> None:
    assert not means_person(noun) and not Subject("rex", noun).is_person
