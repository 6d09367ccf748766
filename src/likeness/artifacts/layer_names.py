"""Keys of LoRA files of other programs -> layers of a base; recognises unsupported files.

All programs store the same two factors under different names:

    unet.down_blocks.0.attentions.0...attn1.to_q.lora_A.weight            diffusers, PEFT names
    unet.down_blocks.0.attentions.0...attn1.to_q.lora.down.weight         diffusers, 2023
    unet.down_blocks.0.attentions.0...attn1.processor.to_q_lora.down.weight   diffusers before mid-2023
    base_model.model.down_blocks.0.attentions.0...attn1.to_q.lora_A.weight    PEFT
    lora_unet_down_blocks_0_attentions_0_..._attn1_to_q.lora_down.weight      sd-scripts
    lora_unet_input_blocks_1_1_..._attn1_to_q.lora_down.weight            the same, with CompVis' names of blocks
    diffusion_model.input_blocks.1.1...attn1.to_q.lora_up.weight          ComfyUI
    transformer.transformer_blocks.0.attn.to_q.lora_A.weight              diffusers, ComfyUI: transformers
    diffusion_model.layers.0.attention.to_q.lora_A.weight                 ComfyUI: transformers
    diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight            the same, with the names of `native_names`

Names are compared without prefixes and with `_` for `.`, against the base's list of layers.
Sources: diffusers 0.42 utils/state_dict_utils.py and loaders/lora_conversion_utils.py; kohya-ss/sd-scripts
networks/lora.py; comfyanonymous/ComfyUI comfy/lora.py; KohakuBlueleaf/LyCORIS; PEFT 0.21 tuners.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..diffusion.family import BaseOutline
from ..errors import CorruptAdapter, InputRefused, Mismatch, plain_name
from ..types import Network, encodes_text
from .factors import EXTRACT, TEXT_ROOT, AlphaOf, Key, Layer, Part, gather, plain_module
from .lycoris import as_plain
from .native_names import native_name, without_fused

Arrays = Mapping[str, NDArray[np.floating]]

# prefix, with `_` for `.` -> its network, where "unet" is the denoising network, which can be a transformer; None: any
_PREFIXES: dict[str, Network | None] = {
    "lora_unet_": "unet",
    "unet_": "unet",
    "lora_transformer_": "unet",
    "transformer_": "unet",
    "model_diffusion_model_": "unet",
    "diffusion_model_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "text_encoder_2_": "text_encoder_2",
    "text_encoder_": "text_encoder",
    "text_encoders_clip_g_transformer_": "text_encoder_2",
    "text_encoders_clip_l_transformer_": "text_encoder",
    "clip_l_transformer_": "text_encoder",
    "clip_l_": "text_encoder",
    "clip_g_transformer_": "text_encoder_2",
    "clip_g_": "text_encoder_2",
    "cond_stage_model_transformer_": "text_encoder",
    "base_model_model_": None,
    "lycoris_": None,
    "_orig_mod_": None,
    "module_": None,
}
_PARTS: dict[str, Part] = {
    "lora_A": "A", "lora_down": "A", "lora.down": "A", "lora_linear_layer.down": "A",
    "lora_B": "B", "lora_up": "B", "lora.up": "B", "lora_linear_layer.up": "B", "lora_mid": "mid",
}  # fmt: skip
_FACTOR = re.compile(rf"(.+)\.({'|'.join(map(re.escape, _PARTS))})(?:\.(?!weight|bias)\w+)?\.weight")  # .ADAPTER_NAME
_OLD_FACTOR = re.compile(r"(.+\.to_(?:q|k|v|out))_lora\.(down|up)\.weight")
_ALPHA = re.compile(r"(.+?)(?:_lora)?\.alpha")

_DORA = r"\.(dora_scale|lora_magnitude_vector)(\.|$)"
# adapters other than plain LoRA: pattern of keys -> name
_KINDS = {
    _DORA: "DoRA",
    r"\.hada_(w[12]_[ab]|t[12])(\.|$)": "LoHa",
    r"\.lokr_(w[12](_[ab])?|t[12])(\.|$)": "LoKr",
    r"\.boft_[RS]|\.boft_blocks": "BOFT",
    r"\.oft_(blocks|diag|r|R)(\.|$)|^oft_unet_": "OFT",
    r"\.vera_(lambda|[AB])": "VeRA",
    r"\.hra_u": "HRA",
    r"\.(ia3_l|on_input)(\.|$)": "IA3",
    r"\.(a1|a2|b1|b2)\.weight$": "GLoRA",
    r"\.(diff|diff_b|set_weight|w_norm|b_norm)$": "a file of weight differences",
    r"\.lora_(embedding_[AB]|[AB]\.bias|down\.bias|up\.bias)": "a LoRA with biases or embeddings",
    r"^lllite_": "ControlNet-LLLite",
    r"^(unet|text_encoder):\d+:(up|down)$": "a LoRA in the layout of cloneofsimo/lora",
    r"^(emb_params|string_to_param|bundle_emb|clip_[gl]$)": "a textual inversion",
    r"^(control_model|ip_adapter|image_proj)\.": "a ControlNet or IP-Adapter",
}
REDUCIBLE = frozenset({"DoRA", "LoHa", "LoKr"})  # what `extraction` reads
CONVERT = "convert it to a plain LoRA with the program that made it, or train a plain LoRA"

# families by their files' keys: pattern of keys -> name
_ORIGINS = {
    r"^(lora_te2_|text_encoder_2\.|text_encoders[._]clip_g|clip_g\.|conditioner\.)|add_embedding|label_emb": "SDXL",
    r"joint_(transformer_)?blocks": "Stable Diffusion 3",
    r"(double|single)_(transformer_)?blocks": "Flux",
    r"^lora_prior_": "Stable Cascade",
    r"^(transformer\.|lora_transformer_|(model\.)?diffusion_model\.(layers|blocks|transformer_blocks)\.)": (
        "a diffusion transformer"
    ),
    r"transformer_blocks[._][1-9]": "SDXL",
}
_ORIGINS_BY_WORD = (  # in the header, `ss_base_model_version` or `modelspec.architecture`
    (r"sdxl|-xl-", "SDXL"),
    (r"sd3|stable-diffusion-3", "Stable Diffusion 3"),
    (r"flux", "Flux"),
    (r"cascade", "Stable Cascade"),
    (r"sd_v2|stable-diffusion-v2", "Stable Diffusion 2"),
    (r"sd_v1|stable-diffusion-v1", "Stable Diffusion 1"),
)
_ORIGINS_BY_WIDTH = {
    192: "Likeness' built-in base",
    768: "Stable Diffusion 1",
    1024: "Stable Diffusion 2",
    2048: "SDXL",
}
_CROSS_ATTENTION = re.compile(  # factor A of a layer as wide as the text encoder's states
    r"attn2[._](?:processor[._])?to_[kv](?:_lora)?\.(?:lora_A|lora_down|lora\.down|lora_linear_layer\.down|down)\b"
)

_RESNET = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
           "conv_shortcut": "skip_connection"}  # fmt: skip
_ENDS = {"conv_in": "input_blocks.0.0", "conv_out": "out.2",
         "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
         "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}  # fmt: skip
_BLOCK = re.compile(r"(?:(down|up)_blocks\.(\d+)|mid_block)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_OLD_TEXT = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


class LayerNames:
    """The layers of one base, found by the names of any program."""

    def __init__(self, base: BaseOutline) -> None:
        self._base = base
        self._denoiser: Network = "transformer" if "transformer" in base.layers else "unet"
        self._known: dict[str, dict[tuple[Network, str], None]] = {}
        for network, layers in base.layers.items():
            for module, spellings in _spellings(network, layers).items():
                for spelling in spellings:
                    self._known.setdefault(_flat(spelling), {})[network, module] = None

    def parse(self, key: str) -> Key:
        """Network, the base's name of the layer, and part, of a key.

        Raises:
            InputRefused: the key is not part of a LoRA.
            Mismatch: the base does not have the layer.
            CorruptAdapter: the key matches two layers.
        """
        name, part = split(key)
        return (*self.find(name), part)

    def find(self, name: str, network: Network | None = None) -> tuple[Network, str]:
        """The layer with a name. Raises Mismatch, CorruptAdapter."""
        rest = _flat(name.replace(".processor.", "."))
        while not (found := self._of(rest, network)):
            prefix = next((prefix for prefix in _PREFIXES if rest.startswith(prefix)), None)
            if prefix is None:
                raise Mismatch(f"expected layers of {self._base.family.name}, got {plain_name(name)}", code="WrongBase")
            named = self._denoiser if _PREFIXES[prefix] == "unet" else _PREFIXES[prefix]
            rest, network = rest.removeprefix(prefix), named or network
        if len(found) > 1:
            raise CorruptAdapter(
                f"{plain_name(name)} matches {len(found)} layers of the base",
                hint="export the file again in another format",
            )
        return found[0]

    def _of(self, flat: str, network: Network | None) -> list[tuple[Network, str]]:
        return [layer for layer in self._known.get(flat, {}) if network in (None, layer[0])]


@dataclass(frozen=True, eq=False)
class LoraFile:
    """One safetensors file, with alphas from other sources."""

    arrays: Arrays
    metadata: Mapping[str, str]  # its header
    alphas: Mapping[Network, AlphaOf]


def read_layers(file: LoraFile, base: BaseOutline) -> dict[Network, dict[str, Layer]]:
    """The layers of a LoRA in any supported format, with the base's names.

    Raises:
        InputRefused: not a plain LoRA, nor one of LyCORIS' that is exactly one; the message says what it is.
        Mismatch: layers that the base does not have, or a LoRA for another kind of base.
        CorruptAdapter: as `factors.gather`.
    """
    refuse_other_kinds(file.arrays, allowed=("LoHa", "LoKr"))
    plain = replace(file, arrays=as_plain(file.arrays))
    refuse_other_kinds(plain.arrays)
    refuse_other_bases(plain, base)
    return gather(without_fused(plain.arrays, split), LayerNames(base).parse, plain.alphas)


def refuse_other_bases(file: LoraFile, base: BaseOutline) -> None:
    """Raises Mismatch for a file that is for another kind of base, see `origin_of`."""
    origin = origin_of(file.arrays, file.metadata)
    if origin is not None and origin not in base.family.origins:
        raise Mismatch(
            f"expected an adapter of {base.family.name}, got one of {origin}",
            hint="use a LoRA for this family, or set --base to the base that it was trained on",
            code="WrongBase",
        )


def refuse_other_kinds(keys: Iterable[str], *, allowed: Collection[str] = ()) -> None:
    """Raises InputRefused for keys of DoRA, OFT, ... or of full weights.

    Args:
        allowed: kinds that are not refused; files of them may have no other tensors.
    """
    names = sorted(keys)
    for pattern, kind in _KINDS.items():
        if kind not in allowed and any(re.search(pattern, name) for name in names):
            hint = EXTRACT if kind in REDUCIBLE else CONVERT
            raise InputRefused(f"expected a plain LoRA, got {kind}", hint=hint, code="UnsupportedAdapter")
    if names and not allowed and not any(_is_part(name) for name in names):
        raise InputRefused(
            f"expected a LoRA, got other tensors, such as {plain_name(names[0])}",
            hint="a LoRA has two tensors per layer, for example lora_A and lora_B, or lora_down and lora_up",
            code="UnsupportedAdapter",
        )


def is_dora(keys: Iterable[str]) -> bool:
    """Whether tensors with these keys have DoRA's magnitudes."""
    return any(re.search(_DORA, key) for key in keys)


def origin_of(arrays: Arrays, metadata: Mapping[str, str]) -> str | None:
    """The kind of base of a file, by its keys, its header or the width of its cross-attention."""
    for pattern, origin in _ORIGINS.items():
        if any(re.search(pattern, key) for key in arrays):
            return origin
    said = " ".join(metadata.get(key, "") for key in ("ss_base_model_version", "modelspec.architecture")).lower()
    for pattern, origin in _ORIGINS_BY_WORD:
        if re.search(pattern, said):
            return origin
    for key, array in arrays.items():
        if array.ndim > 1 and _CROSS_ATTENTION.search(key):
            return _ORIGINS_BY_WIDTH.get(array.shape[1])
    return None


def compvis_names(modules: Collection[str]) -> dict[str, str]:
    """Names of a U-Net's layers in Stable Diffusion's own code, by those of diffusers.

    That code numbers all blocks consecutively: a resnet with its attention is a block, a downsampler is a block, and an
    upsampler belongs to the preceding resnet. Source: CompVis/latent-diffusion, openaimodel.py.
    """
    blocks = {module: found for module in modules if (found := _BLOCK.fullmatch(module))}
    lengths: dict[tuple[str, int], int] = {}  # resnets in a block
    attended: set[tuple[str, int]] = set()  # blocks with attention
    sampled: set[tuple[str, int]] = set()  # blocks with a downsampler or upsampler
    for found in blocks.values():
        if found[1] is None:
            continue
        block = found[1], int(found[2])
        if found[3] == "resnets":
            lengths[block] = max(lengths.get(block, 0), int(found[4]) + 1)
        elif found[3] == "attentions":
            attended.add(block)
        else:
            sampled.add(block)
    starts: dict[tuple[str, int], int] = {}
    place = {"down": 1, "up": 0}
    for block in sorted(lengths):
        starts[block] = place[block[0]]
        place[block[0]] += lengths[block] + (block[0] == "down" and block in sampled)
    names = {module: _ENDS[module] for module in modules if module in _ENDS}
    for module, found in blocks.items():
        way, level, part, number, rest = found[1], int(found[2] or 0), found[3], int(found[4]), found[5]
        inner = _RESNET.get(rest, rest) if part == "resnets" else rest
        if way is None:
            names[module] = f"middle_block.{2 * number if part == 'resnets' else 1}.{inner}"
        elif part == "downsamplers":
            names[module] = f"input_blocks.{starts[way, level] + lengths[way, level]}.0.op"
        elif part == "upsamplers":
            last = starts[way, level] + lengths[way, level] - 1
            names[module] = f"output_blocks.{last}.{2 if (way, level) in attended else 1}.conv"
        else:
            side = "input" if way == "down" else "output"
            names[module] = f"{side}_blocks.{starts[way, level] + number}.{int(part == 'attentions')}.{inner}"
    return names


def _spellings(network: Network, layers: Collection[str]) -> dict[str, set[str]]:
    """Each layer's names in the different implementations, without prefixes."""
    spelled: dict[str, set[str]] = {}
    compvis = compvis_names(layers) if network == "unet" else {}
    for module in layers:
        if not encodes_text(network):
            names = {module, compvis.get(module, module), native_name(module)}
            spelled[module] = names | {name.removesuffix(".0") for name in names if name.endswith("to_out.0")}
        else:
            block, _, last = plain_module(network, module).rpartition(".")
            names = {f"{block}.{last}", f"{block}.{_OLD_TEXT.get(last, last)}"}
            spelled[module] = names | {TEXT_ROOT + name for name in names}
    return spelled


def split(key: str) -> tuple[str, Part]:
    """A factor's or alpha's key -> the name of its layer, and the part. Raises InputRefused."""
    if found := _FACTOR.fullmatch(key):
        return found[1], _PARTS[found[2]]
    if found := _OLD_FACTOR.fullmatch(key):
        return found[1], "A" if found[2] == "down" else "B"
    if found := _ALPHA.fullmatch(key):
        return found[1], "alpha"
    raise InputRefused(
        f"expected only the factors of a LoRA, got {plain_name(key)}", hint=CONVERT, code="UnsupportedAdapter"
    )


def _is_part(key: str) -> bool:
    return any(pattern.fullmatch(key) for pattern in (_FACTOR, _OLD_FACTOR, _ALPHA))


def _flat(name: str) -> str:
    return name.replace(".", "_")
