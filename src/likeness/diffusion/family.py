"""The supported families of base models, as a table. A family is data: no code depends on its name."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from ..errors import NotFound
from ..types import Network

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
PROJECTIONS = ("proj_in", "proj_out")  # around a stack of attention blocks
RESNET = ("conv1", "conv2")
REST = (  # further U-Net layers, for imported LoCon files, which may adapt every convolution and linear layer
    "time_emb_proj", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "conv_in", "conv_out",
    "time_embedding.linear_1", "time_embedding.linear_2",
)  # fmt: skip
CLIP_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
CLIP_FEED_FORWARD = ("fc1", "fc2")
Architecture = Literal["stable-diffusion", "stable-diffusion-xl"]  # the classes and conventions of a family's networks

CROPS = ("portrait", "close")  # upright, at two distances


@dataclass(frozen=True)
class Family:
    """Properties of one kind of base model."""

    name: str
    architecture: Architecture
    resolution_px: int
    guidance_scale: float  # default
    negative_scale: float | None  # default adapter scale for the negative prompt; None: as for the prompt
    targets: Mapping[Network, tuple[str, ...]]  # endings of the names of modules that adapters may modify
    trained: Mapping[Network, tuple[str, ...]]  # the subset that recipes may name
    framings: tuple[str, ...]  # framings of a person's prepared photographs that training uses
    class_templates: tuple[str, ...]  # captions of the class images, in turn; {} is the class noun
    styles: Mapping[str, str]  # caption -> filter of `photos.styles` for styled copies of the photographs; {} as above
    learning_rate_scale: float  # recipes are for Stable Diffusion; small networks need larger rates
    origins: tuple[str, ...]  # LoRA files of other programs that may fit, by `artifacts.layer_names.origin_of`


@dataclass(frozen=True)
class BaseOutline:
    """A base without its weights: the properties that an adapter must match."""

    id: str  # folder name or model id
    sha256: str  # of all base weights
    family: Family
    layers: Mapping[Network, Mapping[str, tuple[int, ...]]]  # module that adapters may modify -> shape of its weight

    @property
    def name(self) -> str:
        """For messages: the family's name, which contains no user text."""
        return self.family.name


_TARGETS: Mapping[Network, tuple[str, ...]] = MappingProxyType(
    {
        "unet": ATTENTION + FEED_FORWARD + PROJECTIONS + RESNET + REST,
        "text_encoder": CLIP_ATTENTION + CLIP_FEED_FORWARD,
    }
)
_LIKENESS_TRAINED: Mapping[Network, tuple[str, ...]] = MappingProxyType(
    {"unet": ATTENTION + FEED_FORWARD + RESNET, "text_encoder": CLIP_ATTENTION + CLIP_FEED_FORWARD}
)
_SD_TRAINED: Mapping[Network, tuple[str, ...]] = MappingProxyType(
    {"unet": ATTENTION + FEED_FORWARD, "text_encoder": CLIP_ATTENTION}
)

_SDXL_TARGETS: Mapping[Network, tuple[str, ...]] = MappingProxyType(
    {
        "unet": (*_TARGETS["unet"], "add_embedding.linear_1", "add_embedding.linear_2"),
        "text_encoder": _TARGETS["text_encoder"],
        "text_encoder_2": _TARGETS["text_encoder"],
    }
)
_SDXL_TRAINED: Mapping[Network, tuple[str, ...]] = MappingProxyType(
    {"unet": ATTENTION + FEED_FORWARD, "text_encoder": CLIP_ATTENTION, "text_encoder_2": CLIP_ATTENTION}
)
_STABLE_DIFFUSION = ("Likeness' built-in base", "Stable Diffusion 1", "Stable Diffusion 2")

# Without styled copies of the photographs, this network learns the subject in photos only.
_LIKENESS_STYLES: Mapping[str, str] = MappingProxyType({
    "pencil sketch of {}": "pencil sketch", "oil painting of {}": "oil painting",
    "watercolor painting of {}": "watercolor painting", "comic book portrait of {}": "comic book",
    "anime portrait of {}": "anime", "pixel art of {}": "pixel art", "neon cyberpunk portrait of {}": "neon cyberpunk",
    "bronze statue of {}": "bronze statue", "marble statue of {}": "marble statue",
    "pop art portrait of {}": "pop art", "black and white photo of {}": "black and white photo",
})  # fmt: skip

LIKENESS_128 = Family(
    name="likeness-128",
    architecture="stable-diffusion",
    resolution_px=128,
    guidance_scale=2.0,
    negative_scale=0.0,  # sharper faces, more similar to the person (docs/log.md)
    targets=_TARGETS,
    trained=_LIKENESS_TRAINED,
    framings=("aligned",),  # its training data are aligned headshots
    # In all its styles: with photos only, a network this small would learn that all images are photos.
    class_templates=("photo of {}", *_LIKENESS_STYLES),
    styles=_LIKENESS_STYLES,
    learning_rate_scale=40.0,
    origins=_STABLE_DIFFUSION,
)
SD_15 = Family(
    name="sd-1.5",
    architecture="stable-diffusion",
    resolution_px=512,
    guidance_scale=7.5,
    negative_scale=None,
    targets=_TARGETS,
    trained=_SD_TRAINED,
    framings=CROPS,
    class_templates=("photo of {}",),
    styles=MappingProxyType({}),
    learning_rate_scale=1.0,
    origins=_STABLE_DIFFUSION,
)
SD_21_BASE = Family(
    name="sd-2.1-base",
    architecture="stable-diffusion",
    resolution_px=512,
    guidance_scale=7.5,
    negative_scale=None,
    targets=_TARGETS,
    trained=_SD_TRAINED,
    framings=CROPS,
    class_templates=("photo of {}",),
    styles=MappingProxyType({}),
    learning_rate_scale=1.0,
    origins=_STABLE_DIFFUSION,
)
SD_21 = Family(
    name="sd-2.1",
    architecture="stable-diffusion",
    resolution_px=768,
    guidance_scale=7.5,
    negative_scale=None,
    targets=_TARGETS,
    trained=_SD_TRAINED,
    framings=CROPS,
    class_templates=("photo of {}",),
    styles=MappingProxyType({}),
    learning_rate_scale=1.0,
    origins=_STABLE_DIFFUSION,
)

SDXL = Family(
    name="sdxl",
    architecture="stable-diffusion-xl",
    resolution_px=1024,
    guidance_scale=5.0,  # diffusers' default for this base
    negative_scale=None,
    targets=_SDXL_TARGETS,
    trained=_SDXL_TRAINED,
    framings=CROPS,
    class_templates=("photo of {}",),
    styles=MappingProxyType({}),
    learning_rate_scale=1.0,
    origins=("SDXL",),
)

# (cross-attention width, latent cells a side) -> family
_BY_SHAPE = {(192, 16): LIKENESS_128, (768, 64): SD_15, (1024, 64): SD_21_BASE, (1024, 96): SD_21, (2048, 128): SDXL}


def family_of(unet_config: Mapping[str, Any], *, latent_channels: int) -> Family:
    """The family of a U-Net config of diffusers and a number of latent channels.

    Raises:
        NotFound: the shape is not in the table, or the network has further inputs (inpainting, editing).
    """
    shape = (unet_config.get("cross_attention_dim"), unet_config.get("sample_size"))
    if shape not in _BY_SHAPE:
        known = ", ".join(f"{family.name} {width, cells}" for (width, cells), family in _BY_SHAPE.items())
        raise NotFound(
            f"expected a U-Net whose cross-attention width and latent size are one of: {known}",
            hint="choose a base of a supported family",
            code="BaseNotFound",
        )
    channels = unet_config.get("in_channels", 4), unet_config.get("out_channels", 4)
    if channels != (latent_channels, latent_channels):
        raise NotFound(
            f"expected a U-Net with {latent_channels} input and output channels, as many as the latents have",
            hint="bases for inpainting or editing are not supported: choose a text-to-image base",
            code="BaseNotFound",
        )
    return _BY_SHAPE[shape]
