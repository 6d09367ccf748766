"""The interface of a base model. An architecture is one subclass; nothing outside `diffusion` depends on which.

    photo -> encode_photo -> latent        prompt -> tokenize -> encode_prompt -> Conditioning
    (x_t, t, conditioning) -> denoise -> network output          latent -> decode -> photo

A subclass says which sub-folders of diffusers' layout it loads and with which classes, which of these networks adapters
modify, and fills the methods above. Its conventions stay inside: the loop, the engine and the bank pass token ids and
conditioning on without reading them, by their first axis only. What a network's output means is in `schedule`.
`base.load_base` finds the subclass by the family and builds it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from ..types import Network
from .conditioning import Conditioning
from .family import BaseOutline, Family
from .lora import target_modules
from .schedule import Schedule

Configs = Mapping[str, Mapping[str, Any]]  # sub-folder -> its config.json


@dataclass(frozen=True, eq=False)
class BaseModel(ABC):
    """A loaded, frozen base."""

    id: str
    sha256: str
    family: Family
    schedule: Schedule
    tokenizers: Mapping[str, Any]  # sub-folder -> tokenizer
    parts: Mapping[str, Any]  # sub-folder -> frozen network, of diffusers' and transformers' classes

    adapted: ClassVar[tuple[Network, ...]]  # the networks that adapters modify; the denoising network is the first
    tokenizer_kinds: ClassVar[Mapping[str, Any]]  # sub-folder -> class with `from_pretrained`

    @classmethod
    @abstractmethod
    def kinds(cls, configs: Configs) -> Mapping[str, Any]:
        """The class of each network by its sub-folder, with `from_pretrained`."""

    @classmethod
    def dtype_of(cls, part: str, config: Mapping[str, Any], dtype: torch.dtype) -> torch.dtype:
        """The type in which a network is loaded if the base's is `dtype`; other where it would overflow."""
        return dtype

    @property
    def networks(self) -> dict[Network, nn.Module]:
        """The networks that adapters modify."""
        return {name: self.parts[name] for name in self.adapted}

    @contextmanager
    def recomputing(self, call: Callable[..., Any]) -> Iterator[None]:
        """Within the block, the denoising network calls its blocks through `call`, if gradients are recorded.

        Args:
            call: takes a block and its inputs, as `LoraBank.recomputed`.
        """
        network = self.parts[self.adapted[0]]
        network.enable_gradient_checkpointing(call)
        try:
            yield
        finally:
            network.disable_gradient_checkpointing()

    @property
    def outline(self) -> BaseOutline:
        """The properties that an adapter for this base must match."""
        return outline(self.id, self.sha256, self.family, self.networks)

    @property
    def device(self) -> torch.device:
        return self._weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the denoising network."""
        return self._weight.dtype

    @property
    def _weight(self) -> Tensor:
        return next(self.parts[self.adapted[0]].parameters())

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) at the family's resolution."""

    @abstractmethod
    def encode_photo(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> scaled latents (B, C, h, w), without sampling."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) -> pixels (B, 3, H, W) in [-1, 1], float32."""

    @abstractmethod
    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (B, ...) on the device, padded or truncated to one length; `unread` is what is cut off."""

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """Tokens of a prompt that are read, with start and end."""

    @abstractmethod
    def unread(self, prompt: str) -> str:
        """The end of a prompt that `tokenize` truncates; empty if there is none. Thread-safe."""

    @abstractmethod
    def says(self, text: str, words: str) -> bool:
        """Whether `text` contains `words` as whole words: the same tokens, from the start of a word. Thread-safe.

        Letters inside another word do not match; case matters only if the tokenizer distinguishes it.
        """

    @abstractmethod
    def encode_prompt(self, ids: Tensor) -> Conditioning:
        """Token ids (B, ...) of `tokenize` -> conditioning of B rows."""

    zeroes_empty_negative: ClassVar[bool] = False  # an empty negative prompt is zeros, not the encoding of ''

    @abstractmethod
    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The network's raw output (B, C, h, w) at timesteps (B,); `schedule.denoised` makes a clean latent of it."""


def outline(id: str, sha256: str, family: Family, networks: Mapping[Network, nn.Module]) -> BaseOutline:
    """The outline of networks, which may be on the meta device."""
    layers = {
        network: {
            name: tuple(cast(Tensor, layer.weight).shape)
            for name, layer in target_modules(module, family.targets[network]).items()
        }
        for network, module in networks.items()
    }
    return BaseOutline(id, sha256, family, layers)
