"""Import of LoRA files: detects the format and returns an adapter for this base.

    a folder     ours, a Triton model, or PEFT's (of one network, or with `unet` and `text_encoder`); or a folder with a
                 single .safetensors file, as written by diffusers' scripts
    a file       .safetensors with the layer names of any program, see `layer_names`
    a tar.gz     of such a folder

Importing an export gives the same delta W for every layer.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..diffusion.family import BaseOutline
from ..errors import CorruptAdapter, Mismatch, NotFound
from ..types import Adapter, AdapterCard, Network
from . import adapter as folders
from . import tensors
from .card import FILE_NAME, MAX_BYTES, strict_json
from .extraction import Extraction, Losses, extracted, smaller, stated
from .factors import NETWORKS, Layer
from .foreign import CARD_KEY, assemble, card_metadata, own_card, own_layers
from .layer_names import LoraFile, is_dora, origin_of, read_layers
from .package import unpack
from .peft_config import config_alpha, header_alphas
from .triton_model import CONFIG_NAME as TRITON_CONFIG
from .triton_model import read_model

MAX_DEPTH = 3  # of folders around the files
_GZIP_START = b"\x1f\x8b"
_EXPECTED = (
    "PEFT writes adapter_config.json and adapter_model.safetensors, here or in unet/ and text_encoder/; diffusers' "
    "scripts write one .safetensors file"
)


def read_foreign(
    path: Path, base: BaseOutline, card: AdapterCard | None = None, *, extraction: Extraction | None = None
) -> Adapter:
    """Read a file or folder of another program or another installation of Likeness.

    Args:
        card: for files without a Likeness card; see foreign.foreign_card.
        extraction: a file that is not a plain LoRA, or has a larger rank, becomes the nearest LoRA of its rank; the
            card of the result has the error. None: such a file is refused; the caller refuses larger ranks.

    Raises:
        NotFound: no such path.
        InputRefused: not a plain LoRA; the message says what it is.
        CorruptAdapter: damaged, a pickle, or a folder without an adapter.
        InputRefused: a damaged tar.gz, or one with contents other than an adapter.
        Mismatch: layers that the base does not have or that have other dimensions, or a card for another base.
    """
    if path.is_dir():
        return _read_folder(path, base, card, extraction)
    if not os.path.lexists(path):
        raise NotFound(
            "expected a file or folder with an adapter, got a path that does not exist",
            hint="check the path",
            code="AdapterNotFound",
        )
    if path.name == folders.WEIGHTS_NAME and (path.parent / folders.CONFIG_NAME).is_file():
        return _read_files([_peft_file(path.parent)], base, card, extraction)  # alpha is in adapter_config.json
    if _is_gzip(path):
        with tempfile.TemporaryDirectory() as parent:
            return _read_folder(unpack(path, Path(parent) / "adapter", needs_manifest=False), base, card, extraction)
    return _read_files([_file(path)], base, card, extraction)


def _read_folder(folder: Path, base: BaseOutline, card: AdapterCard | None, extraction: Extraction | None) -> Adapter:
    folder = _inner(folder)
    if (folder / FILE_NAME).exists():
        return _read_own(folders.read(folder), base, extraction)
    if (folder / TRITON_CONFIG).exists():
        return _read_own(read_model(folder), base, extraction)
    if named := [folder / network for network in NETWORKS if (folder / network).is_dir()]:
        return _read_files([_peft_file(_inner(network)) for network in named], base, card, extraction)
    if any(folder.glob("adapter_*")):
        return _read_files([_peft_file(folder)], base, card, extraction)
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise CorruptAdapter(f"expected the folder of one adapter, got {len(files)} safetensors files", hint=_EXPECTED)
    return _read_files([_file(files[0])], base, card, extraction)


def _inner(folder: Path) -> Path:
    """The folder that contains the files: archives and PEFT's named adapters have an additional folder around it."""
    for _ in range(MAX_DEPTH):
        inside = list(folder.iterdir())
        if len(inside) != 1 or not inside[0].is_dir() or inside[0].name in NETWORKS:
            break
        folder = inside[0]
    return folder


def _file(path: Path) -> LoraFile:
    tensors.refuse_pickle_name(path)
    arrays, metadata = tensors.read_file(_followed(path))
    said = metadata.get("lora_adapter_metadata", "{}")
    return LoraFile(arrays, metadata, header_alphas(said, is_dora=is_dora(arrays)))


def _peft_file(folder: Path) -> LoraFile:
    """A folder written by PEFT's save_pretrained."""
    weights, config = folder / folders.WEIGHTS_NAME, folder / folders.CONFIG_NAME
    if not weights.exists() and any(folder.glob("adapter_model.*")):
        raise CorruptAdapter("expected adapter_model.safetensors, got a pickle", hint="save it as safetensors")
    if not weights.exists() or not config.exists():
        raise CorruptAdapter(f"expected both {config.name} and {weights.name} in the folder", hint=_EXPECTED)
    arrays, _ = tensors.read_file(_followed(weights))
    said = strict_json(tensors.read_bytes(_followed(config), limit=MAX_BYTES))
    alpha = config_alpha(said, is_dora=is_dora(arrays))
    return LoraFile(arrays, {}, dict.fromkeys(NETWORKS, alpha))


def _read_files(
    files: Sequence[LoraFile], base: BaseOutline, card: AdapterCard | None, extraction: Extraction | None
) -> Adapter:
    if extraction is not None and CARD_KEY in files[0].metadata:  # its card is compared with what is in the file
        return smaller(_read_files(files, base, card, None), extraction.rank)
    layers: dict[Network, dict[str, Layer]] = {}
    losses: Losses = {}
    try:
        for file in files:
            own_card(file.metadata, base)  # a card for another base is reported before any layer
            if extraction is not None:
                file, lost = extracted(file, base, extraction)
                losses = {**losses, **lost}
            found = read_layers(file, base)
            if layers.keys() & found.keys():
                raise CorruptAdapter("expected one set of weights for each network, got two", hint=_EXPECTED)
            layers |= found
        if card is not None and losses:
            card = replace(card, extraction=stated(losses))
        return assemble(layers, base, metadata=files[0].metadata, card=card)
    except Mismatch as error:
        origin = next(filter(None, (origin_of(file.arrays, file.metadata) for file in files)), None)
        looks = "" if origin is None else f"; it appears to be for {origin}"
        raise Mismatch(
            error.message,
            hint=error.hint or f"use --base with the base that it was trained on{looks}",
            code="WrongBase",
        ) from None


def _read_own(adapter: Adapter, base: BaseOutline, extraction: Extraction | None) -> Adapter:
    found = assemble(own_layers(adapter, base), base, metadata=card_metadata(adapter.card), card=None)
    return found if extraction is None else smaller(found, extraction.rank)


def _followed(path: Path) -> Path:
    """The target of a link: the Hugging Face cache consists of links. Unpacked archives have none."""
    return Path(os.path.realpath(path))


def _is_gzip(path: Path) -> bool:
    if not path.is_file():  # does not open pipes; the reader refuses anything but files
        return False
    with path.open("rb") as file:
        return file.read(len(_GZIP_START)) == _GZIP_START
