"""What a device can do: which one to take, in which type it multiplies fast, and what it says when memory is out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import OutOfMemory

_FULL = ("can't allocate memory", "out of memory", "_STATUS_ALLOC_FAILED")  # the CPU; MPS; cuBLAS and cuDNN


def pick_device() -> torch.device:
    """The first accelerator there is, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the device multiplies it; fp16 on cards that only emulate it (before Ampere); else fp32."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def counts_memory(device: torch.device) -> bool:
    """Whether torch counts what is allocated on this device."""
    return device.type == "cuda"


def has_float64(device: torch.device) -> bool:
    """Whether tensors of float64 can be on this device: on Apple's they cannot."""
    return device.type != "mps"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is full; torch has a class for that on accelerators only, and not for all."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and any(words in said for words in _FULL)


@contextmanager
def memory_for(work: str, *, hint: str) -> Iterator[None]:
    """Within the block, memory that is full raises OutOfMemory.

    Args:
        work: what needs the memory, for the message.
        hint: what can be done about it.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"expected memory for {work}, got none left", hint=hint) from error
