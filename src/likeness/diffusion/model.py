"""The interface of a base model. An architecture is one subclass; nothing outside `diffusion` depends on which.

    photo -> encode_photo -> latent        prompt -> tokenize -> encode_prompt -> Conditioning (-> prepared)
    (x_t, t, conditioning) -> denoise -> network output          latent -> decode -> photo

A subclass says which sub-folders of diffusers' layout it loads and with which classes, which of these networks adapters
modify, and fills the methods above. Its conventions stay inside: the loop, the engine and the bank pass token ids and
conditioning on without reading them, by their first axis only. What a network's output means is in `schedule`.
`base.load_base` finds the subclass by the family and builds it.
"""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from ..types import Network, encodes_text
from .conditioning import Conditioning
from .family import BaseOutline, Family
from .lora import target_modules
from .schedule import Schedule

Configs = Mapping[str, Mapping[str, Any]]  # sub-folder -> its config.json
AUTOENCODER_PIXELS = 2**20  # in one pass of the autoencoder: four images of 512 x 512, one of 1024 x 1024


@dataclass(frozen=True, eq=False)
class BaseModel(ABC):
    """A loaded, frozen base."""

    id: str
    sha256: str
    family: Family
    schedule: Schedule
    tokenizers: Mapping[str, Any]  # sub-folder -> tokenizer
    parts: Mapping[str, Any]  # sub-folder -> frozen network, of diffusers' and transformers' classes
    index: Mapping[str, Any]  # model_index.json: settings of diffusers' pipeline
    streaming: tuple[str, ...] = field(default=(), kw_only=True)  # sub-folders of networks that are in host memory
    # for `streaming`: one thread at a time uses the autoencoder
    _coding: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, kw_only=True)

    adapted: ClassVar[tuple[Network, ...]]  # the networks that adapters modify; the denoising network is the first
    tokenizer_kinds: ClassVar[Mapping[str, Any]]  # sub-folder -> class with `from_pretrained`
    streamed: ClassVar[tuple[str, ...]] = ()  # sub-folders of networks that can be in host memory in serving, too
    # whether the network takes as inputs of each image: height and width of its original, top and left edge of the crop
    # after the original was resized, height and width of the crop, in pixels (Podell et al. 2023, section 2.2)
    reads_views: ClassVar[bool] = False
    is_batch_invariant: ClassVar[bool] = False  # on a CPU, after `make_batch_invariant` of the adapted networks

    @classmethod
    @abstractmethod
    def kinds(cls, configs: Configs) -> Mapping[str, Any]:
        """The class of each network by its sub-folder, with `from_pretrained`."""

    @classmethod
    def dtype_of(cls, part: str, config: Mapping[str, Any], dtype: torch.dtype) -> torch.dtype:
        """The type in which a network is loaded if the base's is `dtype`; other where it would overflow."""
        return dtype

    def image_tokens(self, width_px: int, height_px: int) -> int:
        """Of an image in the denoising network; 0: the noise process does not depend on it."""
        return 0

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
    def down_blocks(self) -> Sequence[nn.Module]:
        """Of the denoising network, if it is a U-Net; they come before all its other blocks."""
        return tuple(getattr(self.parts[self.adapted[0]], "down_blocks", ()))

    @contextmanager
    def frozen_down_blocks(self) -> Iterator[None]:
        """Within the block, no gradient reaches the prompts through the down blocks.

        Where no adapter trains them either, backward ends behind them.
        """

        def detach(block: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            states = inputs.get("encoder_hidden_states")
            return args, inputs if states is None else {**inputs, "encoder_hidden_states": states.detach()}

        hooks = [block.register_forward_pre_hook(detach, with_kwargs=True) for block in self.down_blocks]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each network, by its sub-folder."""
        return {
            name: sum(tensor.nbytes for tensor in (*part.parameters(), *part.buffers()))
            for name, part in self.parts.items()
        }

    @property
    def host_bytes(self) -> int:
        """Of the networks that are in host memory; the others are on the device."""
        return sum(self.sizes[name] for name in self.streaming)

    @property
    def adapts_text(self) -> bool:
        """Whether adapters modify text encoders. If not, an encoded prompt is the same for everybody."""
        return any(encodes_text(network) for network in self.adapted)

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

    @property
    @abstractmethod
    def pixels_per_cell(self) -> int:
        """Of a latent, along one side."""

    def latent_shape_of(self, width_px: int, height_px: int) -> tuple[int, int, int]:
        """(C, h, w) of an image of a size that the family allows."""
        return self.latent_shape[0], height_px // self.pixels_per_cell, width_px // self.pixels_per_cell

    @torch.no_grad()
    def encode_photo(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> scaled latents (B, C, h, w), without sampling."""
        return self._in_slices(self._encoded, pixels, pixels.shape[2:])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) -> pixels (B, 3, H, W) in [-1, 1], float32."""
        side = [cells * self.pixels_per_cell for cells in latents.shape[2:]]
        return self._in_slices(self._decoded, latents, side)

    def _in_slices(self, code: Callable[[Tensor], Tensor], whole: Tensor, side_px: Sequence[int]) -> Tensor:
        """`code` of all rows in slices; between two of them another thread can use the autoencoder."""
        parts = []
        for part in whole.split(_slice(side_px)):
            with self._coding:
                parts.append(code(part))
        return torch.cat(parts)

    @abstractmethod
    def _encoded(self, pixels: Tensor) -> Tensor:
        """`encode_photo` in one pass."""

    @abstractmethod
    def _decoded(self, latents: Tensor) -> Tensor:
        """`decode` in one pass."""

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

    @property
    def zeroes_empty_negative(self) -> bool:
        """Whether an empty negative prompt is zeros, not the encoding of ''."""
        return False

    def prepared(self, conditioning: Conditioning) -> Conditioning:
        """The denoising network's computation on the prompt alone: once for an image, not in each step.

        `denoise` takes both. It is called with the adapters of the denoising network.
        """
        return conditioning

    @abstractmethod
    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The network's raw output (B, C, h, w) at timesteps (B,); `schedule.denoised` makes a clean latent of it."""


def _slice(side: Sequence[int]) -> int:
    """Images of this size in one pass of the autoencoder."""
    return max(1, AUTOENCODER_PIXELS // math.prod(side))


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
