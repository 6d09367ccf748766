"""The state of a fine-tune as one safetensors file.

Resuming from it gives the same adapter as an uninterrupted run. A fingerprint of recipe, base, seed and photographs
identifies the fine-tune; a checkpoint with another fingerprint is refused.
"""

import hashlib
import json

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import CheckpointMismatch
from .recipe import FineTuneRecipe, recipe_document

_HEADER_BYTES = 8  # length of the JSON header, little-endian


def fingerprint(recipe: FineTuneRecipe, *, base_sha256: str, seed: int, photos: list[str]) -> str:
    """Properties that must be equal to resume a training; `photos` are content hashes."""
    document = {"recipe": recipe_document(recipe), "base": base_sha256, "seed": seed, "photos": sorted(photos)}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def pack_checkpoint(state: dict[str, Tensor], *, mark: str) -> bytes:
    """The bytes of `TrainingLoop.state`."""
    return save(state, metadata={"fingerprint": mark})


def unpack_checkpoint(content: bytes, *, mark: str) -> dict[str, Tensor]:
    """Read a checkpoint of `pack_checkpoint` with the same fingerprint.

    Raises:
        CheckpointMismatch: another fingerprint, or damaged.
    """
    try:
        state = load(content)
        length = int.from_bytes(content[:_HEADER_BYTES], "little")
        metadata = json.loads(content[_HEADER_BYTES : _HEADER_BYTES + length]).get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise CheckpointMismatch("the checkpoint cannot be read", hint="start over with --restart") from error
    if metadata.get("fingerprint") != mark:
        raise CheckpointMismatch(
            "the checkpoint belongs to another recipe, base, seed or set of photos",
            hint="start over with --restart, or use the arguments of the first run",
        )
    return state
