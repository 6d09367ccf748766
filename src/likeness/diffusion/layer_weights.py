"""The weights of single layers, read from a base's files, for uses that need no network."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ..errors import CorruptBase
from ..types import Network
from .base import locate, weight_files

_PREFIX = "text_model."  # of CLIP's layers in the files, or of the modules, by the version of transformers


class LayerWeights:
    """The weight of each layer of a base, one at a time."""

    def __init__(self, base: str, revision: str | None = None) -> None:
        """Finds the base as `base.load_base` does. Raises NotFound."""
        self._folder = locate(base, revision)
        self._files: dict[Network, dict[str, Path]] = {}

    def __call__(self, network: Network, module: str) -> NDArray[np.float32]:
        """The weight of a layer, in the shape of the network's.

        Raises:
            CorruptBase: the files do not have it.
        """
        try:
            files = self._of(network)
            names = (f"{start}{module.removeprefix(_PREFIX)}.weight" for start in ("", _PREFIX))
            key = next(name for name in names if name in files)
            with safe_open(files[key], framework="pt") as file:  # numpy has no bfloat16
                weight: NDArray[np.float32] = file.get_tensor(key).float().numpy()
        except (OSError, SafetensorError, StopIteration) as error:
            raise CorruptBase(
                f"expected the weight of a layer of {network} in the base's files, got {type(error).__name__}"
            ) from error
        return weight

    def _of(self, network: Network) -> dict[str, Path]:
        """The file of each tensor of a network."""
        if network not in self._files:
            found: dict[str, Path] = {}
            for path in weight_files(self._folder / network):
                with safe_open(path, framework="pt") as file:
                    found |= dict.fromkeys(file.keys(), path)
            self._files[network] = found
        return self._files[network]
