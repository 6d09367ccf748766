"""The state of a fine-tune as one safetensors file, and where these files are kept.

Resuming from it gives the same adapter as an uninterrupted run. A fingerprint of recipe, base, seed and photographs
identifies the fine-tune; a checkpoint with another fingerprint is refused.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import partial

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import Mismatch, StorageUnavailable
from ..storage.objects import Objects
from ..storage.reserve import Reserve
from .recipe import FineTuneRecipe, recipe_document

SUFFIX = ".safetensors"
Unsaved = OSError | StorageUnavailable
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
        Mismatch: another fingerprint, or damaged.
    """
    try:
        state = load(content)
        length = int.from_bytes(content[:_HEADER_BYTES], "little")
        metadata = json.loads(content[_HEADER_BYTES : _HEADER_BYTES + length]).get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise Mismatch(
            "the checkpoint cannot be read", hint="start over with --restart", code="CheckpointMismatch"
        ) from error
    if metadata.get("fingerprint") != mark:
        raise Mismatch(
            "the checkpoint belongs to another recipe, base, seed or set of photographs",
            hint="start over with --restart, or use the arguments of the first run",
            code="CheckpointMismatch",
        )
    return state


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one fine-tune in an object store.

    Each writer has its own key, and the key that sorts last is the newest, so a worker that lost its lease cannot
    overwrite the checkpoint of its successor.

    Args:
        mark: the fine-tune's fingerprint.
        reserve: its space is used when there is no other.
    """

    objects: Objects
    mark: str
    prefix: str = ""
    writer: str = "state"
    reserve: Reserve | None = None

    def save(self, state: dict[str, Tensor]) -> None:
        """Write a state and delete older ones. Raises OSError, StorageUnavailable."""
        mine = f"{self.prefix}{self.writer}{SUFFIX}"
        put = partial(self.objects.put, mine, pack_checkpoint(state, mark=self.mark))
        if self.reserve is None:
            put()
        else:
            self.reserve.used_by(put)
        for key in self._keys():
            if key < mine:
                self.objects.delete(key)

    def newest(self) -> dict[str, Tensor] | None:
        """The state to resume from, if there is one. Raises Mismatch."""
        keys = self._keys()
        return unpack_checkpoint(self.objects.get(keys[-1]), mark=self.mark) if keys else None

    def clear(self) -> None:
        for key in self._keys():
            self.objects.delete(key)

    def _keys(self) -> list[str]:
        found = (facts.key for facts in self.objects.list(self.prefix))
        return sorted(key for key in found if key.endswith(SUFFIX))
