"""Compiled blocks give the same images and are compiled in the warm-up only, whatever is served."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from fixtures.tiny import (
    QWEN_WIDTH,
    build_tiny_klein,
    build_tiny_sdxl,
    build_tiny_stable_diffusion,
    build_tiny_z_image,
    random_row,
    relative,
)
from likeness.diffusion import family
from likeness.diffusion.base import BaseModel, load_base
from likeness.diffusion.sampling import AdapterSlot, denoise_all
from likeness.engine.slot_banks import SlotBanks
from likeness.engine.warm_up import warm_up
from likeness.errors import SettingsError
from likeness.types import ImageRequest

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]  # of torch.compile and diffusers

SLOTS, RANK, LARGE_RANK = 5, 6, 9
LARGE = SLOTS  # the slot of an adapter of larger rank
LONG = "photo of a man in the snow " * 8


@dataclass(frozen=True)
class Kind:
    """A tiny base, and how many compilations its warm-up takes: one for each form of its blocks."""

    build: Callable[[Path], Path]
    compilations: int
    size: Mapping[str, Any]  # another size than the square


KINDS = {
    "sd-2.1": Kind(build_tiny_stable_diffusion, 1, {"width": 512, "height": 640}),
    "sdxl": Kind(lambda folder: build_tiny_sdxl(folder, cells=16), 1, {}),
    "klein": Kind(build_tiny_klein, 2, {"width": 192, "height": 96}),
    "z-image": Kind(build_tiny_z_image, 5, {"width": 192, "height": 96}),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def base(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseModel]:
    """A base of a family that the tables have only here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(family._BY_SHAPE, (2048, 16), replace(family.SDXL, resolution_px=128))
        widths = {"Flux2Transformer2DModel": 3 * QWEN_WIDTH, "ZImageTransformer2DModel": QWEN_WIDTH}
        for (name, _, is_distilled), known in list(family._BY_CLASS.items()):
            small = replace(known, resolution_px=128)
            patch.setitem(family._BY_CLASS, (name, widths[str(name)], is_distilled), small)
        folder = kind.build(tmp_path_factory.mktemp("compiled") / "base")
        yield load_base(str(folder), device=torch.device("cpu"), dtype=torch.float32)


def asked(seed: int, prompt: str = "photo of a person", **options: Any) -> ImageRequest:
    return ImageRequest(prompt, seed=seed, steps=2, **options)


def served(size: Mapping[str, Any]) -> list[tuple[list[ImageRequest], list[list[AdapterSlot]]]]:
    """Batches: requests, and where their adapters are."""
    one, other, large = AdapterSlot(1), AdapterSlot(3, 0.5, 0.5), AdapterSlot(LARGE)
    return [
        ([asked(1)], [[]]),
        ([asked(1, LONG), asked(2, guidance_scale=1)], [[one], [other]]),
        ([asked(1, negative_scale=0), asked(2), asked(3, LONG)], [[one, other, AdapterSlot(2)], [large, one], []]),
        ([asked(k) for k in range(5)], [[AdapterSlot(1 + k % 3)] for k in range(5)]),
        ([asked(1, **size)], [[large]]),
    ]


def test_images_are_the_same_and_nothing_is_compiled_after_the_warm_up(kind: Kind, base: BaseModel) -> None:
    with closing(SlotBanks(base, slots=SLOTS, rank=RANK, large_rank=LARGE_RANK)) as banks:
        for slot in range(1, SLOTS):
            banks.usual.write(slot, random_row(banks.usual, slot, slot) * 0.3, rank=slot)
        bank, own = banks.at(LARGE)
        bank.write(own, random_row(bank, LARGE) * 0.3)
        eager = [denoise_all(base, banks, *batch) for batch in served(kind.size)]
        counted = CompileCounterWithBackend("eager")
        banks.compile(counted)
        warm_up(base, banks)
        assert counted.frame_count == kind.compilations
        for batch, expected in zip(served(kind.size), eager, strict=True):
            assert relative(denoise_all(base, banks, *batch), expected) < 1e-4
        banks.usual.write(1, random_row(banks.usual, 77) * 0.3)
        changed = denoise_all(base, banks, *served(kind.size)[1])
        assert relative(changed, eager[1]) > 1e-3
        assert counted.frame_count == kind.compilations
    assert relative(denoise_all(base, None, [asked(1)]), eager[0]) < 1e-6


def test_a_machine_that_cannot_compile_is_refused(tiny_base: BaseModel) -> None:
    def without_a_compiler(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    with closing(SlotBanks(tiny_base, slots=2, rank=RANK, large_rank=RANK)) as banks:
        banks.compile(without_a_compiler)
        with pytest.raises(SettingsError, match="expected torch") as refused:
            warm_up(tiny_base, banks)
    assert "LIKENESS_COMPILE=off" in (refused.value.hint or "")
