"""The key names and header of kohya's sd-scripts, which ComfyUI and A1111 read.

    lora_unet_down_blocks_0_..._to_q.lora_down.weight   A
    lora_unet_down_blocks_0_..._to_q.lora_up.weight     B
    lora_unet_down_blocks_0_..._to_q.alpha              one number per layer
    lora_te_text_model_encoder_layers_0_...             the text encoder, always with text_model

Dots became underscores, so a name says only which modules it could be; the base's list of modules says which it is.
Sources: kohya-ss/sd-scripts networks/lora.py and library/train_util.py; comfyanonymous/ComfyUI comfy/lora.py.
"""

from collections.abc import Callable

import numpy as np

from ..errors import CorruptAdapter, WrongBase
from ..types import Adapter, AdapterCard, Network
from .factors import NETWORKS, TEXT_ROOT, Key, Part, label, plain_module
from .foreign import WRONG_LAYER, Modules
from .tensors import Tensors

_STARTS: dict[Network, str] = {"unet": "lora_unet_", "text_encoder": "lora_te_"}
_SUFFIXES: dict[str, Part] = {".lora_down.weight": "A", ".lora_up.weight": "B", ".alpha": "alpha"}
_VERSIONS = {
    "sd-1.5": "sd_v1",
    "sd-2.1-base": "sd_v2",
    "sd-2.1": "sd_v2_v",
}  # family -> sd-scripts' word, if it has one


def flat_name(network: Network, module: str) -> str:
    """The kohya name of a module."""
    plain = plain_module(network, module)
    spelled = TEXT_ROOT + plain if network == "text_encoder" else plain
    return _STARTS[network] + spelled.replace(".", "_")


def tensors_of(adapter: Adapter) -> Tensors:
    """Keys and arrays of the file."""
    arrays: Tensors = {}
    for network, found in adapter.weights.items():
        for module, pair in found.items():
            name = flat_name(network, module)
            arrays[f"{name}.lora_down.weight"], arrays[f"{name}.lora_up.weight"] = pair.A, pair.B
            arrays[f"{name}.alpha"] = np.array(adapter.card.alpha, np.float32)
    return arrays


def metadata_of(card: AdapterCard) -> dict[str, str]:
    """The ss_ entries that sd-scripts would have written, as far as they are known."""
    entries = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(card.rank),
        "ss_network_alpha": str(card.alpha),
        "ss_output_name": card.name,
        "ss_sd_model_name": card.base_id,
        "ss_seed": str(card.seed),
        "ss_steps": str(card.steps),
        "ss_num_train_images": str(card.photos),
    }
    if card.family in _VERSIONS:
        version = _VERSIONS[card.family]
        entries |= {"ss_base_model_version": version, "ss_v2": str(version.startswith("sd_v2"))}
    return entries


def key_parser(modules: Modules) -> Callable[[str], Key | None]:
    """A parser for `factors.gather` that knows this base's modules.

    The parser raises WrongBase for a layer that is not among them, CorruptAdapter for a name that fits two.
    """
    known: dict[str, list[tuple[Network, str]]] = {}
    for network in NETWORKS:
        for module in sorted(set(modules.get(network, ()))):
            known.setdefault(flat_name(network, module), []).append((network, module))

    def parse(key: str) -> Key | None:
        for suffix, part in _SUFFIXES.items():
            name = key.removesuffix(suffix)
            if name == key or not name.startswith(tuple(_STARTS.values())):
                continue
            candidates = known.get(name, [])
            if not candidates:
                raise WrongBase(
                    f"expected layers that adapters of this base may touch, got {label(name)}", hint=WRONG_LAYER
                )
            if len(candidates) > 1:
                raise CorruptAdapter(f"{label(name)} fits {len(candidates)} layers", hint="use another layout")
            return (*candidates[0], part)
        return None

    return parse
