"""What all tests share: a quiet machine, fixed seeds, a home of their own, and where photographs are."""

import os
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest

if TYPE_CHECKING:
    from likeness.diffusion.base import BaseModel


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module is imported, so that torch, numba and the hub's client see it."""
    if "NUMBA_CACHE_DIR" not in os.environ:  # of this run only: numba ignores changes in the files of called kernels
        folder = os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="likeness-numba-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks are tiny; threads would only wait
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # of tests with two threads: on a busy machine they would spin
    os.environ["HF_HUB_OFFLINE"] = "1"
    # Examples are the same in every CI run; time limits per example would measure the neighbours.
    hypothesis.settings.register_profile("likeness", deadline=None, derandomize="CI" in os.environ)
    hypothesis.settings.load_profile("likeness")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With -n, a file's tests stay in one process: the services and the base that they share are started once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log) if config.getoption("dist") == "load" else None


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees the settings, or writes to the home, of the person who runs it."""
    for name in [name for name in os.environ if name.startswith("LIKENESS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path_factory.getbasetemp() / "home"))


@pytest.fixture(autouse=True, scope="module")
def nothing_left_open() -> Iterator[None]:
    """A module closes its engines and servers; left open, they would fail the tests of a later module."""
    yield
    left = sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("likeness-"))
    assert not left, f"expected every engine and server of this module to be closed, got the threads {left}"


@pytest.fixture(scope="session")
def tiny_base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base, as a folder that no test writes to."""
    from fixtures.tiny import build_tiny_folder  # torch

    return build_tiny_folder(tmp_path_factory.mktemp("tiny") / "tiny-base")


@pytest.fixture(scope="session")
def contrasted_base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with pictures that differ, as a folder that no test writes to."""
    from fixtures.contrast import build_contrasted_folder  # torch

    return build_contrasted_folder(tmp_path_factory.mktemp("contrasted") / "tiny-base")


@pytest.fixture(scope="session")
def tiny_base(tiny_base_folder: Path) -> "BaseModel":
    """The tiny base, loaded once for all tests: on the CPU, in float32."""
    import torch

    from likeness.diffusion.base import load_base

    return load_base(str(tiny_base_folder), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def few_steps() -> Iterator[None]:
    """Class images and score cards of random networks need two steps, not twenty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("likeness.training.prior.STEPS", 2)
        patch.setattr("likeness.scoring.measure.STEPS", 2)
        yield


@pytest.fixture(scope="session")
def demo_photos() -> Path:
    """Twelve shipped photographs of one virtual man."""
    return Path(__file__).parents[1] / "src/likeness/assets/demo"


@pytest.fixture(scope="session")
def shared_photos() -> Path:
    """The real photographs, which are not part of the project: folders `person` and `dog`."""
    folder = Path(__file__).parents[1] / "../shared/photos"
    if not folder.is_dir():
        pytest.skip("the real photographs (shared/photos beside the checkout) are not on this machine")
    return folder.resolve()
