"""An adapter -> a model of NVIDIA Triton: a folder, or the tar.gz that SageMaker's multi-model endpoints take.

    manifest.json                  every file with size and SHA-256 (in the archive only)
    NAME/config.pbtxt              the same for every adapter
    NAME/1/model.py                the model's code, and engine_client.py beside it
    NAME/1/adapter.safetensors     weights and card, see `artifacts.triton_model`
    NAME/1/card.json

The archive is byte-deterministic. An import reads weights and card back; it never runs the code.
"""

import tempfile
from importlib import resources
from pathlib import Path

from ...artifacts import bundle
from ...artifacts.card import FILE_NAME, write_card
from ...artifacts.exporting import Format, write_new
from ...artifacts.package import pack, refuse_existing
from ...artifacts.triton_model import CONFIG_NAME, VERSION, WEIGHTS_NAME
from ...types import Adapter

CODE_NAMES = ("engine_client.py", "model.py")
SUFFIX = ".tar.gz"


def archive(adapter: Adapter) -> bytes:
    """The archive; equal adapters give equal bytes. Raises CorruptAdapter: NaN, a card out of range."""
    with tempfile.TemporaryDirectory() as folder:
        write_model(adapter, Path(folder) / adapter.card.name)
        return pack(Path(folder))


def write_model(adapter: Adapter, folder: Path) -> Path:
    """Write a model's folder. Raises AlreadyExists, CorruptAdapter."""
    kept, content = bundle.encode(adapter)
    refuse_existing(folder)
    (folder / VERSION).mkdir(parents=True)
    (folder / CONFIG_NAME).write_bytes(_resource(CONFIG_NAME))
    for name in CODE_NAMES:
        (folder / VERSION / name).write_bytes(_resource(name))
    (folder / VERSION / WEIGHTS_NAME).write_bytes(content)
    (folder / VERSION / FILE_NAME).write_bytes(write_card(kept.card))
    return folder


def _export(adapter: Adapter, path: Path) -> None:
    write_new(path, archive(adapter))


def _resource(name: str) -> bytes:
    return (resources.files(__package__) / name).read_bytes()


TRITON = Format(_export, is_folder=False)
