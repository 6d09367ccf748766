"""What a server needs is compared with the device's memory before the base is loaded."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from likeness.config import Settings
from likeness.diffusion import devices
from likeness.diffusion.base import BaseModel, fake_base
from likeness.diffusion.counting import Counting
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.sampling import AdapterSlot, denoise_all
from likeness.engine.batch_limits import needed_bytes
from likeness.errors import OutOfMemory
from likeness.service.loading import offered_sides, refuse_unservable
from likeness.types import ImageRequest

SLOTS, RANK = 3, 4


def test_needed_bytes_are_those_of_a_guided_image(tiny_base: BaseModel, tiny_base_folder: Path) -> None:
    fake = fake_base(str(tiny_base_folder), device=torch.device("cpu"), dtype=torch.float32)
    with Counting() as counted:
        bank = LoraBank(tiny_base.networks, tiny_base.family.targets, slots=SLOTS, rank=RANK)
        latents = denoise_all(
            tiny_base, bank, [ImageRequest("a photo", steps=1, guidance_scale=2.0)], [[AdapterSlot(1)]]
        )
        tiny_base.decode(latents)
    bank.close()
    weights = sum(tiny_base.sizes.values())
    assert needed_bytes(fake, slots=SLOTS, rank=RANK) - weights == pytest.approx(counted.peak_bytes, rel=0.1)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes up a GPU with so much free memory."""

    def made_up(free: int) -> None:
        for name, found in {
            "pick_device": lambda: torch.device("cuda"), "pick_dtype": lambda device: torch.bfloat16,
            "counts_memory": lambda device: True, "memory_bytes": lambda device: 1 << 34,
            "available_bytes": lambda device: free, "limit_memory": lambda device, share: None,
        }.items():  # fmt: skip
            monkeypatch.setattr(devices, name, found)

    return made_up


def test_larger_images_are_offered_where_they_fit(
    tiny_base: BaseModel, tiny_base_folder: Path, tmp_path: Path, gpu: Callable[[int], None]
) -> None:
    """A CPU's memory is not counted."""
    settings = Settings(home=tmp_path, base=str(tiny_base_folder), slots=SLOTS, rank=RANK)
    large = replace(tiny_base.family, native_px=1024)
    assert offered_sides(settings, tiny_base.family) == (128,)
    assert offered_sides(settings, large) == (128, 1024)
    fake = fake_base(str(tiny_base_folder), device=torch.device("cuda"), dtype=torch.bfloat16)
    small, needed = (needed_bytes(fake, slots=SLOTS, rank=RANK, side_px=side) for side in (128, 1024))
    assert small == needed_bytes(fake, slots=SLOTS, rank=RANK) < needed / 4
    gpu(needed)
    assert offered_sides(settings, large) == (128, 1024)
    gpu(needed - 1)
    assert offered_sides(settings, large) == (128,)


@pytest.mark.parametrize(("free", "fits"), [(1 << 30, True), (1 << 20, False)])
def test_a_base_that_does_not_fit_is_refused_with_the_numbers(
    free: int, fits: bool, tiny_base_folder: Path, tmp_path: Path, gpu: Callable[[int], None]
) -> None:
    """On a made-up GPU; a CPU's memory is not counted."""
    settings = Settings(home=tmp_path, base=str(tiny_base_folder), slots=SLOTS, rank=RANK)
    refuse_unservable(settings)
    gpu(free)
    if fits:
        refuse_unservable(settings)
    else:
        with pytest.raises(OutOfMemory, match=r"expected 0\.\d GiB of free memory .* 3 slots of rank 4 .* got 0\.0"):
            refuse_unservable(settings)


def test_a_share_of_a_devices_memory_is_all_that_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    device, shares = torch.device("cuda"), [1.0]
    for name, found in {
        "mem_get_info": lambda device: (8 << 30, 16 << 30), "memory_reserved": lambda device: 1 << 30,
        "set_per_process_memory_fraction": lambda share, index: shares.append(share),
        "get_per_process_memory_fraction": lambda index: shares[-1],
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, found)
    assert devices.available_bytes(device) == 9 << 30
    devices.limit_memory(device, 0.25)
    assert devices.available_bytes(device) == 4 << 30
    devices.limit_memory(torch.device("cpu"), 0.1)
    assert shares == [1.0, 0.25]
