"""The families of base models that Likeness knows, as a table. A family is data: no code asks for its name."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..errors import BaseNotFound
from ..types import Network

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
RESNET = ("conv1", "conv2")
CLIP_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
CLIP_FEED_FORWARD = ("fc1", "fc2")


@dataclass(frozen=True)
class Family:
    """Facts of one kind of base model."""

    name: str
    resolution_px: int
    guidance_scale: float  # a good default
    targets: Mapping[Network, tuple[str, ...]]  # endings of the module names that adapters may touch
    learning_rate_scale: float  # recipes are written for Stable Diffusion; small networks take larger steps


LIKENESS_128 = Family(
    name="likeness-128",
    resolution_px=128,
    guidance_scale=3.0,
    targets=MappingProxyType(
        {"unet": ATTENTION + FEED_FORWARD + RESNET, "text_encoder": CLIP_ATTENTION + CLIP_FEED_FORWARD}
    ),
    learning_rate_scale=20.0,
)
SD_15 = Family(
    name="sd-1.5",
    resolution_px=512,
    guidance_scale=7.5,
    targets=MappingProxyType({"unet": ATTENTION + FEED_FORWARD, "text_encoder": CLIP_ATTENTION}),
    learning_rate_scale=1.0,
)
SD_21_BASE = Family(
    name="sd-2.1-base",
    resolution_px=512,
    guidance_scale=7.5,
    targets=MappingProxyType({"unet": ATTENTION + FEED_FORWARD, "text_encoder": CLIP_ATTENTION}),
    learning_rate_scale=1.0,
)
SD_21 = Family(
    name="sd-2.1",
    resolution_px=768,
    guidance_scale=7.5,
    targets=MappingProxyType({"unet": ATTENTION + FEED_FORWARD, "text_encoder": CLIP_ATTENTION}),
    learning_rate_scale=1.0,
)

# (cross-attention width, latent cells a side) -> family
_BY_SHAPE = {(192, 16): LIKENESS_128, (768, 64): SD_15, (1024, 64): SD_21_BASE, (1024, 96): SD_21}


def family_of(unet_config: Mapping[str, Any]) -> Family:
    """The family of a U-Net with this diffusers config.

    Raises:
        BaseNotFound: a shape that is not in the table.
    """
    shape = (unet_config.get("cross_attention_dim"), unet_config.get("sample_size"))
    if shape not in _BY_SHAPE:
        known = ", ".join(f"{family.name} {width, cells}" for (width, cells), family in _BY_SHAPE.items())
        raise BaseNotFound(
            f"expected a U-Net whose cross-attention width and latent size are one of: {known}",
            hint="choose a base of one of these families",
        )
    return _BY_SHAPE[shape]
