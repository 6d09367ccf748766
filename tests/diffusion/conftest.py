"""The tiny base, built once for the tests of this folder."""

from pathlib import Path

import pytest
import torch

from fixtures.tiny import build_tiny_folder
from likeness.diffusion.base import BaseModel, load_base


@pytest.fixture(scope="session")
def tiny_base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_folder(tmp_path_factory.mktemp("tiny") / "tiny-base")


@pytest.fixture(scope="session")
def tiny_base(tiny_base_folder: Path) -> BaseModel:
    return load_base(str(tiny_base_folder), device=torch.device("cpu"), dtype=torch.float32)
