"""A fine-tune's state on disk: one safetensors file, replaced atomically.

Resuming from it gives the same adapter as never having stopped. It is bound to its job by a fingerprint of
recipe, base, seed and photos: another job's checkpoint is refused, not adapted.
"""

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointMismatch
from .recipe import FineTuneRecipe, recipe_document


def fingerprint(recipe: FineTuneRecipe, *, base_sha256: str, seed: int, photos: list[str]) -> str:
    """What must agree for a resume to continue the same training; `photos` are content hashes."""
    document = {"recipe": recipe_document(recipe), "base": base_sha256, "seed": seed, "photos": sorted(photos)}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def save_checkpoint(path: Path, state: dict[str, Tensor], *, mark: str) -> None:
    """Write `TrainingLoop.state` whole or not at all."""
    temporary = path.with_suffix(".tmp")
    save_file(state, temporary, metadata={"fingerprint": mark})
    temporary.replace(path)


def load_checkpoint(path: Path, *, mark: str) -> dict[str, Tensor]:
    """Read a checkpoint that `save_checkpoint` wrote with the same fingerprint.

    Raises:
        CheckpointMismatch: it is another job's, or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("fingerprint") != mark:
                raise CheckpointMismatch(
                    "the checkpoint belongs to another recipe, base, seed or set of photos",
                    hint="start over with --restart, or give the arguments of the first run",
                )
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointMismatch("the checkpoint cannot be read", hint="start over with --restart") from error
