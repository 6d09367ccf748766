"""FLUX.2-klein: a flow transformer on packed latents, with three of Qwen3's hidden states (Black Forest Labs 2025).

Conventions as in diffusers' Flux2KleinPipeline. Text is always 512 tokens, padding included and not masked, so all rows
have one shape.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
from torch import Tensor
from torch.nn import functional as F

from .batch_invariance import paired
from .conditioning import Conditioning
from .model import Configs
from .qwen import QwenPrompted

TEXT_LAYERS = (9, 18, 27)  # hidden states of the text encoder that are concatenated


@dataclass(frozen=True, eq=False)
class Flux2Klein(QwenPrompted):
    """FLUX.2-klein-base and its distilled sibling. A latent is the autoencoder's, 2 x 2 cells packed into one."""

    thinks: ClassVar[bool] = False

    @classmethod
    def kinds(cls, configs: Configs) -> Mapping[str, Any]:
        return {
            "transformer": Flux2Transformer2DModel, "text_encoder": cls.text_kind(configs), "vae": AutoencoderKLFlux2,
        }  # fmt: skip

    @property
    def pixels_per_cell(self) -> int:
        return 2 ** len(self.vae.config["block_out_channels"])

    def _encoded(self, pixels: Tensor) -> Tensor:
        encoded = self.vae.encode(pixels.to(self.device, self.vae.dtype)).latent_dist.mode()
        mean, deviation = self._statistics
        return (F.pixel_unshuffle(encoded, 2) - mean) / deviation

    def _decoded(self, latents: Tensor) -> Tensor:
        mean, deviation = self._statistics
        z = F.pixel_shuffle(latents.to(self.device, self.vae.dtype) * deviation + mean, 2)
        return self.vae.decode(paired(z), return_dict=False)[0][: len(z)].float().clamp(-1, 1)

    @property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of packed latents, (1, C, 1, 1)."""
        norm = self.vae.bn
        deviation = (norm.running_var + self.vae.config["batch_norm_eps"]).sqrt()
        return norm.running_mean.view(1, -1, 1, 1), deviation.view(1, -1, 1, 1)

    def encode_prompt(self, ids: Tensor) -> Conditioning:
        """(B, 2, N) -> states (B, N, 3 d)."""
        return Conditioning(torch.cat(self.hidden_states(ids, TEXT_LAYERS), dim=-1))

    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The velocity."""
        rows, channels, height, width = x_t.shape
        places = torch.cartesian_prod(*map(torch.arange, (1, height, width, 1)))  # (h * w, 4)
        words = torch.cartesian_prod(*map(torch.arange, (1, 1, 1, conditioning.states.shape[1])))  # (N, 4)
        time = self.schedule.sigma(t).to(self.device) * self.schedule.timesteps
        output = self.transformer(
            hidden_states=x_t.to(self.dtype).flatten(2).mT, encoder_hidden_states=conditioning.states,
            timestep=time.to(self.dtype) / self.schedule.timesteps, img_ids=places.to(self.device),
            txt_ids=words.to(self.device), guidance=None, return_dict=False,
        )[0]  # fmt: skip
        return output.mT.reshape(rows, channels, height, width)
