"""Flow transformers whose prompts a language model encodes: what FLUX.2-klein and Z-Image have in common.

Adapters modify the denoising transformer only, so an encoded prompt is the same for all people. The language model can
stay in host memory (`streaming`): it is as large as the transformer, and needed only for a new prompt.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen3ForCausalLM, Qwen3Model

from ..types import Network
from .model import BaseModel, Configs

PROMPT_ROWS = 8  # in one pass of the language model
_LANGUAGE_MODELS = {"Qwen3ForCausalLM": Qwen3ForCausalLM, "Qwen3Model": Qwen3Model}


@dataclass(frozen=True, eq=False)
class QwenPrompted(BaseModel):
    """A base with Qwen3 (Yang et al. 2025) as its text encoder."""

    adapted: ClassVar[tuple[Network, ...]] = ("transformer",)
    tokenizer_kinds: ClassVar[Mapping[str, Any]] = {"tokenizer": Qwen2Tokenizer}
    streamed: ClassVar[tuple[str, ...]] = ("text_encoder",)
    thinks: ClassVar[bool]  # `enable_thinking` of the chat template that a prompt is put into
    # Each call changes the tokenizer's padding and truncation, so it must not be used by two threads at once.
    _tokenizing: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _encoding: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)  # see `streaming`

    @classmethod
    def text_kind(cls, configs: Configs) -> Any:
        """The class of the text encoder's file."""
        named = configs["text_encoder"].get("architectures") or ["Qwen3ForCausalLM"]
        return _LANGUAGE_MODELS[named[0]]

    def image_tokens(self, width_px: int, height_px: int) -> int:
        """One for each 16 x 16 pixels: 8 x 8 to a cell of the autoencoder, 2 x 2 cells to a token."""
        return (width_px // 16) * (height_px // 16)

    @property
    def transformer(self) -> Any:
        return self.parts["transformer"]

    @property
    def vae(self) -> Any:
        return self.parts["vae"]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        cells = self.family.resolution_px // self.pixels_per_cell
        return self.transformer.config["in_channels"], cells, cells

    @property
    def max_tokens(self) -> int:
        return 512

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """(B, 2, N): token ids, and 1 for each token that is not padding."""
        with self._tokenizing:
            encoded = self.tokenizers["tokenizer"](
                [self._message(prompt) for prompt in prompts], padding="max_length", truncation=True,
                max_length=self.max_tokens, return_tensors="pt", padding_side="right",
            )  # fmt: skip
        return torch.stack([encoded["input_ids"], encoded["attention_mask"]], dim=1).to(self.device)

    def _message(self, prompt: str) -> str:
        """A prompt as a user's message in the chat template."""
        said = [{"role": "user", "content": prompt}]
        return self.tokenizers["tokenizer"].apply_chat_template(
            said, tokenize=False, add_generation_prompt=True, enable_thinking=self.thinks
        )

    def unread(self, prompt: str) -> str:
        message = self._message(prompt)
        with self._tokenizing:
            places = self.tokenizers["tokenizer"](message, return_offsets_mapping=True)["offset_mapping"]
        if len(places) <= self.max_tokens:
            return ""
        return prompt[max(0, places[self.max_tokens][0] - message.index(prompt)) :]

    def says(self, text: str, words: str) -> bool:
        return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None

    @torch.no_grad()
    def hidden_states(self, ids: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """States (B, N, d) in front of these layers of the text encoder, for (B, 2, N) of `tokenize`."""
        body = self.parts["text_encoder"]
        body = getattr(body, "model", body)  # without the head, whose output would be as wide as the vocabulary
        parts = []
        for some in ids.split(PROMPT_ROWS):
            with self._encoding:
                states = body(
                    input_ids=some[:, 0], attention_mask=some[:, 1], output_hidden_states=True, use_cache=False
                ).hidden_states
            parts.append([states[layer] for layer in layers])
        return [torch.cat(states) for states in zip(*parts, strict=True)]
