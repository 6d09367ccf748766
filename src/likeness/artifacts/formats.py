"""Export and import: the layouts in which other programs keep a LoRA.

    peft       folders as PEFT writes them (our own layout, see adapter.py)
    diffusers  one file for StableDiffusionPipeline.load_lora_weights
    kohya      one file for ComfyUI, A1111 and kohya's sd-scripts, see kohya.py
    triton     one archive with a model for NVIDIA Triton and SageMaker, see triton/export.py

Law: an import of an export gives the same delta W for every layer. Source for diffusers: loaders/lora_base.py and
utils/state_dict_utils.py of diffusers 0.42.
"""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import AdapterExists, AdapterNotFound
from ..storage.card import FILE_NAME, MAX_BYTES, strict_json
from ..types import Adapter, AdapterCard, Network
from . import adapter as folders
from . import kohya, tensors
from .factors import NETWORKS, TEXT_ROOT, Key, Layer, Part, Weights, gather, plain_module, scaled, stored
from .foreign import Modules, assemble, card_metadata, config_alpha, header_alphas
from .triton.export import artifact, open_artifact

_SUFFIXES: dict[str, Part] = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora.down.weight": "A",
    ".lora.up.weight": "B",
    ".lora_linear_layer.down.weight": "A",
    ".lora_linear_layer.up.weight": "B",
}


@dataclass(frozen=True)
class Format:
    """One layout.

    export(adapter, path) writes a path that must not exist.
    load(path, modules, card) reads one; `modules` are the module names of the base's networks, `card` is for files
    without a card of ours (see foreign.foreign_card).
    """

    export: Callable[[Adapter, Path], None]
    load: Callable[[Path, Modules, AdapterCard | None], Adapter]
    is_folder: bool


def export_peft(adapter: Adapter, path: Path) -> None:
    """Write PEFT folders. Raises as adapter.write."""
    folders.write(adapter, path)


def import_peft(path: Path, modules: Modules, card: AdapterCard | None = None) -> Adapter:
    """Read folders `unet` and `text_encoder` of PEFT's, with or without our card.json.

    Raises:
        AdapterNotFound: no folder there.
        CorruptAdapter, WrongBase: see foreign.assemble.
    """
    if not path.is_dir():
        raise AdapterNotFound("expected a folder, got none", hint="a PEFT adapter is a folder")
    if (path / FILE_NAME).exists():
        own = folders.read(path)
        layers = {n: {m: Layer(pair, own.card.alpha) for m, pair in found.items()} for n, found in own.weights.items()}
        metadata = card_metadata(own.card)
    else:
        layers, metadata = {}, {}
        for network in NETWORKS:
            if (path / network).exists():
                layers |= _foreign_network(path / network, network)
    return assemble(layers, modules, metadata=metadata, card=card)


def export_diffusers(adapter: Adapter, path: Path) -> None:
    """Write one file for `load_lora_weights`, alpha / r folded into B.

    diffusers refuses `.alpha` keys here and takes alpha = r when its own metadata is absent; older versions ignore that
    metadata, so folding is the one form that means the same to all. Text encoder keys get the `text_model.`
    of older transformers, which newer diffusers strips, and the `lora_linear_layer` that it needs to know them.
    """
    kept = folded(adapter)
    arrays: tensors.Tensors = {}
    for module, pair in kept.weights.get("unet", {}).items():
        arrays[f"unet.{module}.lora_A.weight"], arrays[f"unet.{module}.lora_B.weight"] = pair.A, pair.B
    for module, pair in kept.weights.get("text_encoder", {}).items():
        start = f"text_encoder.{TEXT_ROOT}{plain_module('text_encoder', module)}.lora_linear_layer"
        arrays[f"{start}.down.weight"], arrays[f"{start}.up.weight"] = pair.A, pair.B
    write_new(path, tensors.encode(arrays, {"format": "pt"} | card_metadata(kept.card)))


def import_diffusers(path: Path, modules: Modules, card: AdapterCard | None = None) -> Adapter:
    """Read a `pytorch_lora_weights.safetensors`, ours or diffusers' own. Raises as foreign.assemble."""
    arrays, metadata = tensors.read_file(path)
    alphas = header_alphas(metadata.get("lora_adapter_metadata", "{}"))
    return assemble(gather(arrays, _diffusers_key, alphas), modules, metadata=metadata, card=card)


def export_kohya(adapter: Adapter, path: Path) -> None:
    """Write one file for ComfyUI and A1111."""
    kept = stored(adapter)
    write_new(path, tensors.encode(kohya.tensors_of(kept), kohya.metadata_of(kept.card) | card_metadata(kept.card)))


def import_kohya(path: Path, modules: Modules, card: AdapterCard | None = None) -> Adapter:
    """Read a kohya file; its underscore names are looked up among `modules`. Raises as foreign.assemble."""
    arrays, metadata = tensors.read_file(path)
    return assemble(gather(arrays, kohya.key_parser(modules), {}), modules, metadata=metadata, card=card)


def export_triton(adapter: Adapter, path: Path) -> None:
    """Write one archive for Triton, or for a SageMaker multi-model endpoint."""
    write_new(path, artifact(adapter))


def import_triton(path: Path, modules: Modules, card: AdapterCard | None = None) -> Adapter:
    """Read the weights of such an archive; its code is not run. Raises as open_artifact and foreign.assemble."""
    own = open_artifact(path)
    layers = {n: {m: Layer(pair, own.card.alpha) for m, pair in found.items()} for n, found in own.weights.items()}
    return assemble(layers, modules, metadata=card_metadata(own.card), card=card)


FORMATS: dict[str, Format] = {
    "peft": Format(export_peft, import_peft, is_folder=True),
    "diffusers": Format(export_diffusers, import_diffusers, is_folder=False),
    "kohya": Format(export_kohya, import_kohya, is_folder=False),
    "triton": Format(export_triton, import_triton, is_folder=False),
}


def folded(adapter: Adapter) -> Adapter:
    """The same delta W with alpha = r: what the diffusers layout can say."""
    scale = adapter.card.alpha / adapter.card.rank
    weights: Weights = {
        n: {m: scaled(pair, scale) for m, pair in found.items()} for n, found in adapter.weights.items()
    }
    return stored(Adapter(replace(adapter.card, alpha=float(adapter.card.rank)), weights))


def write_new(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all.

    Raises:
        AdapterExists: `path` is there already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".incoming-{secrets.token_hex(8)}")
    try:
        staged.write_bytes(content)
        path.open("xb").close()  # claims the name: os.replace alone would overwrite, and not every disk has hard links
        os.replace(staged, path)
    except FileExistsError as error:
        raise AdapterExists("expected a new file, got one that exists", hint="choose another path") from error
    finally:
        staged.unlink(missing_ok=True)


def _foreign_network(folder: Path, network: Network) -> dict[Network, dict[str, Layer]]:
    config = strict_json(tensors.read_bytes(folder / folders.CONFIG_NAME, limit=MAX_BYTES))
    alpha = config_alpha(config)
    return folders.read_network(folder, network, alpha=8.0 if alpha is None else alpha)  # 8: LoraConfig's default


def _diffusers_key(key: str) -> Key | None:
    network, _, rest = key.partition(".")
    for suffix, part in _SUFFIXES.items():
        module = rest.removesuffix(suffix)
        if module and module != rest and network in NETWORKS:
            return ("unet" if network == "unet" else "text_encoder", module, part)
    return None
