"""Bases at their published sizes, with random weights or none: Stable Diffusion, FLUX.2-klein and Z-Image.

Sources: unet/config.json, text_encoder*/config.json, vae/config.json and scheduler/scheduler_config.json of
stable-diffusion-v1-5, stable-diffusion-2-1-base, stable-diffusion-2-1 and stable-diffusion-xl-base-1.0; for the flows
diffusers' defaults for Z-Image, the depths and widths that FLUX.2-klein-base-4B's model card and trainers name, and the
config.json of Qwen3-4B. The tokenizers are the built-in base's, with CLIP's length and number of embeddings, and the
tests' of Qwen's class.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import CLIPTokenizer

from fixtures.tiny import tiny_qwen_tokenizer
from likeness.diffusion.base import BUILT_IN, locate

_UNET: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel", "in_channels": 4, "out_channels": 4, "layers_per_block": 2,
    "block_out_channels": [320, 640, 1280, 1280], "norm_num_groups": 32,
}  # fmt: skip
_UNET_2 = {**_UNET, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True}
_VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "latent_channels": 4,
    "layers_per_block": 2, "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "scaling_factor": 0.18215,
}  # fmt: skip
_TEXT: dict[str, Any] = {
    "model_type": "clip_text_model", "vocab_size": 49408, "max_position_embeddings": 77, "hidden_size": 768,
    "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "quick_gelu",
    "projection_dim": 768, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
}  # fmt: skip
_TEXT_2 = {
    **_TEXT, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
    "hidden_act": "gelu", "projection_dim": 512,
}  # fmt: skip
_TEXT_G = {
    **_TEXT, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "hidden_act": "gelu", "projection_dim": 1280,
}  # fmt: skip
_SCHEDULE: dict[str, Any] = {
    "_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "clip_sample": False, "num_train_timesteps": 1000, "set_alpha_to_one": False, "steps_offset": 1,
    "prediction_type": "epsilon",
}  # fmt: skip
_QWEN: dict[str, Any] = {
    "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": 151936, "hidden_size": 2560,
    "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 128, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
}  # fmt: skip
_FLOW: dict[str, Any] = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}


@dataclass(frozen=True)
class Published:
    """The configs of one base by sub-folder, and its schedule."""

    configs: Mapping[str, Mapping[str, Any]]
    schedule: Mapping[str, Any]


BASES: Mapping[str, Published] = MappingProxyType(
    {
        "sd-1.5": Published(
            {"unet": {**_UNET, "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
             "text_encoder": _TEXT, "vae": _VAE},
            _SCHEDULE,
        ),
        "sd-2.1-base": Published(
            {"unet": {**_UNET_2, "sample_size": 64}, "text_encoder": _TEXT_2, "vae": _VAE}, _SCHEDULE
        ),
        "sd-2.1": Published(
            {"unet": {**_UNET_2, "sample_size": 96}, "text_encoder": _TEXT_2, "vae": _VAE},
            {**_SCHEDULE, "prediction_type": "v_prediction"},
        ),
        "sdxl": Published(
            {
                "unet": {
                    **_UNET, "sample_size": 128, "cross_attention_dim": 2048, "use_linear_projection": True,
                    "block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20],
                    "transformer_layers_per_block": [1, 2, 10], "addition_embed_type": "text_time",
                    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
                    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                },
                "text_encoder": _TEXT, "text_encoder_2": _TEXT_G,
                "vae": {**_VAE, "scaling_factor": 0.13025, "force_upcast": True},
            },
            {**_SCHEDULE, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"},
        ),
        "flux2-klein-base-4b": Published(
            {
                "transformer": {
                    "_class_name": "Flux2Transformer2DModel", "in_channels": 128, "num_layers": 5,
                    "num_single_layers": 20, "attention_head_dim": 128, "num_attention_heads": 24,
                    "joint_attention_dim": 7680, "guidance_embeds": False,
                },
                "text_encoder": _QWEN, "vae": {"_class_name": "AutoencoderKLFlux2"},
            },
            {**_FLOW, "shift": 3.0, "use_dynamic_shifting": True},
        ),
        "z-image": Published(
            {
                "transformer": {"_class_name": "ZImageTransformer2DModel", "cap_feat_dim": 2560},
                "text_encoder": _QWEN,
                "vae": {
                    **_VAE, "latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159,
                    "use_quant_conv": False, "use_post_quant_conv": False,
                },
            },
            {**_FLOW, "shift": 6.0},
        ),
    }
)  # fmt: skip


def write_configs(name: str, folder: Path) -> Path:
    """A folder in diffusers' layout without weights, for `fake_base`."""
    published = BASES[name]
    for part, config in published.configs.items():
        _write(folder / part / "config.json", config)
    _write(folder / "scheduler" / "scheduler_config.json", published.schedule)
    if "transformer" in published.configs:
        tiny_qwen_tokenizer().save_pretrained(folder / "tokenizer")
        return folder
    tokenizer = CLIPTokenizer.from_pretrained(locate(BUILT_IN) / "tokenizer", model_max_length=77)
    for part in ("tokenizer", "tokenizer_2"):
        tokenizer.save_pretrained(folder / part)
    return folder


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
