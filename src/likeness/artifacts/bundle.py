"""An adapter as one object: a safetensors file with the card in its header. The form in the object store.

    <network>/<module>.lora_A.weight (r, d_in), <network>/<module>.lora_B.weight (d_out, r); metadata: likeness.card

One object needs one atomic read, from a folder or S3. Alpha is not folded in, so that float16 rounds only once.
"""

import re
from typing import NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptAdapter
from ..types import Adapter, AdapterCard, LoraPair, Network
from . import tensors
from .card import read_card, write_card
from .factors import NETWORKS, Key, Weights, check_content, content_sha256, gather, stored
from .foreign import CARD_KEY

SUFFIX = ".safetensors"
_HINT = "train it again, or import it from an intact copy"
_KEY = re.compile(rf"({'|'.join(NETWORKS)})/(.+)\.lora_([AB])\.weight")


def encode(adapter: Adapter, dtype: type[np.float16] | type[np.float32] = np.float16) -> tuple[Adapter, bytes]:
    """The adapter as stored (cast, its card with `content_sha256`), and its bytes; equal adapters give equal bytes.

    Raises:
        CorruptAdapter: NaN, inconsistent shapes, a card out of range.
    """
    kept = stored(adapter, dtype)
    arrays: tensors.Tensors = {}
    for network, pairs in kept.weights.items():
        for module, pair in pairs.items():
            arrays[f"{network}/{module}.lora_A.weight"] = pair.A
            arrays[f"{network}/{module}.lora_B.weight"] = pair.B
    return kept, tensors.encode(arrays, {"format": "pt", CARD_KEY: write_card(kept.card).decode()})


def decode(content: bytes) -> Adapter:
    """The adapter in bytes of `encode`, from an untrusted source.

    Raises:
        CorruptAdapter: truncated, not safetensors, unknown keys, no card, not finite, or the card's hash does not
        match.
    """
    card, arrays = _opened(content)
    layers = gather(arrays, _parsed, dict.fromkeys(NETWORKS, lambda module, rank: card.alpha))
    weights = {network: {name: layer.pair for name, layer in found.items()} for network, found in layers.items()}
    return check_content(card, weights)


def reopen(content: bytes, published_sha256: str) -> Adapter:
    """The adapter in bytes that were published with this hash; three times as fast as `decode`.

    The hash covers names, types, shapes and numbers, which were checked when the adapter was published.

    Raises:
        CorruptAdapter: truncated, not safetensors, or not the published weights.
    """
    card, arrays = _opened(content)
    halves: dict[tuple[Network, str], dict[str, NDArray[np.floating]]] = {}
    for key, array in arrays.items():
        network, module, part = _parsed(key) or _unknown()
        halves.setdefault((network, module), {})[part] = array
    weights: Weights = {}
    for (network, module), found in halves.items():
        if found.keys() != {"A", "B"}:
            _unknown()
        weights.setdefault(network, {})[module] = LoraPair(found["A"], found["B"])
    if card.content_sha256 != published_sha256 or content_sha256(weights) != published_sha256:
        raise CorruptAdapter("expected the published weights, got others", hint=_HINT)
    return Adapter(card, weights)


def _opened(content: bytes) -> tuple[AdapterCard, tensors.Tensors]:
    arrays, metadata = tensors.decode(content)
    if CARD_KEY not in metadata:
        raise CorruptAdapter("expected a Likeness card in the file, got none", hint=_HINT)
    return read_card(metadata[CARD_KEY].encode()), arrays


def _unknown() -> NoReturn:
    raise CorruptAdapter("expected lora A and B of adapted layers, got other tensors", hint=_HINT)


def _parsed(key: str) -> Key | None:
    found = _KEY.fullmatch(key)
    if found is None:
        return None
    return cast(Network, found[1]), found[2], "A" if found[3] == "A" else "B"
