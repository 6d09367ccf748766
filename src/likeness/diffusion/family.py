"""The supported families of base models, as a table. A family is data: no code depends on its name."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from ..errors import NotFound, UsageError
from ..types import PREPARED_PX, Network, Size

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
# FLUX.2: attention and feed-forward of the double blocks, for image and text; the fused layers of the single blocks
FLUX2 = (
    *ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "ff.linear_in", "ff.linear_out",
    "ff_context.linear_in", "ff_context.linear_out", "to_qkv_mlp_proj", "attn.to_out",
)  # fmt: skip
Z_IMAGE_FEED_FORWARD = ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3")
# layers of one module that read the same tensor; of cross-attention, queries read another one
_SAME_INPUT = (
    ("attn2.to_k", "attn2.to_v"), ("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj"),
    ("q_proj", "k_proj", "v_proj"), ("feed_forward.w1", "feed_forward.w3"),
)  # fmt: skip
# the classes and conventions of a family's networks
Architecture = Literal["stable-diffusion", "stable-diffusion-xl", "flux2-klein", "z-image"]

CROPS = ("portrait", "close")  # upright, at two distances
# At 1024 px 1152 x 896, 1216 x 832 and their transposes (Podell et al. 2023, appendix I). At resolutions in steps of
# 256 px the sides are multiples of 16, which all of these networks need.
ASPECTS = ((18, 14), (19, 13), (14, 18), (13, 19))


# aspects of the images that are offered, width by height
SHAPES = ((1, 1), (3, 4), (2, 3), (9, 16), (4, 3), (3, 2), (16, 9))


@dataclass(frozen=True)
class Sizes:
    """The images that a family makes besides its square."""

    step_px: int  # width and height are multiples of it
    least_area: float  # in areas of the square
    most_area: float
    most_aspect: float  # the longer side by the shorter

    def include(self, width_px: int, height_px: int, side_px: int) -> bool:
        """Whether images of a family with squares of `side_px` may have this size."""
        shorter, longer = sorted((width_px, height_px))
        return (
            width_px % self.step_px == height_px % self.step_px == 0
            and shorter > 0
            and self.least_area * side_px**2 <= width_px * height_px <= self.most_area * side_px**2
            and longer <= self.most_aspect * shorter
        )


def is_target(module: str, endings: Iterable[str]) -> bool:
    """Whether the last parts of a module's name are one of the endings."""
    return any(f".{module}".endswith(f".{ending}") for ending in endings)


def input_of(module: str) -> tuple[str, ...]:
    """A name of the tensor that a layer reads: layers of one network with equal names read the same."""
    if module.endswith("attn2.to_q"):
        return (module,)
    for endings in _SAME_INPUT:
        for ending in endings:
            if is_target(module, (ending,)):
                return module.removesuffix(ending), endings[0]
    return (module,)


@dataclass(frozen=True)
class Family:
    """Properties of one kind of base model."""

    name: str
    architecture: Architecture
    resolution_px: int
    guidance_scale: float  # default; 1: not guided
    targets: Mapping[Network, tuple[str, ...]]  # endings of the names of modules that adapters may modify
    trained: Mapping[Network, tuple[str, ...]]  # the subset that recipes may name
    origins: tuple[str, ...]  # LoRA files of other programs that may fit, by `artifacts.layer_names.origin_of`
    steps: int = 30  # default of sampling
    sampler: str = "dpmpp_2m"  # default
    fast_steps: int | None = None  # of fast images, with `fast_sampler`; None: none were measured
    fast_sampler: str = "ddim"
    negative_scale: float | None = None  # default adapter scale for the negative prompt; None: as for the prompt
    framings: tuple[str, ...] = CROPS  # framings of a person's prepared photographs that training uses
    # height and width of buckets besides the square, in sixteenths of its side: prepared photographs may have them
    aspects: tuple[tuple[int, int], ...] = ()
    sizes: Sizes | None = None  # of images; None: the square only
    native_px: int | None = None  # side of the squares of its model card, where they are larger than `resolution_px`
    class_templates: tuple[str, ...] = ("photo of {}",)  # captions of the class images, in turn; {} is the class noun
    # caption -> filter of `photos.styles` for styled copies of the photographs; {} as above
    styles: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    learning_rate_scale: float = 1.0  # recipes are for Stable Diffusion; small networks need larger rates
    undistilled: str | None = None  # the family that adapters for this distilled one are trained on

    @property
    def photo_px(self) -> int:
        """The side of the prepared photographs."""
        return max(PREPARED_PX, self.resolution_px)

    def checked_size(self, width_px: int | None, height_px: int | None) -> Size:
        """Width and height of an image; None and None: of the square. Raises UsageError: not a size of this family."""
        side = self.resolution_px
        if width_px is None or height_px is None or width_px == height_px == side:
            return side, side
        if self.sizes is None:
            raise UsageError(f"expected the size {side}x{side}, got {width_px}x{height_px}",
                             hint=f"{self.name} makes no other", param="size")  # fmt: skip
        if not self.sizes.include(width_px, height_px, side):
            least, most = (side**2 * area / 1e6 for area in (self.sizes.least_area, self.sizes.most_area))
            raise UsageError(
                f"expected a size in multiples of {self.sizes.step_px}, of {least:.2f} to {most:.2f} megapixels and at "
                f"most {self.sizes.most_aspect:g} to 1, got {width_px}x{height_px}",
                hint=f"for example: {'x'.join(map(str, self.shaped(3, 4)))}", param="size",
            )  # fmt: skip
        return width_px, height_px

    def shapes(self, side_px: int | None = None) -> dict[str, Size]:
        """The sizes that are offered, by their aspect: a square, and of each of `SHAPES` the largest of its area.

        As aspect buckets are made (NovelAI 2022): at 1024 px those of `ASPECTS` are among them. Of two aspects with one
        size the first is named.

        Args:
            side_px: of the square; None: `resolution_px`.
        """
        found: dict[str, Size] = {}
        for across, down in SHAPES if self.sizes else SHAPES[:1]:
            size = self.shaped(across, down, side_px)
            if size not in found.values():
                found[f"{across}:{down}"] = size
        return found

    def shaped(self, across: int, down: int, side_px: int | None = None) -> Size:
        """The size of about a square's area that is nearest to an aspect; the square as in `shapes`."""
        side = side_px or self.resolution_px
        if across == down or self.sizes is None:
            return side, side
        step, area = self.sizes.step_px, side**2
        shorter = round(math.sqrt(area * min(across, down) / max(across, down)) / step) * step
        longer = area // shorter // step * step
        return (shorter, longer) if across < down else (longer, shorter)


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
# Of the text encoder queries and values, as the reference and Hu et al. 2021, section 7.1: with all four layers of its
# attention it would be a third of an adapter.
_SD_TRAINED: Mapping[Network, tuple[str, ...]] = MappingProxyType(
    {"unet": ATTENTION + FEED_FORWARD, "text_encoder": ("q_proj", "v_proj")}
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
    targets=_TARGETS,
    trained=_LIKENESS_TRAINED,
    origins=_STABLE_DIFFUSION,
    steps=10,  # fewer broken faces than with 20 (docs/log.md, 2026-11-30)
    fast_steps=6,  # docs/log.md, 2026-11-29
    negative_scale=0.0,  # sharper faces, more similar to the person (docs/log.md)
    framings=("aligned",),  # its training data are aligned headshots
    # In all its styles: with photos only, a network this small would learn that all images are photos.
    class_templates=("photo of {}", *_LIKENESS_STYLES),
    styles=_LIKENESS_STYLES,
    learning_rate_scale=40.0,
)
SD_15 = Family(
    name="sd-1.5",
    architecture="stable-diffusion",
    resolution_px=512,
    guidance_scale=7.5,
    targets=_TARGETS,
    trained=_SD_TRAINED,
    origins=_STABLE_DIFFUSION,
    sizes=Sizes(64, least_area=0.5, most_area=2.25, most_aspect=2),  # it repeats the subject in longer ones
)
SD_21_BASE = replace(SD_15, name="sd-2.1-base")
SD_21 = replace(SD_15, name="sd-2.1", resolution_px=768)
SDXL = Family(
    name="sdxl",
    architecture="stable-diffusion-xl",
    resolution_px=1024,
    guidance_scale=5.0,  # diffusers' default for this base
    targets=_SDXL_TARGETS,
    trained=_SDXL_TRAINED,
    origins=("SDXL",),
    aspects=ASPECTS,
    sizes=Sizes(64, least_area=0.5, most_area=2.25, most_aspect=4),  # aspects: Podell et al. 2023, appendix I
)
# Steps, guidance and sizes of the flows: their model cards, of images of 1024 px. They make images up to 2048 px; 512
# px trains on a small GPU.
KLEIN_BASE_4B = Family(
    name="flux2-klein-base-4b",
    architecture="flux2-klein",
    resolution_px=512,
    guidance_scale=4.0,
    targets=MappingProxyType({"transformer": FLUX2}),
    trained=MappingProxyType({"transformer": FLUX2}),
    origins=("Flux", "a diffusion transformer"),
    steps=50,
    sampler="euler",
    aspects=ASPECTS,
    sizes=Sizes(16, least_area=0.25, most_area=16, most_aspect=4),
    native_px=1024,
)
KLEIN_4B = replace(KLEIN_BASE_4B, name="flux2-klein-4b", guidance_scale=1.0, steps=4, undistilled=KLEIN_BASE_4B.name)
Z_IMAGE = replace(
    KLEIN_BASE_4B,
    name="z-image",
    architecture="z-image",
    guidance_scale=5.0,  # 4 in diffusers, which counts it from 0 for this family
    targets=MappingProxyType({"transformer": ATTENTION + Z_IMAGE_FEED_FORWARD}),
    trained=MappingProxyType({"transformer": ATTENTION + Z_IMAGE_FEED_FORWARD}),
    origins=("a diffusion transformer",),
)
Z_IMAGE_TURBO = replace(Z_IMAGE, name="z-image-turbo", guidance_scale=1.0, steps=8, undistilled=Z_IMAGE.name)

# (cross-attention width, latent cells a side) -> family
_BY_SHAPE = {(192, 16): LIKENESS_128, (768, 64): SD_15, (1024, 64): SD_21_BASE, (1024, 96): SD_21, (2048, 128): SDXL}
# class of the denoising network, width of the text's states, whether it is distilled -> family
_BY_CLASS: Mapping[tuple[object, object, bool], Family] = {
    ("Flux2Transformer2DModel", 7680, False): KLEIN_BASE_4B,
    ("Flux2Transformer2DModel", 7680, True): KLEIN_4B,
    ("ZImageTransformer2DModel", 2560, False): Z_IMAGE,
    ("ZImageTransformer2DModel", 2560, True): Z_IMAGE_TURBO,
}
_CHOOSE = "choose a base of a supported family"
_TURBO_SHIFT = 3.0  # of Z-Image-Turbo's scheduler, the only config in which it differs from Z-Image


def family_of(
    denoiser: Mapping[str, Any], *, latent_channels: int, scheduler: Mapping[str, Any], index: Mapping[str, Any]
) -> Family:
    """The family of a base by its configs of diffusers.

    Args:
        denoiser: config of the denoising network.
        latent_channels: of the autoencoder.
        scheduler: scheduler_config.json.
        index: model_index.json.

    Raises:
        NotFound: the shape is not in the tables, or the network has further inputs (inpainting, editing).
    """
    kind = denoiser.get("_class_name")
    if kind in {name for name, _, _ in _BY_CLASS}:
        return _transformer_family(denoiser, scheduler, index)
    shape = (denoiser.get("cross_attention_dim"), denoiser.get("sample_size"))
    if shape not in _BY_SHAPE:
        known = ", ".join(f"{family.name} {width, cells}" for (width, cells), family in _BY_SHAPE.items())
        raise NotFound(
            f"expected a U-Net whose cross-attention width and latent size are one of: {known}",
            hint=_CHOOSE,
            code="BaseNotFound",
        )
    channels = denoiser.get("in_channels", 4), denoiser.get("out_channels", 4)
    if channels != (latent_channels, latent_channels):
        raise NotFound(
            f"expected a U-Net with {latent_channels} input and output channels, as many as the latents have",
            hint="bases for inpainting or editing are not supported: choose a text-to-image base",
            code="BaseNotFound",
        )
    return _BY_SHAPE[shape]


def _transformer_family(denoiser: Mapping[str, Any], scheduler: Mapping[str, Any], index: Mapping[str, Any]) -> Family:
    kind, is_flux = denoiser["_class_name"], denoiser["_class_name"] == "Flux2Transformer2DModel"
    width = denoiser.get("joint_attention_dim" if is_flux else "cap_feat_dim")
    is_distilled = bool(index.get("is_distilled")) if is_flux else scheduler.get("shift") == _TURBO_SHIFT
    found = _BY_CLASS.get((kind, width, is_distilled))
    if found is None:
        known = ", ".join(f"{family.name} {width}" for (name, width, _), family in _BY_CLASS.items() if name == kind)
        raise NotFound(f"expected a text width of {known}, got {width}", hint=_CHOOSE, code="BaseNotFound")
    return found
