"""What is loaded or opened at first use is loaded once, however many threads ask first."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fixtures.waiting import HANG_S
from likeness.config import Settings
from likeness.diffusion import base as base_module
from likeness.service import Likeness, build
from likeness.storage import catalog as catalog_module


@pytest.mark.parametrize(
    ("module", "name", "ask"),
    [
        (base_module, "load_base", lambda likeness: likeness.base),
        (catalog_module, "Database", lambda likeness: likeness.catalog.engine),
    ],
)
def test_many_first_requests_are_one_load(
    tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    module: object, name: str, ask: Callable[[Likeness], object],
) -> None:  # fmt: skip
    real, loads, all_here = getattr(module, name), [], threading.Barrier(4)

    def slow(*given: object, **named: object) -> object:
        loads.append(threading.current_thread().name)
        threading.Event().wait(0.05)  # the others ask meanwhile
        return real(*given, **named)

    monkeypatch.setattr(module, name, slow)
    likeness = build(Settings(home=tmp_path / "home", base=str(tiny_base_folder)))

    def first(_: int) -> object:
        all_here.wait(HANG_S)
        return ask(likeness)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(first, range(4)))
    assert len(loads) == 1 and len({id(one) for one in found}) == 1
    assert likeness.training is likeness.training
    likeness.close()
