"""Layer names of FLUX.2's and Z-Image's own code, which ComfyUI and most trainers write, and those of diffusers.

Their code has queries, keys and values as one layer. A LoRA of it becomes one LoRA for each of diffusers' layers: the
same A, and a third of the rows of B. Source: diffusers 0.42 loaders/lora_conversion_utils.py.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from .factors import Part

_RENAMED = (  # diffusers' name -> their own
    (r"^transformer_blocks\.(\d+)\.attn\.to_out\.0$", r"double_blocks.\1.img_attn.proj"),
    (r"^transformer_blocks\.(\d+)\.attn\.to_add_out$", r"double_blocks.\1.txt_attn.proj"),
    (r"^transformer_blocks\.(\d+)\.ff\.linear_in$", r"double_blocks.\1.img_mlp.0"),
    (r"^transformer_blocks\.(\d+)\.ff\.linear_out$", r"double_blocks.\1.img_mlp.2"),
    (r"^transformer_blocks\.(\d+)\.ff_context\.linear_in$", r"double_blocks.\1.txt_mlp.0"),
    (r"^transformer_blocks\.(\d+)\.ff_context\.linear_out$", r"double_blocks.\1.txt_mlp.2"),
    (r"^single_transformer_blocks\.(\d+)\.attn\.to_qkv_mlp_proj$", r"single_blocks.\1.linear1"),
    (r"^single_transformer_blocks\.(\d+)\.attn\.to_out$", r"single_blocks.\1.linear2"),
    (r"^((?:layers|noise_refiner|context_refiner)\.\d+\.attention)\.to_out\.0$", r"\1.out"),
)
_FUSED = (  # their own name, with `_` or `.`, -> diffusers' names of its thirds
    (r"double_blocks[._](\d+)[._]img_attn[._]qkv", r"transformer_blocks.\1.attn.", ("to_q", "to_k", "to_v")),
    (r"double_blocks[._](\d+)[._]txt_attn[._]qkv", r"transformer_blocks.\1.attn.",
     ("add_q_proj", "add_k_proj", "add_v_proj")),
    (r"(layers|noise_refiner|context_refiner)[._](\d+)[._]attention[._]qkv", r"\1.\2.attention.",
     ("to_q", "to_k", "to_v")),
)  # fmt: skip


def native_name(module: str) -> str:
    """The name of a transformer's layer in the model's own code, or the same where diffusers has not changed it."""
    for pattern, native in _RENAMED:
        if re.match(pattern, module):
            return re.sub(pattern, native, module)
    return module


def parts_of_fused(name: str) -> tuple[str, ...]:
    """Diffusers' names of the thirds of a fused layer; (): not a fused layer."""
    for pattern, start, ends in _FUSED:
        if re.search(pattern, name):
            return tuple(re.sub(pattern, start + end, name) for end in ends)
    return ()


def without_fused(
    arrays: Mapping[str, NDArray[np.floating]], split: Callable[[str], tuple[str, Part]]
) -> dict[str, NDArray[np.floating]]:
    """The file with queries, keys and values as layers of their own.

    Args:
        split: key -> name of the layer, with which the key begins, and part.
    """
    out: dict[str, NDArray[np.floating]] = {}
    for key, array in arrays.items():
        if not parts_of_fused(key):
            out[key] = array
            continue
        name, part = split(key)
        thirds = np.array_split(array, 3) if part == "B" else [array] * 3
        for one, third in zip(parts_of_fused(name), thirds, strict=True):
            out[one + key[len(name) :]] = third
    return out
