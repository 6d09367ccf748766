"""What makes a set of tensors a LoRA: every A has its B, shapes agree, every number is finite.

delta W = alpha / r * B A (Hu et al. 2021, arXiv:2106.09685, section 4.1). Knows nothing of files or of key spellings.
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptAdapter, WrongBase
from ..storage.card import MAX_RANK
from ..types import Adapter, AdapterCard, LoraPair, Network

Weights = dict[Network, dict[str, LoraPair]]
Part = Literal["A", "B", "mid", "alpha"]
Key = tuple[Network, str, Part]  # network, module, which part
AlphaOf = Callable[[str, int], float]  # module and rank -> alpha

NETWORKS: tuple[Network, ...] = get_args(Network)
TEXT_ROOT = "text_model."  # older transformers wrap CLIP's layers in this module, newer ones do not
_PLAIN = re.compile(r"[A-Za-z0-9_.]{1,160}")
_HINT = "get a copy that is whole"


@dataclass(frozen=True, eq=False)
class Layer:
    """One adapted layer as found in a foreign file: its own rank, perhaps its own alpha."""

    pair: LoraPair
    alpha: float

    @property
    def rank(self) -> int:
        return int(self.pair.A.shape[0])


def gather(
    tensors: Mapping[str, NDArray[np.floating]], parse: Callable[[str], Key | None], alphas: Mapping[Network, AlphaOf]
) -> dict[Network, dict[str, Layer]]:
    """Sort tensors into layers. A layer's alpha is its own, else that of its network, else its rank (scale 1).

    Args:
        parse: key -> (network, module, part), or None for a key that has no place in a LoRA. Keys come in order, so
            that what it raises does not depend on the order of the file.
        alphas: per network, where the file says so.

    Raises:
        CorruptAdapter: unknown or doubled keys, an A without its B, A and B of unlike ranks, NaN, no layer at all.
    """
    parts: dict[tuple[Network, str], dict[Part, NDArray[np.floating]]] = {}
    for key, tensor in sorted(tensors.items(), key=lambda item: item[0]):
        if (parsed := parse(key)) is None:
            raise CorruptAdapter(f"unknown key: {label(key)}", hint="it is no LoRA in this layout")
        network, module, part = parsed
        found = parts.setdefault((network, module), {})
        if part in found:
            raise CorruptAdapter(f"two tensors for {part} of {label(module)}", hint=_HINT)
        found[part] = tensor
    layers: dict[Network, dict[str, Layer]] = {}
    for (network, module), found in sorted(parts.items()):
        if "A" not in found or "B" not in found:
            raise CorruptAdapter(f"expected lora A and B of {label(module)}, got only {sorted(found)}", hint=_HINT)
        pair = LoraPair(found["A"], found["B"])
        if "mid" in found:
            pair = _without_middle(module, pair, found["mid"])
        _check_factors(module, pair)
        rank = pair.A.shape[0]
        alpha = alphas[network](module, rank) if network in alphas else float(rank)
        if "alpha" in found:
            alpha = _scalar(module, found["alpha"])
        layers.setdefault(network, {})[module] = Layer(pair, alpha)
    if not layers:
        raise CorruptAdapter("expected at least one adapted layer, got none", hint=_HINT)
    return layers


def uniform(layers: Mapping[Network, Mapping[str, Layer]]) -> tuple[Weights, int, float]:
    """One rank and one alpha for all layers, every delta W unchanged.

    Where ranks or alphas differ, the scale goes into B and missing rows are zeros: zero rows of A times zero columns of
    B add nothing.

    Returns:
        weights, rank, alpha.
    """
    every = [layer for modules in layers.values() for layer in modules.values()]
    rank = max(layer.rank for layer in every)
    if len({(layer.rank, layer.alpha) for layer in every}) == 1:
        return {n: {m: layer.pair for m, layer in found.items()} for n, found in layers.items()}, rank, every[0].alpha
    weights: Weights = {
        network: {
            module: _widened(scaled(layer.pair, layer.alpha / layer.rank), rank) for module, layer in found.items()
        }
        for network, found in layers.items()
    }
    return weights, rank, float(rank)


def scaled(pair: LoraPair, scale: float) -> LoraPair:
    """The scale moved into B. In float32: B / 128 would fall below what float16 can hold."""
    if scale == 1:
        return pair
    return LoraPair(pair.A.astype(np.float32), pair.B.astype(np.float32) * np.float32(scale))


def stored(adapter: Adapter, dtype: type[np.float16] | type[np.float32] | None = None) -> Adapter:
    """The adapter as its files will hold it: checked, cast (None keeps each type), hash filled in.

    Raises:
        CorruptAdapter: a pair is not of the card's rank, does not fit, or is not finite after the cast.
    """
    weights: Weights = {}
    for network in NETWORKS:
        for module, pair in sorted(adapter.weights.get(network, {}).items()):
            check_pair(module, pair)
            if pair.A.shape[0] != adapter.card.rank:
                raise CorruptAdapter(
                    f"expected rank {adapter.card.rank} as the card says, got {pair.A.shape[0]} in {label(module)}",
                    hint=_HINT,
                )
            if dtype is not None:
                with np.errstate(over="ignore"):  # an overflow becomes inf, and that is refused in the next line
                    pair = LoraPair(pair.A.astype(dtype), pair.B.astype(dtype))
                check_pair(module, pair)
            weights.setdefault(network, {})[module] = pair
    if unknown := len(adapter.weights.keys() - set(NETWORKS)):
        raise CorruptAdapter(f"{unknown} network(s) besides {', '.join(NETWORKS)}", hint=_HINT)
    if not weights:
        raise CorruptAdapter("expected at least one adapted layer, got none", hint=_HINT)
    return Adapter(replace(adapter.card, content_sha256=content_sha256(weights)), weights)


def check_content(card: AdapterCard, weights: Weights) -> Adapter:
    """The adapter, if its tensors are those that the card was written for.

    Raises:
        CorruptAdapter: another hash, or as `stored`.
    """
    adapter = stored(Adapter(card, weights))
    if adapter.card.content_sha256 != card.content_sha256:
        raise CorruptAdapter(
            f"expected weights with SHA-256 {card.content_sha256[:12]}..., got {adapter.card.content_sha256[:12]}...",
            hint="the weights were changed after the card was written",
        )
    return adapter


def check_pair(module: str, pair: LoraPair) -> None:
    """Raises CorruptAdapter unless A (r, d_in), B (d_out, r), or A (r, C_in, k, k), B (C_out, r, 1, 1), all finite."""
    A, B = pair.A, pair.B
    fits = A.ndim == B.ndim and A.ndim in (2, 4) and A.size > 0 and B.size > 0
    if not fits or A.shape[0] != B.shape[1] or B.shape[2:] not in ((), (1, 1)) or A.shape[0] > MAX_RANK:
        raise CorruptAdapter(f"shapes of A {A.shape} and B {B.shape} do not fit in {label(module)}", hint=_HINT)
    if not (np.isfinite(A).all() and np.isfinite(B).all()):
        raise CorruptAdapter(f"expected finite numbers, got NaN or infinity in {label(module)}", hint=_HINT)


def conform(module: str, pair: LoraPair, shape: Sequence[int], *, base: str) -> LoraPair:
    """The pair as a layer with a weight of `shape`, (d_out, d_in) or (C_out, C_in, k, k), has it.

    Programs write the factors of a 1x1 convolution with two or with four axes; so do they read them.

    Args:
        base: name of the base, for the message.

    Raises:
        WrongBase: the layer has other dimensions.
    """
    A, B, r = pair.A, pair.B, pair.A.shape[0]
    a_shape, b_shape = (r, *shape[1:]), (shape[0], r, *(1 for _ in shape[2:]))
    is_flat = A.ndim == 2 or A.shape[2:] == (1, 1)
    fits_a = A.shape == a_shape or (is_flat and A.size == math.prod(a_shape))
    if not fits_a or B.shape[0] != shape[0] or B.size != math.prod(b_shape):
        raise WrongBase(
            f"expected A {a_shape} and B {b_shape} for {label(module)} of {base}, got {A.shape} and {B.shape}"
        )
    return LoraPair(A.reshape(a_shape), B.reshape(b_shape))


def content_sha256(weights: Mapping[Network, Mapping[str, LoraPair]]) -> str:
    """Hash of names, types, shapes and numbers: the same in every file layout and with either spelling of CLIP."""
    digest = hashlib.sha256()
    for network in NETWORKS:
        modules = {plain_module(network, name): pair for name, pair in weights.get(network, {}).items()}
        for module, pair in sorted(modules.items()):
            for part, array in (("A", pair.A), ("B", pair.B)):
                digest.update(f"{network}\n{module}\n{part}\n{array.dtype.name}\n{array.shape}\n".encode())
                digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def plain_module(network: Network, module: str) -> str:
    """The module's name without the wrapper that only some transformers versions have."""
    return module.removeprefix(TEXT_ROOT) if network == "text_encoder" else module


def label(text: str) -> str:
    """A key or module name for a message, if nothing in it can be mistaken for markup or a command."""
    return text if _PLAIN.fullmatch(text) else "(a name with odd characters)"


def _check_factors(module: str, pair: LoraPair) -> None:
    """What holds of a layer's factors whatever the layer is; its dimensions are `conform`'s."""
    A, B = pair.A, pair.B
    fits = A.ndim in (2, 4) and B.ndim in (2, 4) and A.size > 0 and B.size > 0 and A.shape[0] == B.shape[1]
    if not fits or A.shape[0] > MAX_RANK:
        raise CorruptAdapter(f"shapes of A {A.shape} and B {B.shape} do not fit in {label(module)}", hint=_HINT)
    if not (np.isfinite(A).all() and np.isfinite(B).all()):
        raise CorruptAdapter(f"expected finite numbers, got NaN or infinity in {label(module)}", hint=_HINT)


def _without_middle(module: str, pair: LoraPair, middle: NDArray[np.floating]) -> LoraPair:
    """LyCORIS' decomposition of a convolution, down (r, C_in, 1, 1) and mid (r, r, k, k), as one factor A."""
    A = pair.A
    if A.ndim != 4 or A.shape[2:] != (1, 1) or middle.ndim != 4 or middle.shape[:2] != (A.shape[0], A.shape[0]):
        raise CorruptAdapter(f"shapes of A {A.shape} and mid {middle.shape} do not fit in {label(module)}", hint=_HINT)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by the caller
        A = np.einsum("ojkl,jc->ockl", middle.astype(np.float32), A[:, :, 0, 0].astype(np.float32))
    return LoraPair(A, pair.B)


def _widened(pair: LoraPair, rank: int) -> LoraPair:
    missing = rank - pair.A.shape[0]
    rest = [(0, 0)] * (pair.A.ndim - 2)
    return LoraPair(np.pad(pair.A, [(0, missing), (0, 0), *rest]), np.pad(pair.B, [(0, 0), (0, missing), *rest]))


def _scalar(module: str, tensor: NDArray[np.floating]) -> float:
    if tensor.size != 1 or not np.isfinite(tensor).all() or not 0 < float(tensor.reshape(())) <= 1e6:
        raise CorruptAdapter(f"expected alpha of {label(module)} to be one number above 0", hint=_HINT)
    return float(tensor.reshape(()))
