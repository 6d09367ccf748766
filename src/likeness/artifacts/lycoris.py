"""LyCORIS' LoHa and LoKr as plain LoRA, where that is exact and of a rank that an adapter may have.

LoHa   delta W = alpha / r * (W1a W1b) * (W2a W2b), the Hadamard product. Of two matrices of rank r it has rank r^2, and
       its factors are the products of their columns and of their rows (Hyeon-Woo et al. 2022, 'FedPara').
LoKr   delta W = alpha / r * (W1 x W2), the Kronecker product. A product of factors is the product of factors:
       (P Q) x (R S) = (P x R) (Q x S), so its rank is that of W1 times that of W2 (Edalati et al. 2022, 'KronA').

Source of names, shapes and scales: KohakuBlueleaf/LyCORIS, lycoris/modules/loha.py and lokr.py.
"""

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptAdapter, InputRefused, plain_name
from .card import MAX_RANK

Array = NDArray[np.floating]
_KEY = re.compile(r"(.+)\.(hada_w[12]_[ab]|lokr_w[12](?:_[ab])?)")
_TUCKER = re.compile(r"\.(hada|lokr)_t[12](\.|$)")  # convolutions in further factors
_LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
MOST_NUMBERS = 2**28  # in all plain layers of a file: their size is the product of that of small tensors
_HINT = "convert it to a plain LoRA of a lower rank with the program that made it"


def as_plain(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The same tensors, with those of LoHa and LoKr layers as `lora_down`, `lora_up` and `alpha`.

    Layers with Tucker factors stay as they are.

    Raises:
        CorruptAdapter: a layer without all of its tensors, or whose shapes do not match.
        InputRefused: the rank of a plain layer, or the size of all of them, would be above the largest.
    """
    if any(map(_TUCKER.search, arrays)):
        return dict(arrays)
    layers: dict[str, dict[str, Array]] = {}
    out, numbers = dict[str, Array](), 0
    for key, array in arrays.items():
        if found := _KEY.fullmatch(key):
            layers.setdefault(found[1], {})[found[2]] = array.astype(np.float32)
        else:
            out[key] = array
    for name, parts in layers.items():
        try:
            one, other, rank = _matrices(parts)
            multiply = _columns if parts.keys() & set(_LOHA) else np.kron
            wide = one[0].shape[1] * other[0].shape[1]
            numbers += wide * _sides(one, other, is_kronecker=multiply is np.kron)
            if wide > MAX_RANK or numbers > MOST_NUMBERS:
                raise InputRefused(
                    f"expected a LoRA of rank {MAX_RANK} at most, got a layer of rank {wide}: {plain_name(name)}",
                    hint=_HINT, code="UnsupportedAdapter",
                )  # fmt: skip
            scale = _scale(out.get(f"{name}.alpha"), rank)
        except (KeyError, ValueError) as error:
            raise CorruptAdapter(
                f"expected all tensors of {plain_name(name)} in shapes that match, got others",
                hint="use an intact copy of the file",
            ) from error
        with np.errstate(over="ignore", invalid="ignore"):  # numbers that are not finite are refused later
            up, down = multiply(one[0], other[0]), multiply(one[1].T, other[1].T).T
        out |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": np.ascontiguousarray(down)}
        out[f"{name}.alpha"] = np.array(scale * wide, np.float32)
    return out


Pair = tuple[Array, Array]  # (rows, r) and (r, columns)


def _matrices(parts: Mapping[str, Array]) -> tuple[Pair, Pair, int | None]:
    """W1 and W2 as products, and r of the file; None: it has whole matrices. Raises KeyError, ValueError."""
    if parts.keys() & set(_LOHA):
        w1a, w1b, w2a, w2b = (_matrix(parts[name]) for name in _LOHA)
        if w1a.shape[1] != len(w1b) or w2a.shape[1] != len(w2b):
            raise ValueError("ranks differ")
        if len(w1a) != len(w2a) or w1b.shape[1] != w2b.shape[1]:
            raise ValueError("sizes differ")
        return (w1a, w1b), (w2a, w2b), len(w1b)
    (one, first), (other, second) = (_factors(parts, name) for name in ("lokr_w1", "lokr_w2"))
    return one, other, second or first


def _columns(one: Array, other: Array) -> Array:
    """(rows, r) and (rows, s) -> (rows, r * s): all products of their columns."""
    return np.asarray(np.einsum("ni,nj->nij", one, other).reshape(len(one), -1))


def _sides(one: Pair, other: Pair, *, is_kronecker: bool) -> int:
    """Rows and columns of the product, together."""
    if not is_kronecker:
        return len(one[0]) + one[1].shape[1]
    return len(one[0]) * len(other[0]) + one[1].shape[1] * other[1].shape[1]


def _scale(alpha: Array | None, rank: int | None) -> float:
    """alpha / r; 1 without low-rank factors, where alpha is not read. Raises ValueError."""
    if alpha is None or rank is None:
        return 1.0
    if alpha.size != 1:
        raise ValueError("more than one alpha")
    return float(alpha.reshape(())) / rank


def _factors(parts: Mapping[str, Array], name: str) -> tuple[Pair, int | None]:
    """Two factors of one matrix, and their rank if the file has them."""
    if name in parts:
        whole = _matrix(parts[name])
        side = np.eye(min(whole.shape), dtype=np.float32)
        return ((whole, side) if whole.shape[0] >= whole.shape[1] else (side, whole)), None
    a, b = _matrix(parts[f"{name}_a"]), _matrix(parts[f"{name}_b"])
    if a.shape[1] != len(b):
        raise ValueError("ranks differ")
    return (a, b), len(b)


def _matrix(array: Array) -> Array:
    """(rows, columns): a convolution's further axes are columns, as in the base's weight."""
    if array.ndim < 2:
        raise ValueError("no matrix")
    return array.reshape(len(array), -1)
