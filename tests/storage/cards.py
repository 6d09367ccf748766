"""A card for the tests of storage, which looks at no weights."""

from dataclasses import replace

import numpy as np

from likeness.storage.records import AdapterRecord
from likeness.types import Adapter, AdapterCard, LoraPair

CARD = AdapterCard(
    name="anna",
    class_noun="woman",
    identifier="<<TOK>>",
    base_id="tiny",
    base_sha256="ab" * 32,
    family="sd-2.1-base",
    recipe={"rank": 4},
    seed=7,
    photos=10,
    steps=300,
    seconds=12.5,
    created="2026-01-02T03:04:05+00:00",
    versions={"torch": "2.13.0"},
    rank=4,
    alpha=4.0,
    content_sha256="cd" * 32,
)


def record(name: str = "anna", tenant: str = "local", **changes: object) -> AdapterRecord:
    """A published adapter's facts."""
    card = replace(CARD, name=name, **changes)  # type: ignore[arg-type]
    return AdapterRecord(tenant, card, f"{tenant}/adapters/{name}/{card.content_sha256}.safetensors", 1000)


def adapter(name: str = "anna") -> Adapter:
    """One layer of a thing's adapter."""
    factors = np.random.default_rng(7)
    pair = LoraPair(factors.normal(size=(4, 8)).astype(np.float16), factors.normal(size=(8, 4)).astype(np.float16))
    return Adapter(replace(CARD, name=name, class_noun="dog"), {"unet": {"mid.to_q": pair}})
