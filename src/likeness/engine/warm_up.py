"""Compiles the blocks of the denoising network before the first request, in every form that serving needs."""

import time
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException
from torch.fx.experimental import _config

from ..diffusion.base import BaseModel
from ..diffusion.sampling import advance, begin
from ..errors import SettingsError
from ..types import ImageRequest
from .slot_banks import SlotBanks

_SHORT, _LONG = "", "photo of a person in the snow " * 8  # Z-Image masks rows whose prompts differ so much in length
_FORWARDS = ((_SHORT,), (_SHORT, _SHORT), (_SHORT, _LONG))  # the prompts of their rows: one row is a form of its own


def warm_up(base: BaseModel, banks: SlotBanks) -> float:
    """One step each of the forms of a forward pass, without adapters. Returns the seconds that it took.

    Raises:
        SettingsError: `torch.compile` does not work here.
    """
    started_s = time.perf_counter()
    symbolic_shapes: Any = _config
    try:
        with symbolic_shapes.patch(use_duck_shape=False):  # sizes that are equal now need not be later
            for prompts in _FORWARDS:
                requests = [ImageRequest(prompt, seed=0, guidance_scale=1) for prompt in prompts]
                advance(base, banks, begin(base, banks, requests, [()] * len(requests)))
    except TorchDynamoException as error:
        raise SettingsError(
            f"expected torch.compile to work on this machine, got {type(error).__name__}",
            hint="set LIKENESS_COMPILE=off, or install what it needs: on a CPU a C++ compiler, on a GPU Triton",
        ) from error
    if base.device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - started_s
