"""An adapter <-> the archive that SageMaker and Triton take: one model in a byte-deterministic tar.gz.

    manifest.json                  every file with size and SHA-256
    NAME/config.pbtxt              the same for everybody
    NAME/1/model.py                the thin model, and engine_client.py beside it
    NAME/1/adapter.safetensors     the weights with their card, see `bundle`
    NAME/1/card.json               the card again, for whoever cannot read safetensors

What is read back are the weights and the card; code in an archive is never run by us, see `write_model`.
"""

import tempfile
from importlib import resources
from pathlib import Path

from ...errors import AlreadyExists, CorruptAdapter
from ...storage.card import FILE_NAME, MAX_BYTES, read_card, write_card
from ...types import Adapter
from .. import bundle, tensors
from ..package import pack, unpack

CONFIG_NAME = "config.pbtxt"
VERSION = "1"
WEIGHTS_NAME = f"adapter{bundle.SUFFIX}"
CODE_NAMES = ("engine_client.py", "model.py")
SUFFIX = ".tar.gz"


def artifact(adapter: Adapter) -> bytes:
    """The archive; equal adapters give equal bytes. Raises CorruptAdapter: NaN, a card out of range."""
    with tempfile.TemporaryDirectory() as folder:
        write_model(adapter, Path(folder) / adapter.card.name)
        return pack(Path(folder))


def write_model(adapter: Adapter, folder: Path) -> Path:
    """Write a model's folder as this version of Likeness has it. Raises AlreadyExists, CorruptAdapter."""
    kept, content = bundle.encode(adapter)
    if folder.exists():
        raise AlreadyExists(
            "expected a new folder, got one that exists", hint="choose another or remove it first", code="AdapterExists"
        )
    (folder / VERSION).mkdir(parents=True)
    (folder / CONFIG_NAME).write_bytes(_own(CONFIG_NAME))
    for name in CODE_NAMES:
        (folder / VERSION / name).write_bytes(_own(name))
    (folder / VERSION / WEIGHTS_NAME).write_bytes(content)
    (folder / VERSION / FILE_NAME).write_bytes(write_card(kept.card))
    return folder


def read_model(folder: Path) -> Adapter:
    """The adapter in a model's folder.

    Raises:
        CorruptAdapter: a file is missing or damaged, or card.json and the weights are not one another's.
    """
    adapter = bundle.decode(tensors.read_bytes(folder / VERSION / WEIGHTS_NAME, limit=tensors.MAX_FILE_BYTES))
    card = read_card(tensors.read_bytes(folder / VERSION / FILE_NAME, limit=MAX_BYTES))
    if card != adapter.card:
        raise CorruptAdapter("card.json is not the card of the weights", hint="export the adapter again")
    return adapter


def open_artifact(source: bytes | Path) -> Adapter:
    """The adapter in an archive.

    Raises:
        ArchiveRefused, CorruptAdapter: see `package.unpack`; or not exactly one model inside.
    """
    with tempfile.TemporaryDirectory() as parent:
        models = sorted(unpack(source, Path(parent) / "archive").iterdir())
        if len(models) != 1 or not (models[0] / CONFIG_NAME).is_file():
            raise CorruptAdapter("expected one folder with a config.pbtxt", hint="`likeness export --format triton`")
        adapter = read_model(models[0])
        if adapter.card.name != models[0].name:
            raise CorruptAdapter("expected the folder to be named for its adapter", hint="export the adapter again")
        return adapter


def _own(name: str) -> bytes:
    return (resources.files(__package__) / name).read_bytes()
