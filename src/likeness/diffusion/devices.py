"""Properties of devices: the default device, its fastest type, its memory, and its out-of-memory errors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import OutOfMemory

_FULL = ("can't allocate memory", "out of memory", "_STATUS_ALLOC_FAILED")  # the CPU; MPS; cuBLAS and cuDNN


def pick_device() -> torch.device:
    """The first accelerator, or the CPU if there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_dtype(device: torch.device) -> torch.dtype:
    """bf16 if the device supports it natively; fp16 on GPUs that only emulate bf16 (before Ampere); else fp32."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def counts_memory(device: torch.device) -> bool:
    """Whether torch reports the memory allocated on this device."""
    return device.type == "cuda"


def memory_bytes(device: torch.device) -> int:
    """The memory of a GPU, or of this machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_bytes(device: torch.device) -> int:
    """The memory of a GPU that this process may have, see `limit_memory`: free, or its own already."""
    free, total = torch.cuda.mem_get_info(device)
    share = torch.cuda.get_per_process_memory_fraction(device.index)
    return min(free + torch.cuda.memory_reserved(device), int(share * total))


def limit_memory(device: torch.device, share: float) -> None:
    """Let this process allocate at most this share of a GPU's memory, 0 to 1. No effect on devices that count none."""
    if counts_memory(device):
        torch.cuda.set_per_process_memory_fraction(share, device.index)


def device_name(device: torch.device) -> str:
    """A name of the device that is the same in every process of this machine, for file names."""
    if device.type == "cuda":  # an index counts from the first that the process can see
        return f"cuda-{torch.cuda.get_device_properties(device).uuid}"
    return device.type


def has_float64(device: torch.device) -> bool:
    """Whether the device supports float64; Apple's does not."""
    return device.type != "mps"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory is full; torch has an exception class for only some accelerators."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and any(words in said for words in _FULL)


def release_memory() -> None:
    """Return cached blocks to the device, after an allocation failed."""
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


@contextmanager
def memory_for(work: str, *, hint: str) -> Iterator[None]:
    """Within the block, running out of memory raises OutOfMemory.

    Args:
        work: what needs the memory, for the message.
        hint: what the user can do.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"expected memory for {work}, got none left", hint=hint) from error
