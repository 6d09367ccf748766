"""The folder of a Triton model with an adapter in it, as far as an import reads it; `deploy.triton.export` writes it.

config.pbtxt                the model's configuration, the same for every adapter
1/adapter.safetensors       the weights with their card, see `bundle`
1/card.json                 the card again, for programs that cannot read safetensors
"""

from pathlib import Path

from ..errors import CorruptAdapter
from ..types import Adapter
from . import bundle, tensors
from .card import FILE_NAME, MAX_BYTES, read_card

CONFIG_NAME = "config.pbtxt"
VERSION = "1"
WEIGHTS_NAME = f"adapter{bundle.SUFFIX}"


def read_model(folder: Path) -> Adapter:
    """The adapter in a model's folder. Code in the folder is neither read nor run.

    Raises:
        CorruptAdapter: a file is missing or damaged, or card.json differs from the card of the weights.
    """
    adapter = bundle.decode(tensors.read_bytes(folder / VERSION / WEIGHTS_NAME, limit=tensors.MAX_FILE_BYTES))
    card = read_card(tensors.read_bytes(folder / VERSION / FILE_NAME, limit=MAX_BYTES))
    if card != adapter.card:
        raise CorruptAdapter("expected card.json to be the card of the weights", hint="export the adapter again")
    return adapter
