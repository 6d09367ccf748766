"""Recipes: all hyperparameters of a fine-tune, and the presets as two tables; docs/recipes.md has the sources.

Learning rates are for Stable Diffusion; `Family.learning_rate_scale` adapts them to smaller networks.

fast         a first look: a third of the steps.
standard     the values of Stable Diffusion; `_OF_FAMILY` has the differences of other families.
thorough     more steps and twice the rank.
origin-2023  the reference solution's settings, on every family.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from ..diffusion.family import (
    ATTENTION,
    FLUX2,
    KLEIN_BASE_4B,
    LIKENESS_128,
    SDXL,
    Z_IMAGE,
    Z_IMAGE_FEED_FORWARD,
    is_target,
)
from ..errors import UsageError
from ..types import Network, Subject, checked_rank, checked_seed, checked_subject, encodes_text

# `standard`'s distribution of timesteps, see `timesteps`
UNIFORM_SHARE, TIMESTEP_SPREAD = 1 / 3, 0.7
TIMESTEP_SHIFT = 0.4 / (1 - 0.4)  # odds of the median: the timesteps around 0.4 form a face


@dataclass(frozen=True)
class FineTuneRecipe:
    """The hyperparameters of one fine-tune. `steps` is the whole run; rows are per step."""

    name: str
    steps: int
    instance_rows: int  # photographs in each step
    prior_rows: int  # rows of class images in each step; 0: no prior preservation
    rank: int
    alpha: float
    unet_learning_rate: float
    text_learning_rate: float  # 0: the text encoder is not trained
    unet_targets: tuple[str, ...]  # endings of module names; intersected with the family's
    text_targets: tuple[str, ...]
    down_blocks: bool = True  # whether a U-Net's down blocks are trained; False: no backward pass runs through them
    text_rank: int | None = None  # rank in the text encoder, at most `rank`; None: `rank`
    prior_weight: float = 1.0
    prior_from_base: bool = True  # target of class images: the base's prediction, not the image; see `loss`
    class_images: int = 32
    warmup_steps: int = 20
    decay: bool = True  # cosine to zero at the end
    middle_timesteps: bool = True  # more rows at timesteps that form the face, see `timesteps`; False: uniform
    uniform_share: float = UNIFORM_SHARE  # share of the rows whose timesteps are uniform
    timestep_spread: float = TIMESTEP_SPREAD  # standard deviation of the logit of the other rows
    timestep_shift: float | None = TIMESTEP_SHIFT  # odds of their median; None: by the image's size, see `timesteps`
    min_snr_gamma: float | None = 5.0
    background_weight: float = 0.15
    face_gain: float = 1.0
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    variants: int = 6  # augmented copies of each prepared photograph
    vary_background: bool = True
    styled_copies: int = 6  # styled copies of each prepared photograph, if the base's family has styles
    checkpoint_every: int = 100
    resolution_px: int | None = None  # side of the square photographs in training; None: the family's

    def rank_of(self, network: Network) -> int:
        """r of this network's layers."""
        return self.rank if not encodes_text(network) or self.text_rank is None else self.text_rank

    def learning_rate_of(self, network: Network) -> float:
        """Of this network's layers; all text encoders have one."""
        return self.text_learning_rate if encodes_text(network) else self.unet_learning_rate

    def targets_of(self, network: Network) -> tuple[str, ...]:
        """Endings of the module names that are trained in this network; none if its learning rate is 0."""
        if encodes_text(network):
            return self.text_targets if self.text_learning_rate else ()
        return self.unet_targets

    def trains(self, network: Network, module: str) -> bool:
        """Whether a layer of a network, by its module name, is trained."""
        is_left_out = not self.down_blocks and module.startswith("down_blocks.")
        return is_target(module, self.targets_of(network)) and not is_left_out

    def scale_of(self, network: Network) -> float:
        """alpha / r of this network's layers."""
        return self.alpha / self.rank_of(network)


@dataclass(frozen=True)
class FineTuneOrder:
    """The request for one fine-tune. Raises UsageError for a subject or seed outside its limits."""

    subject: Subject
    recipe: FineTuneRecipe
    seed: int = 0
    restart: bool = False  # trains from the first step, even if there is a checkpoint
    replace: bool = False  # replaces an existing adapter of this name

    def __post_init__(self) -> None:
        checked_subject(self.subject)
        checked_seed(self.seed)


# endings in U-Nets and in transformers; a base trains those that its family lists
_ALL_UNET = tuple(dict.fromkeys((
    "to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", *FLUX2, *Z_IMAGE_FEED_FORWARD,
)))  # fmt: skip
_ALL_TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")

_STANDARD = FineTuneRecipe(
    name="standard", steps=296, instance_rows=6, prior_rows=1, rank=8, alpha=8,
    unet_learning_rate=1e-4, text_learning_rate=1e-5, unet_targets=_ALL_UNET, text_targets=_ALL_TEXT,
    down_blocks=False,
)  # fmt: skip
_ORIGIN = FineTuneRecipe(
    name="origin-2023", steps=1000, instance_rows=1, prior_rows=1, rank=128, alpha=1,
    unet_learning_rate=1e-4, text_learning_rate=1e-4, unet_targets=("to_q", "to_v"), text_targets=("q_proj", "v_proj"),
    text_rank=64, class_images=50, warmup_steps=100, decay=False, min_snr_gamma=None, background_weight=1.0,
    face_gain=0.0, weight_decay=0.01, variants=1, vary_background=False, styled_copies=0, prior_from_base=False,
    middle_timesteps=False,
)  # fmt: skip

# family -> its own values of `standard`
_LARGE: Mapping[str, Any] = MappingProxyType({"prior_rows": 2, "rank": 16, "alpha": 16})
_FLOW: Mapping[str, Any] = MappingProxyType(
    {**_LARGE, "text_learning_rate": 0.0, "min_snr_gamma": None, "uniform_share": 0.0, "timestep_spread": 1.0}
)
_OF_FAMILY: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        LIKENESS_128.name: {"steps": 448},
        SDXL.name: {**_LARGE, "steps": 340, "unet_targets": ATTENTION, "down_blocks": True},
        KLEIN_BASE_4B.name: {**_FLOW, "steps": 250, "timestep_shift": None},
        Z_IMAGE.name: {**_FLOW, "steps": 340, "timestep_shift": 1.0},
    }
)
# preset -> steps and rank as multiples of those of `standard`
_MULTIPLES: Mapping[str, tuple[float, int]] = MappingProxyType(
    {"fast": (1 / 3, 1), "standard": (1, 1), "thorough": (8 / 3, 2)}
)


def preset(name: str, family: str = "") -> FineTuneRecipe:
    """The values of a preset for a family of bases, by its name; "": those of Stable Diffusion.

    Args:
        name: of `PRESETS`.
    """
    if name == _ORIGIN.name:
        return _ORIGIN
    standard, (steps, rank) = replace(_STANDARD, **_OF_FAMILY.get(family, {})), _MULTIPLES[name]
    return replace(
        standard, name=name, steps=round(steps * standard.steps), rank=rank * standard.rank, alpha=rank * standard.alpha
    )


PRESETS: Mapping[str, FineTuneRecipe] = MappingProxyType({name: preset(name) for name in (*_MULTIPLES, _ORIGIN.name)})

MOST_PEOPLE = 16  # at once in one loop; more make a step longer without a gain in throughput
LARGEST_PRESET_RANK = max(recipe.rank for recipe in PRESETS.values())

_LIMITS = {
    "steps": (1, 20_000), "instance_rows": (1, 64), "prior_rows": (0, 64), "rank": (1, 256), "alpha": (0.001, 1024),
    "text_rank": (1, 256),
    "unet_learning_rate": (0, 0.1), "text_learning_rate": (0, 0.1), "class_images": (0, 1000), "variants": (1, 64),
    "styled_copies": (0, 64), "resolution_px": (256, 1024),
    "prior_weight": (0, 10), "background_weight": (0, 1), "face_gain": (0, 10), "warmup_steps": (0, 20_000),
    "uniform_share": (0, 1), "timestep_spread": (0.01, 10), "timestep_shift": (0.01, 100),
    "min_snr_gamma": (0.01, 1000), "weight_decay": (0, 1), "clip_norm": (0.001, 1000), "checkpoint_every": (1, 20_000),
}  # fmt: skip
_ACCEPTED: Mapping[object, tuple[type, ...]] = MappingProxyType(
    {
        int: (int,),
        float: (int, float),
        float | None: (int, float, type(None)),
        bool: (bool,),
        str: (str,),
        int | None: (int, type(None)),
    }
)


def check_rank(recipe: FineTuneRecipe, most: int) -> None:
    """Check a recipe's rank against an installation's largest. A preset's own rank is always allowed.

    Raises:
        Mismatch: a changed recipe of a larger rank.
    """
    own = max(preset(recipe.name, family).rank for family in ("", *_OF_FAMILY))
    checked_rank(recipe.rank, max(most, own))


def recipe_named(name: str, family: str = "", /, **changes: object) -> FineTuneRecipe:
    """A preset with some fields changed; the name cannot be changed.

    Args:
        family: of the base, by its name; "": unknown, for checks before a base is chosen.

    Raises:
        UsageError: unknown preset or field, or a value of the wrong type or outside its limits.
    """
    if name not in PRESETS:
        raise UsageError(f"expected a recipe of {', '.join(PRESETS)}")
    known = {field.name: field.type for field in fields(FineTuneRecipe) if field.name != "name"}
    if not changes.keys() <= known.keys():
        raise UsageError(f"expected recipe fields of {', '.join(sorted(known))}")
    for field, value in changes.items():
        _check_kind(field, known[field], value)
    recipe = replace(preset(name, family), **changes)  # type: ignore[arg-type]
    for field, (low, high) in _LIMITS.items():
        value = getattr(recipe, field)
        if value is not None and not low <= value <= high:
            raise UsageError(f"expected {field} from {low} to {high}, got {value}")
    if recipe.resolution_px is not None and recipe.resolution_px % 256:
        raise UsageError(f"expected resolution_px in steps of 256, got {recipe.resolution_px}")
    for field, known_targets in (("unet_targets", _ALL_UNET), ("text_targets", _ALL_TEXT)):
        targets = getattr(recipe, field)
        if not set(targets) <= set(known_targets) or len(set(targets)) < len(targets):
            raise UsageError(f"expected {field} of {', '.join(known_targets)}, each once")
    if not recipe.unet_targets and not recipe.targets_of("text_encoder"):
        raise UsageError("expected unet_targets, or text_targets and a text_learning_rate above 0, got neither")
    if recipe.rank_of("text_encoder") > recipe.rank:
        raise UsageError(f"expected text_rank of at most the rank, {recipe.rank}, got {recipe.text_rank}")
    return recipe


def _check_kind(field: str, kind: object, value: object) -> None:
    if kind not in _ACCEPTED:  # module endings
        if not isinstance(value, tuple) or not all(isinstance(ending, str) for ending in value):
            raise UsageError(f"expected {field} as a list of strings, got something else")
    elif not isinstance(value, _ACCEPTED[kind]) or (kind is bool) != isinstance(value, bool):
        raise UsageError(f"expected {field} as {getattr(kind, '__name__', kind)}, got {type(value).__name__}")


def recipe_document(recipe: FineTuneRecipe) -> dict[str, object]:
    """The recipe as JSON types, for card and checkpoint."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(recipe).items()}
