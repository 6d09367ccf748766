"""Types and errors of devices that this machine may not have."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fixtures.tiny import scheduler
from likeness.diffusion.devices import is_out_of_memory, pick_dtype
from likeness.diffusion.schedule import Schedule, schedule_from_config


class WithoutFloat64(TorchDispatchMode):
    """As Apple's device: a float64 tensor on it is an error."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.device.type == "mps" and leaf.dtype == torch.float64:
                raise TypeError(f"{function}: MPS has no float64")
        return out


USES: dict[str, Callable[[Schedule, Tensor, Tensor], Tensor]] = {
    "add_noise": lambda schedule, x, t: schedule.add_noise(x, x, t),
    "denoised": lambda schedule, x, t: schedule.denoised(x, x, t),
    "target": lambda schedule, x, t: schedule.target(x, x, t),
    "snr": lambda schedule, x, t: schedule.snr(t),
    "signal": lambda schedule, x, t: schedule.signal(t),
    "sigma": lambda schedule, x, t: schedule.sigma(t),
}


@pytest.mark.parametrize("times", ["mps", "cpu"])
@pytest.mark.parametrize("prediction_type", ["sample", "epsilon", "v_prediction"])
@pytest.mark.parametrize("use", USES)
def test_no_float64_comes_to_a_device_that_has_none(use: str, prediction_type: str, times: str) -> None:
    schedule = schedule_from_config(dict(scheduler(prediction_type).config))
    with FakeTensorMode(allow_non_fake_inputs=True), WithoutFloat64():
        x = torch.zeros(3, 4, 2, 2, device="mps")
        for t in (torch.zeros(3, dtype=torch.int64, device=times), torch.zeros(3, device=times)):
            out = USES[use](schedule, x, t)
            on_mps = times == "mps" or use in ("add_noise", "denoised", "target")
            assert out.device.type == ("mps" if on_mps else "cpu")


@pytest.mark.parametrize("is_emulated", [False, True])
def test_bf16_only_where_it_is_no_emulation(monkeypatch: pytest.MonkeyPatch, is_emulated: bool) -> None:
    """Cards before Ampere say that they have it, and compute it slowly."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or not is_emulated
    )
    assert pick_dtype(torch.device("cuda")) == (torch.float16 if is_emulated else torch.bfloat16)
    assert pick_dtype(torch.device("cpu")) == pick_dtype(torch.device("mps")) == torch.float32


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18.13 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("expected scalar type Half but found Float"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_says_that_memory_is_full(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) == is_memory
