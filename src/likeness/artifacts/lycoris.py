"""LyCORIS' LoHa and LoKr as plain LoRA, exactly, where an adapter may have the rank; and as matrices.

LoHa   delta W = alpha / r * (W1a W1b) * (W2a W2b), the Hadamard product. Of two matrices of rank r it has rank r^2, and
       its factors are the products of their columns and of their rows (Hyeon-Woo et al. 2022, 'FedPara').
LoKr   delta W = alpha / r * (W1 x W2), the Kronecker product. A product of factors is the product of factors:
       (P Q) x (R S) = (P x R) (Q x S), so its rank is that of W1 times that of W2 (Edalati et al. 2022, 'KronA').

A convolution may have a Tucker core t of shape (r, r, k, k) between its two factors a (r, C_out) and b (r, C_in).

Source of names, shapes and scales: KohakuBlueleaf/LyCORIS, lycoris/modules/loha.py and lokr.py.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptAdapter, InputRefused, plain_name
from .card import MAX_RANK
from .factors import EXTRACT, check_sides, refused_rank

Array = NDArray[np.floating]
KEY = re.compile(r"(.+)\.(hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))")
MOST_NUMBERS = 2**28  # in all plain layers of a file: their size is the product of that of small tensors

Pair = tuple[Array, Array]  # (rows, r) and (r, columns)


def is_lycoris(parts: Mapping[str, Array]) -> bool:
    """Whether the tensors of a layer, by the end of their keys, are those of LoHa or LoKr."""
    return any(part.startswith(("hada_", "lokr_")) for part in parts)


def as_plain(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The same tensors, with those of LoHa and LoKr layers as `lora_down`, `lora_up` and `alpha`.

    Raises:
        CorruptAdapter: a layer without all of its tensors, or whose shapes do not match.
        InputRefused: the rank of a plain layer, or the size of all of them, would be above the largest.
    """
    layers: dict[str, dict[str, Array]] = {}
    out, numbers = dict[str, Array](), 0
    for key, array in arrays.items():
        if found := KEY.fullmatch(key):
            layers.setdefault(found[1], {})[found[2]] = array
        else:
            out[key] = array
    for name, parts in layers.items():
        with complete(name):
            one, other, rank = _matrices(parts)
            multiply = _columns if _is_loha(parts) else np.kron
            wide = one[0].shape[1] * other[0].shape[1]
            numbers += wide * sum(_sides(parts, one, other))
            if wide > MAX_RANK:
                raise refused_rank(name, wide)
            if numbers > MOST_NUMBERS:
                raise InputRefused(
                    f"expected at most {MOST_NUMBERS} numbers in the factors of a plain LoRA, got more",
                    hint=EXTRACT, code="UnsupportedAdapter",
                )  # fmt: skip
            scale = _scale(out.get(f"{name}.alpha"), rank)
            with np.errstate(over="ignore", invalid="ignore"):  # numbers that are not finite are refused later
                up, down = multiply(one[0], other[0]), multiply(one[1].T, other[1].T).T
            factors = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": np.ascontiguousarray(down)}
            if factors.keys() & out.keys():
                raise ValueError("both LoRA and LyCORIS")
        out |= factors
        out[f"{name}.alpha"] = np.array(scale * wide, np.float32)
    return out


def delta(name: str, parts: Mapping[str, Array], sides: tuple[int, int]) -> Array:
    """delta W of a layer as a matrix, a convolution's further axes among the columns.

    Args:
        parts: tensors by the end of their keys, with `alpha`.
        sides: rows and columns of the base's weight.

    Raises:
        CorruptAdapter: not all of the layer's tensors, or shapes that do not match.
        Mismatch: the matrix has other sides.
    """
    with complete(name), np.errstate(over="ignore", invalid="ignore"):  # the caller refuses what is not finite
        one, other, rank = _matrices(parts)
        check_sides(name, _sides(parts, one, other), sides)
        left, right = (factors[0] @ factors[1] for factors in (one, other))
        product = left * right if _is_loha(parts) else np.kron(left, right)
        return np.asarray(product * np.float32(_scale(parts.get("alpha"), rank)))


@contextmanager
def complete(name: str) -> Iterator[None]:
    """Within the block, a layer whose tensors are missing or do not fit to each other raises CorruptAdapter."""
    try:
        yield
    except (KeyError, ValueError) as error:
        raise CorruptAdapter(
            f"expected all tensors of {plain_name(name)} in shapes that match, got others",
            hint="use an intact copy of the file",
        ) from error


def _is_loha(parts: Mapping[str, Array]) -> bool:
    return any(part.startswith("hada_") for part in parts)


def _matrices(parts: Mapping[str, Array]) -> tuple[Pair, Pair, int | None]:
    """W1 and W2 as products, and r of the file; None: it has whole matrices. Raises KeyError, ValueError."""
    if _is_loha(parts):
        one, other = (_factors(parts, f"hada_w{k}", f"hada_t{k}") for k in (1, 2))
        if len(one[0]) != len(other[0]) or one[1].shape[1] != other[1].shape[1]:
            raise ValueError("sizes differ")
        return one, other, len(one[1])
    (one, first), (other, second) = (_whole_or_factors(parts, f"lokr_w{k}", f"lokr_t{k}") for k in (1, 2))
    return one, other, second or first


def _columns(one: Array, other: Array) -> Array:
    """(rows, r) and (rows, s) -> (rows, r * s): all products of their columns."""
    return np.asarray(np.einsum("ni,nj->nij", one, other).reshape(len(one), -1))


def _sides(parts: Mapping[str, Array], one: Pair, other: Pair) -> tuple[int, int]:
    """Rows and columns of the product."""
    rows, columns = len(one[0]), one[1].shape[1]
    return (rows, columns) if _is_loha(parts) else (rows * len(other[0]), columns * other[1].shape[1])


def _scale(alpha: Array | None, rank: int | None) -> float:
    """alpha / r; 1 without low-rank factors, where alpha is not read. Raises ValueError."""
    if alpha is None or rank is None:
        return 1.0
    if alpha.size != 1:
        raise ValueError("more than one alpha")
    return float(alpha.reshape(())) / rank


def _whole_or_factors(parts: Mapping[str, Array], name: str, core: str) -> tuple[Pair, int | None]:
    """Two factors of one matrix, and their rank if the file has them."""
    if name in parts:
        whole = _matrix(parts[name])
        side = np.eye(min(whole.shape), dtype=np.float32)
        return ((whole, side) if whole.shape[0] >= whole.shape[1] else (side, whole)), None
    a, b = _factors(parts, name, core)
    return (a, b), len(b)


def _factors(parts: Mapping[str, Array], name: str, core: str) -> Pair:
    """Raises KeyError, ValueError."""
    a, b = _matrix(parts[f"{name}_a"]), _matrix(parts[f"{name}_b"])
    if core in parts:
        t = parts[core].astype(np.float32)
        if t.ndim != 4 or t.size == 0 or math.prod(t.shape) // t.shape[1] * b.shape[1] > MOST_NUMBERS:
            raise ValueError("no core of a convolution")
        a, b = a.T, np.einsum("ijkl,jc->ickl", t, b).reshape(len(t), -1)
    if a.shape[1] != len(b):
        raise ValueError("ranks differ")
    return a, b


def _matrix(array: Array) -> Array:
    """(rows, columns) in float32: a convolution's further axes are columns, as in the base's weight."""
    if array.ndim < 2:
        raise ValueError("no matrix")
    return array.reshape(len(array), -1).astype(np.float32)
