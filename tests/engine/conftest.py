"""The tiny base, built once for the tests of this folder.

In float64: batches of other sizes round otherwise, and random networks can make float32's rounding visible.
"""

from pathlib import Path

import pytest
import torch

from fixtures.people import person
from likeness.diffusion.base import BaseModel, load_base
from likeness.types import Adapter


@pytest.fixture(scope="session")
def tiny_base(contrasted_base_folder: Path) -> BaseModel:
    return load_base(str(contrasted_base_folder), device=torch.device("cpu"), dtype=torch.float64)


@pytest.fixture(scope="session")
def people(tiny_base: BaseModel) -> dict[str, Adapter]:
    names = ("anna", "bert", "cleo", "dora", "emil", "fred")
    return {name: person(tiny_base, name, seed) for seed, name in enumerate(names, 1)}
