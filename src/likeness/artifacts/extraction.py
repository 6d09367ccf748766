"""The nearest LoRA of a file that is not a usable LoRA: DoRA, or LoHa, LoKr or LoRA of too large a rank.

The change of each layer, delta W, is computed in full, and the nearest product of two factors of a rank is taken for it
(Eckart & Young 1936). Its relative error is ||delta W - B A|| / ||delta W|| in the Frobenius norm, with the factors
rounded to float16, in which they are stored; that of an adapter is the same over all of its layers.

DoRA (Liu et al. 2024, arXiv:2402.09353, equation 5) gives each column of a weight a magnitude m of its own:

    W' = m (W + s B A) / ||W + s B A||,  so that delta W = W' - W depends on the base's W and has full rank.

PEFT and diffusers write m as `lora_magnitude_vector`, one number for each output of the layer; LyCORIS and OneTrainer
as `dora_scale`, (outputs, 1) or (1, inputs) by their option `wd_on_output`. Source: PEFT 0.21 tuners/lora/dora.py;
LyCORIS lycoris/modules/locon.py, `apply_weight_decompose`.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..diffusion.family import BaseOutline
from ..errors import CorruptAdapter, plain_name
from ..types import Adapter, LoraPair, Network
from . import lycoris
from .factors import AlphaOf, Layer, check_sides, scalar, stored, uniform, without_middle
from .layer_names import REDUCIBLE, Arrays, LayerNames, LoraFile, refuse_other_bases, refuse_other_kinds, split
from .native_names import parts_of_fused

Array = NDArray[np.floating]
Losses = Mapping[tuple[Network, str], tuple[float, float]]  # layer -> ||delta W - B A|| and ||delta W||

_MAGNITUDE = re.compile(r"(.+)\.(dora_scale|lora_magnitude_vector)(?:\.(?!weight)\w+)?(?:\.weight)?")
_HINT = "use an intact copy of the file"
_EXACT_SIDE = 512  # of a matrix whose whole singular value decomposition takes less than a second
_OVERSAMPLING, _ITERATIONS = 16, 4


@dataclass(frozen=True)
class Extraction:
    """The requested rank, and the base, whose weights can be read."""

    rank: int
    weight_of: Callable[[Network, str], NDArray[np.float32]]


def extracted(file: LoraFile, base: BaseOutline, asked: Extraction) -> tuple[LoraFile, Losses]:
    """The file with all layers as plain LoRA of at most the rank, and the error.

    Layers that are one already stay as they are.

    Raises:
        InputRefused: neither LoRA nor DoRA, LoHa or LoKr; the message says what it is.
        Mismatch: layers that the base does not have or that have other dimensions, or a file for another kind of base.
        CorruptAdapter: a layer without all of its tensors, shapes that do not match, or numbers that are not finite.
        CorruptBase: the base's files lack a weight.
    """
    arrays = file.arrays
    refuse_other_kinds(arrays, allowed=REDUCIBLE)
    refuse_other_bases(file, base)
    names = LayerNames(base)
    out, losses = dict[str, Array](), dict[tuple[Network, str], tuple[float, float]]()
    for name, keys in _by_layer(arrays).items():
        parts = {part: arrays[key] for part, key in keys.items()}
        layers = [names.find(one) for one in parts_of_fused(name) or (name,)]
        if losses.keys() & set(layers):
            raise CorruptAdapter(
                f"expected one set of tensors for each layer, got two for {plain_name(layers[0][1])}", hint=_HINT
            )
        shapes = [base.layers[network][module] for network, module in layers]
        sides = sum(shape[0] for shape in shapes), math.prod(shapes[0][1:])
        update, rank = _update(name, parts, sides, file.alphas.get(layers[0][0]), layers[0][1])
        if "magnitude" in parts:
            weights = [asked.weight_of(*layer).reshape(len(update) // len(layers), -1) for layer in layers]
            is_output = "lora_magnitude_vector" in keys["magnitude"]
            columns = None if is_output else shapes[0][1]
            update = _decomposed(name, np.concatenate(weights), update, parts["magnitude"], columns)
        updates = dict(zip(layers, np.array_split(update, len(layers)), strict=True))
        if "magnitude" not in parts and rank is not None and rank <= asked.rank:
            out |= {key: arrays[key] for key in keys.values()}
            losses |= {layer: (0.0, float(np.linalg.norm(part))) for layer, part in updates.items()}
            continue
        with np.errstate(over="ignore"):
            is_usable = np.isfinite(np.linalg.norm(update))  # as `nearest` computes with its squares
        if not is_usable:
            raise CorruptAdapter(
                f"expected finite numbers, got NaN, infinity or numbers far too large in {plain_name(name)}", hint=_HINT
            )
        for (network, module), part in updates.items():
            pair, losses[network, module] = nearest(part, asked.rank)
            start = f"{network}.{module}"
            out |= {f"{start}.lora_A.weight": pair.A, f"{start}.lora_B.weight": pair.B}
            out[f"{start}.alpha"] = np.array(len(pair.A), np.float32)
    return replace(file, arrays=out), losses


def smaller(adapter: Adapter, rank: int) -> Adapter:
    """The nearest adapter of a rank; the same one if its rank is not larger."""
    if adapter.card.rank <= rank:
        return adapter
    layers: dict[Network, dict[str, Layer]] = {}
    losses: dict[tuple[Network, str], tuple[float, float]] = {}
    for network, pairs in adapter.weights.items():
        for module, pair in pairs.items():
            A, B = (factor.astype(np.float32) for factor in (pair.A, pair.B))
            update = B.reshape(len(B), -1) @ A.reshape(len(A), -1) * np.float32(adapter.card.alpha / adapter.card.rank)
            found, losses[network, module] = nearest(update, rank)
            kept = LoraPair(found.A.reshape(-1, *A.shape[1:]), found.B.reshape(len(B), -1, *B.shape[2:]))
            layers.setdefault(network, {})[module] = Layer(kept, float(len(found.A)))
    weights, widest, alpha = uniform(layers)
    card = replace(adapter.card, rank=widest, alpha=alpha, extraction=stated(losses))
    return stored(Adapter(card, weights))


def stated(losses: Losses) -> dict[str, float]:
    """The card's entry: the relative error of the adapter, and the largest of a layer; {}: no extraction."""
    error, norm = (math.hypot(*sizes) for sizes in zip(*losses.values(), strict=True))
    if error == 0:
        return {}
    return {"error": error / norm, "largest_error": max(lost / of for lost, of in losses.values() if of > 0)}


def nearest(update: Array, rank: int) -> tuple[LoraPair, tuple[float, float]]:
    """The factors of a rank at most that are nearest to a matrix, ||update - B A|| and ||update||.

    Large matrices by subspace iteration from random vectors (Halko et al. 2011, algorithm 4.4), of which the seed is
    fixed. The error is measured all the same.

    Args:
        update: (d_out, d_in), finite.
    """
    update = update.astype(np.float32, copy=False)
    wide = rank + _OVERSAMPLING
    if min(update.shape) <= max(_EXACT_SIDE, 4 * wide):
        left, sizes, right = np.linalg.svd(update, full_matrices=False)
    else:
        basis = np.random.default_rng(0).standard_normal((update.shape[1], wide), np.float32)
        for _ in range(_ITERATIONS):
            inner = np.linalg.qr(update @ basis)[0]
            basis = np.linalg.qr(update.T @ inner)[0]
        inner = np.linalg.qr(update @ basis)[0]
        left, sizes, right = np.linalg.svd(inner.T @ update, full_matrices=False)
        left = inner @ left
    roots = np.sqrt(sizes[:rank])
    A, B = roots[:, None] * right[:rank], left[:, :rank] * roots
    with np.errstate(over="ignore", invalid="ignore"):  # factors that float16 does not hold cannot be stored
        rounded = B.astype(np.float16).astype(np.float32) @ A.astype(np.float16).astype(np.float32)
        lost = float(np.linalg.norm(update - rounded))
    return LoraPair(A, B), (lost, float(np.linalg.norm(update)))


def _by_layer(arrays: Arrays) -> dict[str, dict[str, str]]:
    """The keys of each layer by part, both as the file names them. Raises InputRefused, CorruptAdapter."""
    layers: dict[str, dict[str, str]] = {}
    for key in sorted(arrays):
        if found := lycoris.KEY.fullmatch(key):
            name, part = found[1], found[2]
        elif found := _MAGNITUDE.fullmatch(key):
            name, part = found[1], "magnitude"
        else:
            name, part = split(key)
        if part in layers.setdefault(name, {}):
            raise CorruptAdapter(f"two tensors for {part} of {plain_name(name)}", hint=_HINT)
        layers[name][part] = key
    return layers


def _update(
    name: str, parts: Mapping[str, Array], sides: tuple[int, int], alpha_of: AlphaOf | None, module: str
) -> tuple[Array, int | None]:
    """alpha / r * B A, or LyCORIS' equivalent, as a matrix (rows, columns); and the rank of a plain LoRA."""
    alpha = scalar(name, parts["alpha"]) if "alpha" in parts else None
    if lycoris.is_lycoris(parts):
        if parts.keys() & {"A", "B", "mid"}:
            raise CorruptAdapter(f"expected LoRA or LyCORIS' tensors of {plain_name(name)}, got both")
        return lycoris.delta(name, parts, sides), None
    with lycoris.complete(name):
        A, B = (parts[part].astype(np.float32) for part in ("A", "B"))
        if A.ndim < 2 or B.ndim < 2:
            raise ValueError("no matrices")
        if "mid" in parts:
            A = without_middle(name, LoraPair(A, B), parts["mid"].astype(np.float32)).A
        rank = len(A)
        A, B = A.reshape(rank, -1), B.reshape(-1, rank)
    check_sides(name, (len(B), A.shape[1]), sides)
    if alpha is None:
        alpha = float(rank) if alpha_of is None else alpha_of(module, rank)
    with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses numbers that are not finite
        return B @ A * np.float32(alpha / rank), rank


def _decomposed(name: str, weight: Array, update: Array, magnitude: Array, inputs: int | None) -> Array:
    """m (W + dW) / ||W + dW|| - W.

    Args:
        weight, update: (rows, columns), a convolution's further axes among the columns.
        magnitude: one number for each row; or for each input, (1, inputs) and further axes of 1.
        inputs: of the layer; None: the magnitude is of the rows whatever its shape.

    Raises:
        CorruptAdapter: the magnitude has another size.
    """
    rows, columns = weight.shape
    changed = weight.astype(np.float64) + update
    m = magnitude.astype(np.float64)
    if m.size == rows and (inputs is None or m.shape[0] == rows):
        norms, m = np.linalg.norm(changed, axis=1, keepdims=True), m.reshape(rows, 1)
    elif inputs is not None and m.size == inputs and m.ndim > 1 and m.shape[1] == inputs:
        of_each = np.linalg.norm(changed.reshape(rows, inputs, -1), axis=(0, 2))
        norms, m = (np.repeat(one.reshape(1, -1), columns // inputs, axis=1) for one in (of_each, m))
    else:
        raise CorruptAdapter(
            f"expected a magnitude for each of {rows} outputs or {inputs or columns} inputs of {plain_name(name)}, got "
            f"the shape {magnitude.shape}",
            hint=_HINT,
        )
    with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses numbers that are not finite
        return (m * changed / (norms + np.finfo(np.float32).eps) - weight).astype(np.float32)
