"""The tiny base with a decoder whose pictures are not nearly all the same, so that comparing pixels means something."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from tests.tiny import build_tiny_folder

GAIN = 100.0  # a random decoder's pictures have a standard deviation of a hundredth


def build_contrasted_folder(folder: Path, **unet_changes: Any) -> Path:
    """`build_tiny_folder`, with the decoder's last layer turned up around middle grey."""
    build_tiny_folder(folder, **unet_changes)
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    last = max(
        (key for key in weights if key.startswith("decoder.layers.")), key=lambda key: int(key.split(".")[2])
    ).rsplit(".", 1)[0]
    weights[f"{last}.weight"] *= GAIN
    weights[f"{last}.bias"].fill_(0.5)  # AutoencoderTiny maps [0, 1] to [-1, 1]
    save_file(weights, path, metadata={"format": "pt"})
    return folder
