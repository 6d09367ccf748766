"""Random people with published adapters, for tests of everything above the engine."""

from likeness.service import Likeness
from likeness.storage.catalog import LOCAL
from likeness.types import AdapterCard
from tests.engine.people import of_another_base, person


def publish_person(
    likeness: Likeness, name: str, seed: int, *, tenant: str = LOCAL, foreign: bool = False
) -> AdapterCard:
    """An adapter of random weights, published; needs the base to itself, so before the engine starts."""
    adapter = person(likeness.base, name, seed)
    return likeness.library.publish(of_another_base(adapter) if foreign else adapter, tenant)
