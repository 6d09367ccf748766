"""The networks of the built-in base, untrained: classes of diffusers and transformers with small sizes."""

import json
from pathlib import Path
from typing import Any

from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .latents import CHANNELS

LATENT_CELLS = 16  # 128 px at f8
TEXT_WIDTH = 192
MAX_TOKENS = 48
WORD_DEVIATION, POSITION_DEVIATION = 1.0, 0.3  # of the embeddings at the start


def build_unet() -> UNet2DConditionModel:
    """About 11.9 M parameters: (B, 16, 16, 16), (B,) timesteps, (B, N, 192) -> (B, 16, 16, 16).

    Attention at 8 and 4 cells only: at 16 cells it costs as much again on a CPU as all convolutions together.
    `attention_head_dim` is, in this class, the number of heads.
    """
    return UNet2DConditionModel(
        sample_size=LATENT_CELLS,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(96, 128, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        use_linear_projection=True,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """About 1.5 M parameters: (B, N) token ids -> (B, N, 192).

    Words start far apart, so that they stay the largest part of what the layers add up. From the class's own deviation
    of 0.02 the training drowned them: after 460,000 samples 'a man' and 'a woman' were 0.02 apart in states of norm
    60; only places and styles reached the U-Net, and a new name could not either (`evaluate` has a figure for it).
    """
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    nn.init.normal_(encoder.embeddings.token_embedding.weight, std=WORD_DEVIATION)
    nn.init.normal_(encoder.embeddings.position_embedding.weight, std=POSITION_DEVIATION)
    return encoder


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer written by `tokenizer.write_tokenizer`."""
    vocab = json.loads((folder / "vocab.json").read_text())
    lines = (folder / "merges.txt").read_text().splitlines()[1:]
    merges: Any = [tuple(line.split(" ")) for line in lines if line]  # annotated as list[str], but takes pairs
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)
