"""Export to the LoRA formats of other programs; `importing` reads them.

    peft       folders as PEFT writes them (also our own layout, see adapter.py)
    diffusers  one file for the `load_lora_weights` of diffusers' pipelines
    kohya      one file for ComfyUI, A1111 and kohya's sd-scripts, see kohya.py

`deploy.triton.export` adds one for NVIDIA Triton and SageMaker.

Importing an export gives the same delta W for every layer. Source for diffusers: loaders/lora_base.py and
utils/state_dict_utils.py of diffusers 0.42.
"""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import AlreadyExists, UsageError
from ..types import Adapter, encodes_text
from . import adapter as folders
from . import kohya, tensors
from .factors import TEXT_ROOT, Weights, plain_module, scaled, stored
from .foreign import card_metadata

_TEXT_ENDINGS = "lora_linear_layer.down", "lora_linear_layer.up"


@dataclass(frozen=True)
class Format:
    """One format.

    export(adapter, path) writes to a path that must not exist.
    """

    export: Callable[[Adapter, Path], None]
    is_folder: bool


def export_peft(adapter: Adapter, path: Path) -> None:
    """Write PEFT folders. Raises as adapter.write."""
    folders.write(adapter, path)


def export_diffusers(adapter: Adapter, path: Path) -> None:
    """Write one file for `load_lora_weights`, alpha / r folded into B.

    diffusers refuses `.alpha` keys here and uses alpha = r without its own metadata; older versions ignore that
    metadata. Folding is therefore the only form that all versions read the same way. Text encoder keys get the
    `text_model.` prefix of older transformers, which newer diffusers removes, and the `lora_linear_layer` by which it
    recognises them.
    """
    kept = folded(adapter)
    arrays: tensors.Tensors = {}
    for network, pairs in kept.weights.items():
        for module, pair in pairs.items():
            name, (down, up) = f"{network}.{module}", ("lora_A", "lora_B")
            if encodes_text(network):
                name, (down, up) = f"{network}.{TEXT_ROOT}{plain_module(network, module)}", _TEXT_ENDINGS
            arrays[f"{name}.{down}.weight"], arrays[f"{name}.{up}.weight"] = pair.A, pair.B
    write_new(path, tensors.encode(arrays, {"format": "pt"} | card_metadata(kept.card)))


def export_kohya(adapter: Adapter, path: Path) -> None:
    """Write one file for ComfyUI and A1111.

    Raises:
        UsageError: the adapter is for a transformer, for which ComfyUI does not read these names.
    """
    if "transformer" in adapter.weights:
        raise UsageError(
            f"expected an adapter of Stable Diffusion for the format kohya, got one of {adapter.card.family}",
            hint="use the format diffusers: ComfyUI reads it too",
        )
    kept = stored(adapter)
    write_new(path, tensors.encode(kohya.tensors_of(kept), kohya.metadata_of(kept.card) | card_metadata(kept.card)))


FORMATS: dict[str, Format] = {
    "peft": Format(export_peft, is_folder=True),
    "diffusers": Format(export_diffusers, is_folder=False),
    "kohya": Format(export_kohya, is_folder=False),
}


def folded(adapter: Adapter) -> Adapter:
    """The same delta W with alpha = r, as the diffusers format requires."""
    scale = adapter.card.alpha / adapter.card.rank
    weights: Weights = {
        n: {m: scaled(pair, scale) for m, pair in found.items()} for n, found in adapter.weights.items()
    }
    return stored(Adapter(replace(adapter.card, alpha=float(adapter.card.rank)), weights))


def write_new(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        AlreadyExists: `path` exists.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".incoming-{secrets.token_hex(8)}")
    try:
        staged.write_bytes(content)
        # Reserves the name: os.replace alone would overwrite, and not every file system has hard links.
        path.open("xb").close()
        os.replace(staged, path)
    except FileExistsError as error:
        raise AlreadyExists(
            "expected a new file, got one that exists", hint="choose another path", code="AdapterExists"
        ) from error
    finally:
        staged.unlink(missing_ok=True)
