"""A tiny random Stable Diffusion folder of the built-in base's family, and random people to train on it.

Diffusers' and transformers' own classes with the smallest numbers that keep the family's shape: cross-attention
width 192, 16 latent cells a side, 16 latent channels, attention at two levels.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from likeness.diffusion.base import BaseModel
from likeness.diffusion.lora import LoraBank
from likeness.training.data import TrainingSet
from recipes.base_model.networks import MAX_TOKENS, load_tokenizer
from recipes.base_model.tokenizer import write_tokenizer

WORDS = ("a", "photo", "of", "person", "man", "woman", "portrait", "close-up", "picture", "in", "the", "snow")


# scheduler/scheduler_config.json as published: none names a spacing, so each scheduler of diffusers has its own
_STABLE_DIFFUSION: dict[str, Any] = {
    "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False,
    "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    "trained_betas": None,
}  # fmt: skip
PUBLISHED_SCHEDULERS: dict[str, dict[str, Any]] = {
    "sd-1.5": {"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", **_STABLE_DIFFUSION},
    "sd-2.1-base": {"_class_name": "PNDMScheduler", "_diffusers_version": "0.10.0.dev0", **_STABLE_DIFFUSION,
                    "prediction_type": "epsilon"},
    "sd-2.1": {"_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", **_STABLE_DIFFUSION,
               "prediction_type": "v_prediction"},
}  # fmt: skip


def scheduler(prediction_type: str = "sample") -> Any:
    """Stable Diffusion's schedule."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type=prediction_type,
    )  # fmt: skip


def tiny_unet(**changes: Any) -> UNet2DConditionModel:
    options: dict[str, Any] = {
        "sample_size": 16,
        "in_channels": 16,
        "out_channels": 16,
        "block_out_channels": (16, 32, 32),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 192,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
        "use_linear_projection": True,
    }
    return UNet2DConditionModel(**(options | changes))


def build_tiny_folder(
    folder: Path, prediction_type: str = "sample", *, text_width: int = 192, latent_channels: int = 16,
    **unet_changes: Any,
) -> Path:  # fmt: skip
    """Write the whole folder in diffusers' layout; the same numbers for every prediction type."""
    torch.manual_seed(0)
    write_tokenizer(WORDS, folder / "words")
    tokenizer = load_tokenizer(folder / "words")
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=text_width, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=MAX_TOKENS, hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    vae = AutoencoderTiny(
        latent_channels=latent_channels, encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1),
    )  # fmt: skip
    pipeline: Any = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=tiny_unet(**unet_changes),
        scheduler=scheduler(prediction_type), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def build_tiny_stable_diffusion(folder: Path) -> Path:
    """The same with the shape of Stable Diffusion 1.5: its 4 channels, widths and convolutions around the attention."""
    return build_tiny_folder(
        folder, "epsilon", text_width=768, latent_channels=4, in_channels=4, out_channels=4, sample_size=64,
        cross_attention_dim=768, use_linear_projection=False,
    )  # fmt: skip


def build_tiny_sdxl(folder: Path, *, cells: int = 128) -> Path:
    """SDXL's classes and layout of blocks, with few channels; the states' width of 2048 and the scheduler are its own.

    Args:
        cells: latent cells a side; SDXL has 128, see `family.SDXL`.
    """
    torch.manual_seed(0)
    write_tokenizer(WORDS, folder / "words")
    tokenizers = [load_tokenizer(folder / "words"), load_tokenizer(folder / "words")]
    tokenizers[1].pad_token = "!"

    def text_config(width: int, **changes: Any) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=len(tokenizers[0]), hidden_size=width, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=MAX_TOKENS, bos_token_id=tokenizers[0].bos_token_id,
            eos_token_id=tokenizers[0].eos_token_id, pad_token_id=tokenizers[0].pad_token_id, **changes,
        )  # fmt: skip

    unet = tiny_unet(
        sample_size=cells, in_channels=4, out_channels=4, cross_attention_dim=2048, layers_per_block=2,
        transformer_layers_per_block=(1, 1, 2), addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, norm_num_groups=4, latent_channels=4,
        scaling_factor=0.13025, force_upcast=True, sample_size=8 * cells,
    )  # fmt: skip
    pipeline: Any = StableDiffusionXLPipeline(
        vae=vae, text_encoder=CLIPTextModel(text_config(768, hidden_act="quick_gelu")),
        text_encoder_2=CLIPTextModelWithProjection(text_config(1280, hidden_act="gelu", projection_dim=24)),
        tokenizer=tokenizers[0], tokenizer_2=tokenizers[1], unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
            timestep_spacing="leading",
        ),
        add_watermarker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def random_row(bank: LoraBank, seed: int, rank: int | None = None) -> Tensor:
    """An adapter of the size that training makes, as a bank row: every factor normal with variance 1 / width."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.zeros(bank.columns)
    used = rank or bank.rank
    for span in bank.spans:
        middle = span.start + span.a_size
        A, B = row[span.start : middle].view(span.a_shape), row[middle : span.stop].view(span.b_shape)
        fan_in = A[0].numel()
        A[:used] = torch.randn(A[:used].shape, generator=generator) / fan_in**0.5
        B[:, :used] = torch.randn(B[:, :used].shape, generator=generator) / used**0.5
    return row


def random_person(base: BaseModel, seed: int, *, photos: int = 5, priors: int = 3) -> TrainingSet:
    """A training set of random latents with real captions."""
    generator = torch.Generator().manual_seed(seed)
    emphasis = torch.rand(photos, 1, *base.latent_shape[1:], generator=generator) + 0.5
    texts = ["photo of <<TOK>> person", "a photo of <<TOK>> person"]
    return TrainingSet(
        latents=torch.randn(photos, *base.latent_shape, generator=generator),
        emphasis=emphasis / emphasis.mean((1, 2, 3), keepdim=True),
        ids=torch.stack([base.tokenize(texts)] * photos),
        prior_latents=torch.randn(priors, *base.latent_shape, generator=generator),
        prior_ids=base.tokenize(["photo of person"] * priors),
    )


def relative(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b||."""
    return ((a - b).norm() / b.norm().clamp(min=1e-30)).item()
