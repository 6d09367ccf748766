"""Shared parts of the import: matching layers with the base, and a card for files without one.

Files written by Likeness have their card in the header, as `likeness.card`. For other files `foreign_card` builds one
from the user's statements.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from ..diffusion.family import BaseOutline
from ..errors import CorruptAdapter, UsageError
from ..types import Adapter, AdapterCard, Network
from .adapter import strength_on
from .card import MAX_STRENGTH, read_card, write_card
from .factors import Layer, check_content, conform, stored, uniform
from .layer_names import LayerNames

CARD_KEY = "likeness.card"


def foreign_card(
    name: str, class_noun: str, identifier: str, *, base_id: str, base_sha256: str, family: str
) -> AdapterCard:
    """A card for a file without one; rank and alpha are taken from the weights at import.

    Args:
        base_id, base_sha256, family: the base that it was trained on, as stated by the user.

    Raises:
        CorruptAdapter: a value is out of range.
    """
    card = AdapterCard(
        name=name,
        class_noun=class_noun,
        identifier=identifier,
        base_id=base_id,
        base_sha256=base_sha256,
        family=family,
        recipe={},
        seed=0,
        photos=0,
        steps=0,
        seconds=0.0,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={},
        rank=1,
        alpha=1.0,
    )
    return read_card(write_card(card))


def card_metadata(card: AdapterCard) -> dict[str, str]:
    """Header entries with the card, for files in foreign formats; the trigger phrase is a ModelSpec field."""
    phrase = card.subject.words
    return {CARD_KEY: write_card(card).decode(), "modelspec.title": card.name, "modelspec.trigger_phrase": phrase}


def own_card(metadata: Mapping[str, str], base: BaseOutline) -> AdapterCard | None:
    """The Likeness card in a file's header; None if there is none.

    If the base is distilled from the one of the training, it serves the adapter too, with strength 1 if the card does
    not say another. `with_strength` sets another strength.

    Raises:
        CorruptAdapter: the card is damaged.
        Mismatch: the card is for another base.
    """
    if CARD_KEY not in metadata:
        return None
    card = read_card(metadata[CARD_KEY].encode())
    if base.family.undistilled == card.family and base.sha256 not in card.serves:
        card = with_strength(card, base.sha256, 1.0)
    strength_on(card, base.sha256)
    return card


def with_strength(card: AdapterCard, base_sha256: str, strength: float) -> AdapterCard:
    """The card, with the strength of its adapter on a distilled base.

    Raises:
        UsageError: on the base of its training the strength is 1; or out of range.
    """
    if not 0 < strength <= MAX_STRENGTH:
        raise UsageError(f"expected a strength above 0 and at most {MAX_STRENGTH:g}, got {strength:g}")
    if base_sha256 == card.base_sha256:
        raise UsageError(
            "expected a strength for a distilled base, got one for the base of the training",
            hint="import the adapter without --strength, and make images with --scale",
        )
    return replace(card, serves={**card.serves, base_sha256: strength})


def assemble(
    layers: Mapping[Network, Mapping[str, Layer]],
    base: BaseOutline,
    *,
    metadata: Mapping[str, str],
    card: AdapterCard | None,
) -> Adapter:
    """Layers of a file, with the base's names -> an adapter whose factors have the shapes of the base's layers.

    Args:
        metadata: the file's header; a `likeness.card` in it overrides `card`, and its hash is checked.
        card: from `foreign_card`, for a file without a card.

    Raises:
        CorruptAdapter: no card, or the weights do not match the card in the file.
        Mismatch: a layer has other dimensions than the base's, or the card is for another base.
    """
    own = own_card(metadata, base)
    fitted = {
        network: {
            module: replace(layer, pair=conform(module, layer.pair, base.layers[network][module], base=base.name))
            for module, layer in found.items()
        }
        for network, found in layers.items()
    }
    weights, rank, alpha = uniform(fitted)
    if own is not None:
        if own.rank != rank or not math.isclose(own.alpha, alpha, rel_tol=1e-6):  # kohya keeps alpha as float32
            raise CorruptAdapter(
                "rank and alpha of the weights do not match the card", hint="the file was changed; use an intact copy"
            )
        return check_content(own, weights)
    if card is None:
        raise CorruptAdapter(
            "expected a Likeness card in the file, got none",
            hint="for a file of another program, give name, class noun, identifier and base",
        )
    return stored(Adapter(replace(card, rank=rank, alpha=alpha), weights))


def own_layers(adapter: Adapter, base: BaseOutline) -> dict[Network, dict[str, Layer]]:
    """The layers of an adapter written by Likeness, with this base's names, with or without CLIP's `text_model` prefix.

    Raises:
        Mismatch: a layer that the base does not have.
    """
    names = LayerNames(base)
    layers: dict[Network, dict[str, Layer]] = {}
    for network, found in adapter.weights.items():
        for module, pair in found.items():
            layers.setdefault(network, {})[names.find(module, network)[1]] = Layer(pair, adapter.card.alpha)
    return layers
