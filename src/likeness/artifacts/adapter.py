"""An adapter in a folder: card.json and, per network, the two files that PEFT itself writes.

    NAME/card.json
    NAME/unet/adapter_model.safetensors, adapter_config.json
    NAME/text_encoder/...                                     if text encoders were trained too

`peft.PeftModel.from_pretrained(unet, NAME/"unet")` loads it. Layout: PEFT 0.21, `save_pretrained`.
"""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np

from ..errors import AlreadyExists, CorruptAdapter, Mismatch, NotFound
from ..types import Adapter, AdapterCard, Network
from . import tensors
from .card import FILE_NAME, MAX_BYTES, read_card, strict_json, write_card
from .factors import NETWORKS, Key, Layer, check_content, gather, stored
from .package import refuse_existing

WEIGHTS_NAME = "adapter_model.safetensors"
CONFIG_NAME = "adapter_config.json"
_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")


def write(adapter: Adapter, folder: Path, *, dtype: type[np.float16] | type[np.float32] = np.float16) -> Adapter:
    """Write the folder atomically.

    Args:
        folder: must not exist.
        dtype: of the stored weights. float16 halves the file; its rounding is far below the noise of training.

    Returns:
        the adapter as stored: cast, and its card with `content_sha256`.

    Raises:
        AlreadyExists: `folder` exists.
        CorruptAdapter: NaN, inconsistent shapes, a card out of range.
    """
    kept = stored(adapter, dtype)
    files = {FILE_NAME: write_card(kept.card)}
    for network in kept.weights:
        files[f"{network}/{CONFIG_NAME}"] = json.dumps(_config(kept, network), indent=2).encode() + b"\n"
        files[f"{network}/{WEIGHTS_NAME}"] = _weights_file(kept, network)
    refuse_existing(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".incoming-", dir=folder.parent))
    try:
        for name, content in files.items():
            _write_durably(staged / name, content)
        os.rename(staged, folder)
    except OSError as error:
        if folder.exists():
            raise AlreadyExists(
                "another process has just written this folder", hint="choose another", code="AdapterExists"
            ) from error
        raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return kept


def read(folder: Path) -> Adapter:
    """Read and check a folder written by `write`.

    Raises:
        NotFound: no such folder.
        CorruptAdapter: anything missing, unknown, truncated or not finite, or the card's hash does not match.
    """
    if not folder.is_dir():
        raise NotFound(
            "expected an adapter's folder, got none", hint="`likeness list` shows the adapters", code="AdapterNotFound"
        )
    card = read_card(tensors.read_bytes(folder / FILE_NAME, limit=MAX_BYTES))
    if not card.content_sha256:
        raise CorruptAdapter(
            "expected content_sha256 in card.json, got none", hint="the adapter is incomplete: export it again"
        )
    layers: dict[Network, dict[str, Layer]] = {}
    for network in NETWORKS:
        if os.path.lexists(folder / network):
            layers |= read_network(folder / network, network, alpha=card.alpha)
    weights = {network: {name: layer.pair for name, layer in found.items()} for network, found in layers.items()}
    adapter = check_content(card, weights)
    for network in adapter.weights:
        content = tensors.read_bytes(folder / network / CONFIG_NAME, limit=MAX_BYTES)
        if strict_json(content) != _config(adapter, network):
            raise CorruptAdapter(
                "adapter_config.json disagrees with the card", hint="the file was edited; use `likeness import` instead"
            )
    return adapter


def read_network(folder: Path, network: Network, *, alpha: float) -> dict[Network, dict[str, Layer]]:
    """The layers in one PEFT folder, with their names as in the file.

    Raises:
        CorruptAdapter: missing, a pickle, truncated, unknown keys, inconsistent shapes.
    """
    if not (folder / WEIGHTS_NAME).exists() and (folder / "adapter_model.bin").exists():
        raise CorruptAdapter("expected adapter_model.safetensors, got a pickle", hint="save it as safetensors")

    def parse(key: str) -> Key | None:
        found = _KEY.fullmatch(key)
        return (network, found[1], "A" if found[2] == "A" else "B") if found else None

    arrays, _ = tensors.read_file(folder / WEIGHTS_NAME)
    return gather(arrays, parse, {network: lambda module, rank: alpha})


def strength_on(card: AdapterCard, base_sha256: str) -> float:
    """The strength of an adapter on the base with this hash: 1 where it was trained, see `AdapterCard.serves`.

    Raises:
        Mismatch: it was trained on another base, and its card does not name this one.
    """
    if card.base_sha256 == base_sha256:
        return 1.0
    if base_sha256 not in card.serves:
        raise Mismatch(
            f"expected an adapter of base {base_sha256[:12]}..., got one of base {card.base_sha256[:12]}...",
            hint="use the base that the adapter was trained on, or train again on this base",
            code="WrongBase",
        )
    return float(card.serves[base_sha256])


def _config(adapter: Adapter, network: Network) -> dict[str, object]:
    return {
        "peft_type": "LORA",
        "task_type": None,
        "r": adapter.card.rank,
        "lora_alpha": adapter.card.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "target_modules": sorted(adapter.weights[network]),  # full names: short ones would match other layers too
    }


def _weights_file(adapter: Adapter, network: Network) -> bytes:
    arrays: tensors.Tensors = {}
    for module, pair in adapter.weights[network].items():
        arrays[f"base_model.model.{module}.lora_A.weight"] = pair.A
        arrays[f"base_model.model.{module}.lora_B.weight"] = pair.B
    return tensors.encode(arrays, {"format": "pt"})


def _write_durably(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
