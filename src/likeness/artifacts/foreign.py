"""What all import routes share: fitting layers to this base, and a card for a file that has none.

A file that Likeness wrote carries its card in the header under `likeness.card`; a file from elsewhere needs
`foreign_card`, that is, a person who says what the file is.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from ..diffusion.family import BaseOutline
from ..errors import CorruptAdapter, InputRefused
from ..storage.card import read_card, strict_json, write_card
from ..types import Adapter, AdapterCard, Network
from .adapter import check_base
from .factors import Layer, check_content, conform, label, stored, uniform
from .keys import CONVERT, LayerNames

CARD_KEY = "likeness.card"

# What a LoraConfig may say without changing what A and B mean; any other field has to be empty.
_HARMLESS = frozenset(
    {
        "peft_type",
        "task_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "r",
        "lora_alpha",
        "rank_pattern",
        "target_modules",
        "lora_dropout",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "megatron_core",
        "qalora_group_size",
    }
)
_PLAIN_VALUES: dict[str, tuple[object, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (True, "gaussian", "eva", "orthogonal"),  # of those that leave the base as it is
}


def foreign_card(
    name: str, class_noun: str, identifier: str, *, base_id: str, base_sha256: str, family: str
) -> AdapterCard:
    """A card for a file that carries none; rank and alpha are filled in from the weights at import.

    Args:
        base_id, base_sha256, family: the base that the importing person says it was trained on.

    Raises:
        CorruptAdapter: a value is out of its range.
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
    """Header entries that bring the card through a foreign layout; the trigger phrase is the ModelSpec field."""
    phrase = f"{card.identifier} {card.class_noun}"
    return {CARD_KEY: write_card(card).decode(), "modelspec.title": card.name, "modelspec.trigger_phrase": phrase}


def own_card(metadata: Mapping[str, str], base: BaseOutline) -> AdapterCard | None:
    """The Likeness card in a file's header, None where there is none.

    Raises:
        CorruptAdapter: it is damaged.
        WrongBase: it is of another base.
    """
    if CARD_KEY not in metadata:
        return None
    card = read_card(metadata[CARD_KEY].encode())
    check_base(card, base.sha256)
    return card


def assemble(
    layers: Mapping[Network, Mapping[str, Layer]],
    base: BaseOutline,
    *,
    metadata: Mapping[str, str],
    card: AdapterCard | None,
) -> Adapter:
    """Layers from a file, under the base's names -> an adapter whose factors have the shapes of the base's layers.

    Args:
        metadata: the file's header; a `likeness.card` in it wins over `card`, and its hash is checked.
        card: what the caller says of a file that has none, from `foreign_card`.

    Raises:
        CorruptAdapter: no card from either side, or the weights are not those of the card in the file.
        WrongBase: a layer of other dimensions than the base's, or a card of another base.
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
            raise CorruptAdapter("rank and alpha of the weights are not those of the card", hint="the file was changed")
        return check_content(own, weights)
    if card is None:
        raise CorruptAdapter(
            "expected a Likeness card in the file, got none",
            hint="say the name, class noun, identifier and base of a file made elsewhere",
        )
    return stored(Adapter(replace(card, rank=rank, alpha=alpha), weights))


def own_layers(adapter: Adapter, base: BaseOutline) -> dict[Network, dict[str, Layer]]:
    """The layers of an adapter that Likeness wrote, under this base's names: CLIP's may or may not be in `text_model`.

    Raises:
        WrongBase: a layer that the base lacks.
    """
    names = LayerNames(base)
    layers: dict[Network, dict[str, Layer]] = {}
    for network, found in adapter.weights.items():
        for module, pair in found.items():
            layers.setdefault(network, {})[names.find(module, network)[1]] = Layer(pair, adapter.card.alpha)
    return layers


def config_alpha(config: Mapping[str, object]) -> float | None:
    """lora_alpha of a PEFT LoraConfig, None where it does not say.

    Raises:
        InputRefused: another method than plain LoRA (DoRA, rank-stabilised, PiSSA, ...): same keys, other
            arithmetic.
        CorruptAdapter: lora_alpha is no number above 0.
    """
    if (kind := config.get("peft_type") or "LORA") != "LORA":
        raise InputRefused(f"expected a plain LoRA, got {label(str(kind))}", hint=CONVERT, code="UnsupportedAdapter")
    for field, value in config.items():
        plain = field in _HARMLESS or value in _PLAIN_VALUES.get(field, ()) or not value
        if not plain:
            raise InputRefused(
                f"expected a plain LoRA, got one with {label(field)}", hint=CONVERT, code="UnsupportedAdapter"
            )
    alpha = config.get("lora_alpha")
    if alpha is None:
        return None
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha <= 1e6:
        raise CorruptAdapter("expected lora_alpha to be a number above 0", hint="get a copy that is whole")
    return float(alpha)


def header_alphas(text: str) -> dict[Network, float]:
    """Alphas in diffusers' `lora_adapter_metadata`, a JSON object with keys such as `unet.lora_alpha`."""
    entries = strict_json(text.encode())
    alphas: dict[Network, float] = {}
    networks: tuple[Network, ...] = ("unet", "text_encoder")
    for network in networks:
        start = f"{network}."
        config = {key.removeprefix(start): value for key, value in entries.items() if key.startswith(start)}
        if (alpha := config_alpha(config)) is not None:
            alphas[network] = alpha
    return alphas
