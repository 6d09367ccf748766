"""A LoraConfig of PEFT: the alpha of each layer, or an error if the factors beside it are not a plain LoRA.

PEFT's scale of a layer is alpha / r, or alpha / sqrt(r) where the config is rank-stabilised (Kalajdzievski 2023,
arXiv:2312.03732). Ours is always alpha / r, so alpha is converted. Source: PEFT 0.21, tuners/lora/layer.py
and utils/other.py, `get_pattern_key`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import CorruptAdapter, InputRefused, plain_name
from ..types import Network
from .card import strict_json
from .factors import NETWORKS, TEXT_ROOT, AlphaOf
from .layer_names import CONVERT

_DEFAULT_ALPHA = 8.0  # of a LoraConfig without this field
_HINT = "use an intact copy of the file"
_PLAIN_PATTERN = re.compile(r"\^?[\w.]{1,200}", re.ASCII)  # other patterns may take forever to match

# Fields of a LoraConfig that do not change the meaning of A and B; any other field must be empty.
_HARMLESS = frozenset(
    {
        "peft_type",
        "task_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "r",
        "lora_alpha",
        "rank_pattern",
        "alpha_pattern",
        "use_rslora",
        "target_modules",
        "lora_dropout",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "megatron_core",
        "qalora_group_size",
    }
)
_PLAIN_VALUES: dict[str, tuple[object, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (True, "gaussian", "eva", "orthogonal"),  # of those that leave the base as it is
}


@dataclass(frozen=True)
class ConfigAlpha:
    """The alpha of each layer, by one config."""

    alpha: float = _DEFAULT_ALPHA
    patterns: Mapping[str, float] | None = None  # the first that fits the end of a layer's name goes before `alpha`
    is_rank_stabilised: bool = False

    def __call__(self, module: str, rank: int) -> float:
        alpha = next((one for pattern, one in (self.patterns or {}).items() if _fits(pattern, module)), self.alpha)
        return alpha * math.sqrt(rank) if self.is_rank_stabilised else alpha


def config_alpha(config: Mapping[str, object], *, is_dora: bool = False) -> ConfigAlpha:
    """The alphas that a config means.

    Args:
        is_dora: the tensors beside it have DoRA's magnitudes, so `use_dora` is allowed.

    Raises:
        InputRefused: another method than LoRA (DoRA, PiSSA, ...): same keys, other arithmetic.
        CorruptAdapter: an alpha is no number above 0.
    """
    if (kind := config.get("peft_type") or "LORA") != "LORA":
        raise InputRefused(
            f"expected a plain LoRA, got {plain_name(str(kind))}", hint=CONVERT, code="UnsupportedAdapter"
        )
    for field, value in config.items():
        plain = (
            field in _HARMLESS
            or (is_dora and field == "use_dora")
            or value in _PLAIN_VALUES.get(field, ())
            or not value
        )
        if not plain:
            raise InputRefused(
                f"expected a plain LoRA, got one with {plain_name(field)}", hint=CONVERT, code="UnsupportedAdapter"
            )
    alpha, patterns, stabilised = (config.get(field) for field in ("lora_alpha", "alpha_pattern", "use_rslora"))
    if not isinstance(patterns or {}, dict) or not isinstance(stabilised or False, bool):
        raise CorruptAdapter("expected alpha_pattern to be an object and use_rslora a boolean", hint=_HINT)
    for pattern in patterns or {}:  # type: ignore[attr-defined]
        if not _PLAIN_PATTERN.fullmatch(pattern):
            raise InputRefused(
                "expected plain names in alpha_pattern, got a regular expression",
                hint=CONVERT,
                code="UnsupportedAdapter",
            )
    numbers = {pattern: _checked(one) for pattern, one in (patterns or {}).items()}  # type: ignore[attr-defined]
    return ConfigAlpha(_DEFAULT_ALPHA if alpha is None else _checked(alpha), numbers, bool(stabilised))


def header_alphas(text: str, *, is_dora: bool = False) -> dict[Network, AlphaOf]:
    """By diffusers' `lora_adapter_metadata`, a JSON object with keys such as `unet.lora_alpha`. Raises as above."""
    entries, alphas = strict_json(text.encode()), dict[Network, AlphaOf]()
    for network in NETWORKS:
        start = f"{network}."
        if config := {key.removeprefix(start): value for key, value in entries.items() if key.startswith(start)}:
            alphas[network] = config_alpha(config, is_dora=is_dora)
    return alphas


def _fits(pattern: str, module: str) -> bool:
    """As PEFT compares them; CLIP's layers may or may not be in `text_model`."""
    return any(re.fullmatch(rf"(.*\.)?({pattern})", name) for name in (module, f"{TEXT_ROOT}{module}"))


def _checked(alpha: object) -> float:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha <= 1e6:
        raise CorruptAdapter("expected lora_alpha to be a number above 0", hint=_HINT)
    return float(alpha)
