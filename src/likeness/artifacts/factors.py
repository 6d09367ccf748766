"""Checks that tensors form a LoRA: every A has a B, shapes agree, all numbers are finite.

delta W = alpha / r * B A (Hu et al. 2021, arXiv:2106.09685, section 4.1). Independent of files and key names.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptAdapter, InputRefused, Mismatch, plain_name
from ..types import Adapter, AdapterCard, LoraPair, Network, encodes_text
from .card import MAX_RANK

Weights = dict[Network, dict[str, LoraPair]]
Part = Literal["A", "B", "mid", "alpha"]
Key = tuple[Network, str, Part]  # network, module, part
AlphaOf = Callable[[str, int], float]  # module and rank -> alpha

NETWORKS: tuple[Network, ...] = get_args(Network)
TEXT_ROOT = "text_model."  # prefix of CLIP's layers in older versions of transformers
_HINT = "use an intact copy of the file"
# hint for files that are not a LoRA of a rank that can be used, but can be approximated by one
EXTRACT = "import it with --extract RANK (over HTTP: the field extract), as the LoRA of this rank that is nearest to it"


@dataclass(frozen=True, eq=False)
class Layer:
    """One adapted layer of a foreign file, with its own rank and optional alpha."""

    pair: LoraPair
    alpha: float

    @property
    def rank(self) -> int:
        return int(self.pair.A.shape[0])


def gather(
    tensors: Mapping[str, NDArray[np.floating]], parse: Callable[[str], Key | None], alphas: Mapping[Network, AlphaOf]
) -> dict[Network, dict[str, Layer]]:
    """Group tensors by layer. A layer's alpha is its own, or that of its network, or its rank (scale 1).

    Args:
        parse: key -> (network, module, part), or None for a key that does not belong to a LoRA. Keys are passed in
            sorted order, so that errors do not depend on the order in the file.
        alphas: per network, if the file has them.

    Raises:
        CorruptAdapter: unknown or repeated keys, A without B, A and B of different ranks, NaN, no layers.
    """
    parts: dict[tuple[Network, str], dict[Part, NDArray[np.floating]]] = {}
    for key, tensor in sorted(tensors.items(), key=lambda item: item[0]):
        if (parsed := parse(key)) is None:
            raise CorruptAdapter(f"unknown key: {plain_name(key)}", hint="the file is not a LoRA in this format")
        network, module, part = parsed
        found = parts.setdefault((network, module), {})
        if part in found:
            raise CorruptAdapter(f"two tensors for {part} of {plain_name(module)}", hint=_HINT)
        found[part] = tensor
    layers: dict[Network, dict[str, Layer]] = {}
    for (network, module), found in sorted(parts.items()):
        if "A" not in found or "B" not in found:
            raise CorruptAdapter(f"expected lora A and B of {plain_name(module)}, got only {sorted(found)}", hint=_HINT)
        pair = LoraPair(found["A"], found["B"])
        if "mid" in found:
            pair = without_middle(module, pair, found["mid"])
        _check_factors(module, pair)
        rank = pair.A.shape[0]
        alpha = alphas[network](module, rank) if network in alphas else float(rank)
        if "alpha" in found:
            alpha = scalar(module, found["alpha"])
        layers.setdefault(network, {})[module] = Layer(pair, alpha)
    if not layers:
        raise CorruptAdapter("expected at least one adapted layer, got none", hint=_HINT)
    return layers


def uniform(layers: Mapping[Network, Mapping[str, Layer]]) -> tuple[Weights, int, float]:
    """Convert to one rank and one alpha for all layers, without changing any delta W.

    If ranks or alphas differ, the scale is folded into B, and smaller ranks are padded with zeros.

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
    """Fold the scale into B, in float32, because B / 128 would underflow in float16."""
    if scale == 1:
        return pair
    return LoraPair(pair.A.astype(np.float32), pair.B.astype(np.float32) * np.float32(scale))


def stored(adapter: Adapter, dtype: type[np.float16] | type[np.float32] | None = None) -> Adapter:
    """The adapter as it is stored: checked, cast (None keeps each type), with its hash.

    Raises:
        CorruptAdapter: a pair has another rank than the card, inconsistent shapes, or is not finite after the cast.
    """
    weights: Weights = {}
    for network in NETWORKS:
        for module, pair in sorted(adapter.weights.get(network, {}).items()):
            check_pair(module, pair)
            if pair.A.shape[0] != adapter.card.rank:
                raise CorruptAdapter(
                    f"expected the card's rank, {adapter.card.rank}, got {pair.A.shape[0]} in {plain_name(module)}",
                    hint=_HINT,
                )
            if dtype is not None:
                with np.errstate(over="ignore"):  # overflow gives inf, which the next line refuses
                    pair = LoraPair(pair.A.astype(dtype), pair.B.astype(dtype))
                check_pair(module, pair)
            weights.setdefault(network, {})[module] = pair
    if unknown := len(adapter.weights.keys() - set(NETWORKS)):
        raise CorruptAdapter(f"expected only the networks {', '.join(NETWORKS)}, got {unknown} more", hint=_HINT)
    if not weights:
        raise CorruptAdapter("expected at least one adapted layer, got none", hint=_HINT)
    return Adapter(replace(adapter.card, content_sha256=content_sha256(weights)), weights)


def check_content(card: AdapterCard, weights: Weights) -> Adapter:
    """The adapter, if its tensors match the card's hash.

    Raises:
        CorruptAdapter: the hash does not match, or as `stored`.
    """
    adapter = stored(Adapter(card, weights))
    if adapter.card.content_sha256 != card.content_sha256:
        raise CorruptAdapter(
            f"expected weights with SHA-256 {card.content_sha256[:12]}..., got {adapter.card.content_sha256[:12]}...",
            hint="the file was changed; use an intact copy",
        )
    return adapter


def check_pair(module: str, pair: LoraPair) -> None:
    """Raises CorruptAdapter unless A (r, d_in), B (d_out, r), or A (r, C_in, k, k), B (C_out, r, 1, 1), all finite."""
    _check_factors(module, pair)
    if pair.A.ndim != pair.B.ndim or pair.B.shape[2:] not in ((), (1, 1)):
        raise _mismatched(module, pair)


def conform(module: str, pair: LoraPair, shape: Sequence[int], *, base: str) -> LoraPair:
    """The pair reshaped for a layer with a weight of `shape`, (d_out, d_in) or (C_out, C_in, k, k).

    Some programs write the factors of a 1x1 convolution with two axes, others with four.

    Args:
        base: name of the base, for the message.

    Raises:
        Mismatch: the dimensions do not match.
    """
    A, B, r = pair.A, pair.B, pair.A.shape[0]
    a_shape, b_shape = (r, *shape[1:]), (shape[0], r, *(1 for _ in shape[2:]))
    is_flat = A.ndim == 2 or A.shape[2:] == (1, 1)
    fits_a = A.shape == a_shape or (is_flat and A.size == math.prod(a_shape))
    if not fits_a or B.shape[0] != shape[0] or B.size != math.prod(b_shape):
        raise Mismatch(
            f"expected A {a_shape} and B {b_shape} for {plain_name(module)} of {base}, got {A.shape} and {B.shape}",
            code="WrongBase",
        )
    return LoraPair(A.reshape(a_shape), B.reshape(b_shape))


def check_sides(module: str, got: tuple[int, int], expected: tuple[int, int]) -> None:
    """Compare the sides of a layer's change, as a matrix, with those of its weight. Raises Mismatch."""
    if got != expected:
        raise Mismatch(
            f"expected a change of {expected[0]} x {expected[1]} for {plain_name(module)}, got {got[0]} x {got[1]}",
            code="WrongBase",
        )


def refused_rank(module: str, rank: int) -> InputRefused:
    """The error of a layer whose rank is too large for any adapter."""
    return InputRefused(
        f"expected a LoRA of rank {MAX_RANK} at most, got a layer of rank {rank}: {plain_name(module)}",
        hint=EXTRACT, code="UnsupportedAdapter",
    )  # fmt: skip


def content_sha256(weights: Mapping[Network, Mapping[str, LoraPair]]) -> str:
    """Hash of names, types, shapes and numbers; it does not depend on the file format or CLIP's prefix."""
    digest = hashlib.sha256()
    for network in NETWORKS:
        modules = {plain_module(network, name): pair for name, pair in weights.get(network, {}).items()}
        for module, pair in sorted(modules.items()):
            for part, array in (("A", pair.A), ("B", pair.B)):
                digest.update(f"{network}\n{module}\n{part}\n{array.dtype.name}\n{array.shape}\n".encode())
                digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def plain_module(network: Network, module: str) -> str:
    """The module's name without the prefix that only some versions of transformers use."""
    return module.removeprefix(TEXT_ROOT) if encodes_text(network) else module


def _check_factors(module: str, pair: LoraPair) -> None:
    """Checks of a layer's factors that do not depend on the layer; `conform` checks its dimensions."""
    A, B = pair.A, pair.B
    fits = A.ndim in (2, 4) and B.ndim in (2, 4) and A.size > 0 and B.size > 0 and A.shape[0] == B.shape[1]
    if not fits:
        raise _mismatched(module, pair)
    if A.shape[0] > MAX_RANK:
        raise refused_rank(module, A.shape[0])
    if not (np.isfinite(A).all() and np.isfinite(B).all()):
        raise CorruptAdapter(f"expected finite numbers, got NaN or infinity in {plain_name(module)}", hint=_HINT)


def _mismatched(module: str, pair: LoraPair) -> CorruptAdapter:
    shapes = f"A {pair.A.shape} and B {pair.B.shape}"
    return CorruptAdapter(f"shapes of {shapes} do not match in {plain_name(module)}", hint=_HINT)


def without_middle(module: str, pair: LoraPair, middle: NDArray[np.floating]) -> LoraPair:
    """LyCORIS' decomposition of a convolution, down (r, C_in, 1, 1) and mid (r, r, k, k), as one factor A."""
    A = pair.A
    if A.ndim != 4 or A.shape[2:] != (1, 1) or middle.ndim != 4 or middle.shape[:2] != (A.shape[0], A.shape[0]):
        raise CorruptAdapter(
            f"shapes of A {A.shape} and mid {middle.shape} do not match in {plain_name(module)}", hint=_HINT
        )
    with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses numbers that are not finite
        A = np.einsum("ojkl,jc->ockl", middle.astype(np.float32), A[:, :, 0, 0].astype(np.float32))
    return LoraPair(A, pair.B)


def _widened(pair: LoraPair, rank: int) -> LoraPair:
    missing = rank - pair.A.shape[0]
    rest = [(0, 0)] * (pair.A.ndim - 2)
    return LoraPair(np.pad(pair.A, [(0, missing), (0, 0), *rest]), np.pad(pair.B, [(0, 0), (0, missing), *rest]))


def scalar(module: str, tensor: NDArray[np.floating]) -> float:
    """The alpha of a layer. Raises CorruptAdapter."""
    if tensor.size != 1 or not np.isfinite(tensor).all() or not 0 < float(tensor.reshape(())) <= 1e6:
        raise CorruptAdapter(f"expected alpha of {plain_name(module)} to be one number above 0", hint=_HINT)
    return float(tensor.reshape(()))
