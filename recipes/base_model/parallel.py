"""Training on several processes: each draws its own rows, and gradients are averaged.

`torchrun --nproc-per-node 2 -m recipes.base_model.train_unet ...` starts them. On two CPU cores, two processes with
one thread each process a quarter more samples than one process with two threads (docs/log.md). On GPUs each process has
its own device.
"""

import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed


def join(device: str) -> tuple[int, int, torch.device]:
    """Rank, number of processes, and device; (0, 1, device) without torchrun."""
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if count == 1:
        return 0, 1, torch.device(device)
    here = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if device == "cuda" else torch.device(device)
    if here.type == "cuda":
        torch.cuda.set_device(here)  # otherwise every process would also open a context on the first device
    distributed.init_process_group()
    return rank, count, here


def leave() -> None:
    """Call once at the end; does nothing for one process."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Average the gradients over all processes; does nothing for one process."""
    if not distributed.is_initialized():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def agreed(value: float, device: torch.device) -> float:
    """The first process' value for all processes, for example its clock, so that all stop after the same step."""
    if not distributed.is_initialized():
        return value
    told = torch.tensor([value], dtype=torch.float64, device=device)
    distributed.broadcast(told, src=0)
    return float(told)
