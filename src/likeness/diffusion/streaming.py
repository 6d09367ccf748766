"""A network that stays in host memory: each of its layers is on the device while it computes.

For networks that are called rarely, because their results are cached: the language model of a prompt, and, in a
training, every network that no adapter modifies.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def stream(network: nn.Module, device: torch.device) -> None:
    """Keep a network in host memory; each of its layers is on `device` while it computes.

    Buffers stay on `device`, where a forward pass takes and returns tensors. One thread at a time may call the network.
    """
    for layer in network.modules():
        if host := dict(layer.named_parameters(recurse=False)):

            def enter(layer: nn.Module, _: Any, host: Mapping[str, nn.Parameter] = host) -> None:
                for name, weight in host.items():
                    setattr(layer, name, nn.Parameter(weight.to(device, non_blocking=True), requires_grad=False))

            def leave(layer: nn.Module, *_: Any, host: Mapping[str, nn.Parameter] = host) -> None:
                for name, weight in host.items():
                    setattr(layer, name, weight)

            layer.register_forward_pre_hook(enter)
            layer.register_forward_hook(leave, always_call=True)
        for name, buffer in list(layer.named_buffers(recurse=False)):
            layer.register_buffer(name, buffer.to(device), persistent=False)
