"""Key names and header of kohya's sd-scripts, as read by ComfyUI and A1111.

    lora_unet_down_blocks_0_..._to_q.lora_down.weight   A
    lora_unet_down_blocks_0_..._to_q.lora_up.weight     B
    lora_unet_down_blocks_0_..._to_q.alpha              one number per layer
    lora_te_text_model_encoder_layers_0_...             the text encoder, always with text_model
    lora_te1_text_model_..., lora_te2_text_model_...    the two text encoders of SDXL

For writing; `layer_names` reads them.
Sources: kohya-ss/sd-scripts networks/lora.py and library/train_util.py; comfyanonymous/ComfyUI comfy/lora.py.
"""

import numpy as np

from ..types import Adapter, AdapterCard, Network, encodes_text
from .factors import TEXT_ROOT, plain_module
from .tensors import Tensors

_STARTS: dict[Network, str] = {"unet": "lora_unet_", "text_encoder": "lora_te_"}
_STARTS_OF_SDXL: dict[Network, str] = {**_STARTS, "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
# family -> name in sd-scripts, if any
_VERSIONS = {"sd-1.5": "sd_v1", "sd-2.1-base": "sd_v2", "sd-2.1": "sd_v2_v", "sdxl": "sdxl_base_v1-0"}


def flat_name(family: str, network: Network, module: str) -> str:
    """The kohya name of a module of a family's network."""
    plain = plain_module(network, module)
    spelled = TEXT_ROOT + plain if encodes_text(network) else plain
    starts = _STARTS_OF_SDXL if family == "sdxl" else _STARTS
    return starts[network] + spelled.replace(".", "_")


def tensors_of(adapter: Adapter) -> Tensors:
    """Keys and arrays of the file."""
    arrays: Tensors = {}
    for network, found in adapter.weights.items():
        for module, pair in found.items():
            name = flat_name(adapter.card.family, network, module)
            arrays[f"{name}.lora_down.weight"], arrays[f"{name}.lora_up.weight"] = pair.A, pair.B
            arrays[f"{name}.alpha"] = np.array(adapter.card.alpha, np.float32)
    return arrays


def metadata_of(card: AdapterCard) -> dict[str, str]:
    """The ss_ entries as written by sd-scripts, as far as known."""
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
