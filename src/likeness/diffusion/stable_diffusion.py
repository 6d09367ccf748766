"""Stable Diffusion 1, 2 and XL, and the built-in base: CLIP, a U-Net and an autoencoder of diffusers' classes.

StableDiffusion     one text encoder, its last states (Rombach et al. 2022)
StableDiffusionXL   two text encoders, the states before their last layers side by side, the second's pooled
                    state, and the size of the image as further inputs (Podell et al. 2023, section 2.2)
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, cast

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ..types import Network
from .batch_invariance import paired
from .conditioning import Conditioning
from .model import BaseModel, Configs

_AUTOENCODERS = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}


@dataclass(frozen=True, eq=False)
class StableDiffusion(BaseModel):
    """Stable Diffusion 1.5 and 2.1, and the built-in base."""

    adapted: ClassVar[tuple[Network, ...]] = ("unet", "text_encoder")
    tokenizer_kinds: ClassVar[Mapping[str, Any]] = {"tokenizer": CLIPTokenizer}
    is_batch_invariant: ClassVar[bool] = True
    _reader: Tokenizer = field(init=False, repr=False)  # without padding or truncation
    # Each call changes the tokenizer's padding and truncation, so it must not be used by two threads at once.
    _tokenizing: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        reader = Tokenizer.from_str(self.tokenizers["tokenizer"].backend_tokenizer.to_str())
        reader.no_truncation()
        reader.no_padding()
        object.__setattr__(self, "_reader", reader)
        self.unet.set_attn_processor(_processors(self.unet))
        _give_prepared(self.unet)

    @classmethod
    def kinds(cls, configs: Configs) -> Mapping[str, Any]:
        vae = _AUTOENCODERS.get(configs["vae"]["_class_name"], AutoencoderKL)
        return {"unet": UNet2DConditionModel, "text_encoder": CLIPTextModel, "vae": vae}

    @property
    def unet(self) -> Any:
        return self.parts["unet"]

    @property
    def text_encoder(self) -> nn.Module:
        return self.parts["text_encoder"]

    @property
    def vae(self) -> Any:
        return self.parts["vae"]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        cells = self.unet.config["sample_size"]
        return self.unet.config["in_channels"], cells, cells

    def _encoded(self, pixels: Tensor) -> Tensor:
        encoded = self.vae.encode(pixels.to(self.device, self.vae.dtype))
        latents = encoded.latents if isinstance(self.vae, AutoencoderTiny) else encoded.latent_dist.mode()
        return latents * self.vae.config["scaling_factor"]

    def _decoded(self, latents: Tensor) -> Tensor:
        z = latents.to(self.device, self.vae.dtype) / self.vae.config["scaling_factor"]
        return self.vae.decode(paired(z), return_dict=False)[0][: len(z)].float().clamp(-1, 1)

    @property
    def pixels_per_cell(self) -> int:
        config = self.vae.config
        return 2 ** (len(config.get("block_out_channels") or config["encoder_block_out_channels"]) - 1)

    @property
    def max_tokens(self) -> int:
        return self.tokenizers["tokenizer"].model_max_length

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (B, N)."""
        return self._ids(self.tokenizers["tokenizer"], prompts)

    def _ids(self, tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
        with self._tokenizing:
            encoded = tokenizer(
                list(prompts), padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt"
            )
        return encoded["input_ids"].to(self.device)

    def unread(self, prompt: str) -> str:
        places = self._reader.encode(prompt).offsets  # of the tokens, with start and end token
        last = self.max_tokens - 1  # position of the end token of a truncated prompt
        return prompt[places[last][0] :] if len(places) > last + 1 else ""

    def says(self, text: str, words: str) -> bool:
        said = self._reader.encode(text, add_special_tokens=False)
        sought = self._reader.encode(words, add_special_tokens=False).ids
        starts = [i for i in range(len(said.ids)) if i == 0 or _ends_word(said.tokens[i - 1], said.offsets, i)]
        return any(said.ids[i : i + len(sought)] == sought for i in starts)

    def encode_prompt(self, ids: Tensor) -> Conditioning:
        return Conditioning(self.text_encoder(ids).last_hidden_state)

    def prepared(self, conditioning: Conditioning) -> Conditioning:
        """States (B, N, d) -> the keys and values of all layers of cross-attention side by side."""
        layers: list[Any] = [block.attn2 for block in _blocks(self.unet).values()]
        parts = [project(conditioning.states) for attn in layers for project in (attn.to_k, attn.to_v)]
        return replace(conditioning, states=torch.cat(parts, dim=-1))

    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        return self.unet(x_t.to(self.dtype), t.to(self.device), conditioning.states, return_dict=False)[0]


@dataclass(frozen=True, eq=False)
class StableDiffusionXL(StableDiffusion):
    """Stable Diffusion XL base. Conventions as in diffusers' StableDiffusionXLPipeline."""

    adapted: ClassVar[tuple[Network, ...]] = ("unet", "text_encoder", "text_encoder_2")
    reads_views: ClassVar[bool] = True
    tokenizer_kinds: ClassVar[Mapping[str, Any]] = {"tokenizer": CLIPTokenizer, "tokenizer_2": CLIPTokenizer}

    @classmethod
    def kinds(cls, configs: Configs) -> Mapping[str, Any]:
        return {**super().kinds(configs), "text_encoder_2": CLIPTextModelWithProjection}

    @classmethod
    def dtype_of(cls, part: str, config: Mapping[str, Any], dtype: torch.dtype) -> torch.dtype:
        """float32 for an autoencoder that overflows in float16."""
        return torch.float32 if part == "vae" and config.get("force_upcast") else dtype

    @property
    def zeroes_empty_negative(self) -> bool:
        return bool(self.index.get("force_zeros_for_empty_prompt", True))

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (B, 2, N): the two tokenizers share a vocabulary and differ in padding."""
        return torch.stack([self._ids(tokenizer, prompts) for tokenizer in self.tokenizers.values()], dim=1)

    def encode_prompt(self, ids: Tensor) -> Conditioning:
        """(B, 2, N) -> states (B, N, d_1 + d_2) and pooled (B, D)."""
        one = self.text_encoder(ids[:, 0], output_hidden_states=True)
        two = self.parts["text_encoder_2"](ids[:, 1], output_hidden_states=True)
        return Conditioning(torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1), two.text_embeds)

    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Without `views` the original has the size of the image and is not cropped."""
        side = [float(cells * self.pixels_per_cell) for cells in x_t.shape[2:]]  # H, W
        views = torch.tensor([*side, 0.0, 0.0, *side]) if conditioning.views is None else conditioning.views
        times = views.to(self.device).expand(len(x_t), -1)
        further = {"text_embeds": cast(Tensor, conditioning.pooled), "time_ids": times}
        return self.unet(
            x_t.to(self.dtype), t.to(self.device), conditioning.states, added_cond_kwargs=further, return_dict=False
        )[0]


class _Attention:
    """The attention of a transformer block, as diffusers computes it; keys and values of a prompt can be given.

    It leaves out a division by 1 of diffusers' own, which is a kernel of its own.
    """

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | tuple[Tensor, Tensor] | None = None,
        attention_mask: None = None, temb: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """hidden_states (B, n, d) -> (B, n, d). encoder_hidden_states: of a prompt, or its keys and values."""
        query = attn.to_q(hidden_states)
        if isinstance(encoder_hidden_states, tuple):
            key, value = encoder_hidden_states
        else:
            read = hidden_states if encoder_hidden_states is None else encoder_hidden_states
            key, value = attn.to_k(read), attn.to_v(read)
        heads = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in (query, key, value))
        attended = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return attn.to_out[0](attended.to(query.dtype))


def _blocks(unet: nn.Module) -> dict[str, BasicTransformerBlock]:
    """The transformer blocks by name, in network order."""
    return {name: module for name, module in unet.named_modules() if isinstance(module, BasicTransformerBlock)}


def _processors(unet: Any) -> dict[str, Any]:
    """diffusers' processors by name, with ours for the transformer blocks."""
    ours = {f"{name}.{attn}.processor": _Attention() for name in _blocks(unet) for attn in ("attn1", "attn2")}
    return {name: ours.get(name, processor) for name, processor in unet.attn_processors.items()}


def _give_prepared(unet: nn.Module) -> None:
    """Let each transformer block take its own keys and values from a prepared prompt, see `prepared`.

    That happens outside the block, so that blocks of one width can share compiled code.
    """
    start = 0
    for block in _blocks(unet).values():
        middle, stop = start + block.attn2.inner_kv_dim, start + 2 * block.attn2.inner_kv_dim
        own = partial(_own_prompt, keys=slice(start, middle), values=slice(middle, stop))
        block.register_forward_pre_hook(own, with_kwargs=True)
        start = stop


def _own_prompt(
    block: Any, inputs: tuple[Any, ...], named: dict[str, Any], *, keys: slice, values: slice
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The inputs of a block with its own part of a prepared prompt; None: the prompt is not prepared."""
    states = named.get("encoder_hidden_states")
    if not isinstance(states, Tensor) or states.shape[-1] == block.attn2.cross_attention_dim:
        return None
    return inputs, {**named, "encoder_hidden_states": (states[..., keys], states[..., values])}


def _ends_word(token: str, places: Sequence[tuple[int, int]], following: int) -> bool:
    """Whether a token ends a word: CLIP's vocabulary marks such tokens; added tokens are always whole words."""
    return token.endswith("</w>") or places[following - 1][1] < places[following][0]
