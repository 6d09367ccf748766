"""Z-Image: a single-stream flow transformer (Z-Image Team 2025) with the last but one hidden states of Qwen3.

Conventions as in diffusers' ZImagePipeline, where time runs from noise to image and the network's output has the
opposite sign. Captions have their own lengths: the network pads each to a multiple of 32, gives image patches positions
behind their caption, and masks what it adds to make rows equally long. So a row does not depend on the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from torch import Tensor

from .batch_invariance import paired
from .conditioning import Conditioning
from .model import Configs
from .qwen import QwenPrompted


@dataclass(frozen=True, eq=False)
class ZImage(QwenPrompted):
    """Z-Image and its distilled sibling, Z-Image-Turbo."""

    thinks: ClassVar[bool] = True

    @classmethod
    def kinds(cls, configs: Configs) -> Mapping[str, Any]:
        return {"transformer": ZImageTransformer2DModel, "text_encoder": cls.text_kind(configs), "vae": AutoencoderKL}

    @classmethod
    def dtype_of(cls, part: str, config: Mapping[str, Any], dtype: torch.dtype) -> torch.dtype:
        """Not float16, in which adapters of this base have no effect (kohya-ss/musubi-tuner, issue 769)."""
        return torch.float32 if dtype == torch.float16 else dtype

    @property
    def pixels_per_cell(self) -> int:
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    def _encoded(self, pixels: Tensor) -> Tensor:
        encoded = self.vae.encode(pixels.to(self.device, self.vae.dtype)).latent_dist.mode()
        return (encoded - self.vae.config["shift_factor"]) * self.vae.config["scaling_factor"]

    def _decoded(self, latents: Tensor) -> Tensor:
        z = latents.to(self.device, self.vae.dtype) / self.vae.config["scaling_factor"]
        z = z + self.vae.config["shift_factor"]
        return self.vae.decode(paired(z), return_dict=False)[0][: len(z)].float().clamp(-1, 1)

    def encode_prompt(self, ids: Tensor) -> Conditioning:
        """(B, 2, N) -> states (B, N, d) and the tokens of each row."""
        return Conditioning(self.hidden_states(ids, (-2,))[0], lengths=tuple(ids[:, 1].sum(1).tolist()))

    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The velocity."""
        captions = [states[:length] for states, length in zip(conditioning.states, conditioning.lengths, strict=True)]
        images = list(x_t.to(self.dtype).unsqueeze(2))  # (C, 1, h, w) each: a video of one frame
        time = self.schedule.signal(t).to(self.device, torch.float32)
        output = self.transformer(images, time, captions, return_dict=False)[0]
        return -torch.stack(output).squeeze(2)
